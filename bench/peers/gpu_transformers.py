"""PyTorch and transformers on a GPU: a Llama with random weights, of the shapes of `bench/gpu.sh`. One JSON line for
each measurement, as soon as there is one; what failed is a line, too.

ceilings     a copy in the device's memory, and a bf16 product
continuous   transformers' continuous batching (paged cache), and
static       generate() over the whole batch: greedy, end of text ignored, every prompt as long as the others
train        AdamW over f32 weights, products in autocast bf16: eager and SDPA attention, with and without checkpointing
"""

import argparse
import gc
import json
import statistics
import time
from inspect import signature

import torch
import transformers
from suite.gpu_shapes import SHAPES
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

# Ways to train: attention, checkpointing, parts of a step (gradients are summed). The likely best first, for where time
# runs out; what does not fit into the card's memory says so.
TRAININGS = [("sdpa", False, 4), ("sdpa", False, 1), ("sdpa", True, 1), ("eager", False, 4), ("eager", True, 1)]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", required=True)
    parser.add_argument("--shape", required=True, choices=SHAPES)
    parser.add_argument("--device", required=True, choices=["cuda", "cpu"])
    parser.add_argument("--num-prompts", type=int, required=True)
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="nothing new is begun after these")
    return parser.parse_args()


args = arguments()
START = time.monotonic()


def say(**values):
    print(json.dumps(values), flush=True)


def timed(function, num_warm_up, repetitions):
    """The median, in seconds; fewer repetitions where time runs out."""
    for _ in range(num_warm_up):
        function()
    times = []
    for _ in range(repetitions):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - start)
        if time.monotonic() - START > args.seconds - 10:
            break
    return statistics.median(times)


def synchronize():
    if args.device == "cuda":
        torch.cuda.synchronize()


def clear():
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def llama(dtype, attention):
    shape = SHAPES[args.shape]
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(args.device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)


def ceilings():
    num_bytes, side = (1 << 30, 8192) if args.device == "cuda" else (1 << 26, 512)
    source = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    copy_s = timed(lambda: target.copy_(source), 3, 20)
    left, right = (torch.randn(side, side, device=args.device, dtype=torch.bfloat16) for _ in range(2))
    product_s = timed(lambda: left @ right, 3, 20)
    say(
        what="ceilings",
        by=f"measured through torch {torch.__version__}",
        gb_per_s=round(2 * num_bytes / copy_s / 1e9, 1),
        tflops=round(2 * side**3 / product_s / 1e12, 3),
    )


def generation_config():
    return GenerationConfig(
        max_new_tokens=args.max_tokens,
        min_new_tokens=args.max_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=True,
    )


def prompts():
    draw = torch.Generator().manual_seed(7)
    return torch.randint(10, SHAPES[args.shape].vocab, (args.num_prompts, args.prompt_tokens), generator=draw)


def say_rate(what, how, seconds):
    say(
        what=what,
        how=how,
        version=f"transformers {transformers.__version__}, torch {torch.__version__}",
        wall_s=round(seconds, 3),
        tokens_per_s=round(args.num_prompts * args.max_tokens / seconds, 1),
    )


@torch.inference_mode()
def static():
    model, ids = llama(torch.bfloat16, "sdpa").eval(), prompts().to(args.device)
    mask = torch.ones_like(ids)

    def run():
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config())
        assert found.shape[1] == args.prompt_tokens + args.max_tokens, found.shape

    say_rate("static", "generate() over one batch, SDPA", timed(run, 1, 2))


def continuous():
    model, inputs = llama(torch.bfloat16, "sdpa").eval(), prompts().tolist()

    # Cache and graphs are made once, in the run that is not timed (where this version can keep them).
    keep = {"persistent_manager": True} if "persistent_manager" in signature(model.generate_batch).parameters else {}

    def run():
        found = model.generate_batch(inputs=inputs, generation_config=generation_config(), **keep)
        count = sum(len(output.generated_tokens) for output in found.values())
        assert count == args.num_prompts * args.max_tokens, f"{count} tokens"

    say_rate("continuous", "continuous batching, paged SDPA", timed(run, 1, 2))
    if hasattr(model, "destroy_cached_continuous_batching_manager"):
        model.destroy_cached_continuous_batching_manager()


def train():
    for attention, checkpointing, num_parts in TRAININGS:
        num_parts = min(num_parts, args.rows)
        by = f"torch, {attention}, fused AdamW"
        by += f", {num_parts} parts a step" * (num_parts > 1) + ", checkpointing" * checkpointing
        if time.monotonic() - START > args.seconds - 15:
            say(what="train", by=by, failed="no time left")
            continue
        try:
            train_once(attention, checkpointing, num_parts, by)
        except Exception as why:
            say(what="train", by=by, failed=f"{type(why).__name__}: {why}"[:300])
        clear()


def train_once(attention, checkpointing, num_parts, by):
    model = llama(torch.float32, attention).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    ids = torch.randint(10, model.config.vocab_size, (args.rows, args.length), device=args.device)

    def step():
        for part in ids.chunk(num_parts):
            with torch.autocast(args.device, torch.bfloat16):
                loss = model(input_ids=part, labels=part, use_cache=False).loss / num_parts
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = timed(step, 2, 5)
    say(
        what="train",
        by=by,
        rows=args.rows,
        length=args.length,
        ms=round(1e3 * seconds, 2),
        tokens_per_s=round(args.rows * args.length / seconds, 1),
        peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 1) if args.device == "cuda" else None,
    )


def main():
    transformers.logging.set_verbosity_error()
    parts = {"ceilings": ceilings, "static": static, "continuous": continuous, "train": train}
    for name in args.what.split(","):
        try:
            parts[name]()
        except Exception as why:
            say(what=name, failed=f"{type(why).__name__}: {why}"[:400])
        clear()


if __name__ == "__main__":
    main()
