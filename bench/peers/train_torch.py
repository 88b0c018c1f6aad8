"""A plain PyTorch training loop over transformers' Llama. Variants: `eager` (attention written out, torch.optim.AdamW
parameter by parameter) and `fused` (scaled_dot_product_attention, fused AdamW)."""

import json
import time

import training

args = training.arguments()
SETTINGS = {
    "eager": ("eager", {"foreach": False, "fused": False}),
    "fused": ("sdpa", {"fused": True}),
}
ATTENTION, ADAMW = SETTINGS[args.variant]


def main():
    results = training.private_stdout()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation=ATTENTION
    )
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, **ADAMW
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / args.steps)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16")

    def batch_of(rows):
        """Inputs without each example's last token, which is only ever a label, padded on the right."""
        width = max(len(row["ids"]) for row in rows) - 1
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for index, row in enumerate(rows):
            tokens, start = torch.tensor(row["ids"]), row["label_start"]
            count = len(tokens) - 1
            ids[index, :count], mask[index, :count] = tokens[:-1], 1
            labels[index, start - 1 : count] = tokens[start:]
        # Without padding no mask: the fastest attention.
        return ids, None if mask.all() else mask, labels

    def step(rows):
        ids, mask, labels = batch_of(rows)
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.item()

    rows = training.examples(args)
    step_ms, losses = [], []
    for index in range(args.steps):
        start = time.perf_counter()
        losses.append(step(rows[index * args.batch_size : (index + 1) * args.batch_size]))
        step_ms.append(1000 * (time.perf_counter() - start))
    settings = f"{ATTENTION} attention, AdamW {'fused' if ADAMW['fused'] else 'by parameter'}"
    found = {
        "version": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "settings": settings + (", autocast bf16" if args.dtype == "bf16" else ""),
        "step_ms": step_ms,
        "losses": losses,
        "peak_mib": training.peak_mib(),
    }
    results.write(json.dumps(found) + "\n")
    results.flush()


if __name__ == "__main__":
    main()
