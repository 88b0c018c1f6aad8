"""transformers on a CPU: `model.generate` over left-padded batches of prompts sorted by length, SDPA attention."""

import os

import worker

args = worker.arguments()
os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)})

# The best of 8, 32 and 64 for each type on the shape `small`; f32 gains from the static cache.
BATCH = {"f32": 64, "bf16": 32}[args.dtype]
STATIC_CACHE = args.dtype == "f32"

if __name__ == "__main__":
    replies = worker.private_stdout()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype={"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype], attn_implementation="sdpa"
    ).eval()
    pad = model.config.pad_token_id or 0

    def batch_of(prompts, max_tokens):
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), pad)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        config = transformers.GenerationConfig(
            max_new_tokens=max_tokens,
            min_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=pad,
            use_cache=True,
            **({"cache_implementation": "static"} if STATIC_CACHE else {}),
        )
        return model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, width:].tolist()

    @torch.inference_mode()
    def run(prompts, max_tokens):
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        outputs = [None] * len(prompts)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for index, output in zip(rows, batch_of([prompts[index] for index in rows], max_tokens), strict=True):
                outputs[index] = output
        return outputs

    worker.serve(
        replies,
        {
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "settings": f"batches of {BATCH} sorted by length, SDPA, {'static' if STATIC_CACHE else 'dynamic'} cache",
        },
        run,
    )
