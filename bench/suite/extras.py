"""Rows about our server alone: batch sizes, what the prefix cache saves, what speculation gains."""

import json
import statistics

from . import machine, ours

SHARED_TOKENS = 500
OWN_TOKENS = 100
SPECULATIVE_TOKENS = 4
SPECULATION_TOKENS = 64
# The hint prompt of `star bootstrap`; explanations of a known answer copy names and numbers of the question.
HINT_PROMPT = (
    "You are a helpful math tutor. The correct final answer is already known.\nExplain step by step how to arrive at "
    "it, showing your reasoning clearly.\nConclude again with the final answer.\n\nQ: {question}\n\nCorrect Answer: "
    "{gold}\n\nA:"
)


def run_all(run):
    for extra in (batch_sizes, prefix_cache, speculation):
        try:
            found = extra(run)
        except ours.NotAvailable as why:
            run.log(f"{extra.__name__}: {why}")
            run.result["missing"][extra.__name__.replace("_", " ")] = str(why)
            continue
        except RuntimeError as why:
            run.log(f"{extra.__name__} failed: {why}")
            run.result["missing"][extra.__name__.replace("_", " ")] = str(why)[:300]
            continue
        if found:
            run.result["extras"].append(found)


def repeated(run, server, *arguments):
    """The repetitions of a workload, each in its own turn."""
    found = []
    for repetition in range(run.args.repetitions):
        with machine.Turn(run.args.lock):
            report = server.bench(*arguments, "--seed", repetition)
        found.append(report["repetitions"][0])
    return found


def median(runs, name):
    return statistics.median(run[name] for run in runs)


def quantile(runs, name, key):
    return f"{statistics.median(run[name][key] for run in runs):.1f}"


def batch_sizes(run):
    """Tokens/s at 1, 8 and 64 sequences on the largest shape."""
    model = "tiny" if run.args.quick else "1b"
    folder = run.checkpoint(model)
    lines = []
    for dtype in run.args.dtypes:
        try:
            arguments = run.binaries.flags_for(dtype)
        except ours.NotAvailable:
            continue
        server = run.open_ours(folder, arguments, f"batch-{dtype}")
        try:
            rates = []
            for size in (1, 8, 64):
                runs = repeated(run, server, "--num-prompts", size, "--prompt-tokens", 32, "--max-tokens", 32)
                rates.append(median(runs, "generated_tokens_per_s"))
        finally:
            server.close()
        lines.append([dtype] + [f"{rate:.1f}" for rate in rates] + [f"{rates[2] / rates[0]:.1f}"])
    return {
        "title": f"Batch sizes on `{model}`",
        "what": "Generated tokens/s with so many random prompts of 32 tokens at once, 32 new tokens each.",
        "header": ["dtype", "1", "8", "64", "64 / 1"],
        "lines": lines,
    }


def prefix_cache(run):
    """Prompts with a shared head, with and without the cache."""
    folder = run.checkpoint("tiny" if run.args.quick else "small")
    lines = []
    for mode in ("off", "on"):
        server = run.open_ours(folder, run.binaries.flags_for("f32", prefix_cache=mode), f"prefix-{mode}")
        try:
            runs = repeated(
                run,
                server,
                "--num-prompts",
                32,
                "--prompt-tokens",
                SHARED_TOKENS + OWN_TOKENS,
                "--shared-prefix-tokens",
                SHARED_TOKENS,
                "--max-tokens",
                16,
                "--concurrency",
                8,
            )
        finally:
            server.close()
        lines.append(
            [
                mode,
                f"{median(runs, 'wall_s'):.2f}",
                f"{median(runs, 'generated_tokens_per_s'):.1f}",
                quantile(runs, "ttft_ms", "p50"),
                quantile(runs, "ttft_ms", "p99"),
                f"{100 * median(runs, 'num_cached_tokens') / median(runs, 'num_prompt_tokens'):.0f} %",
            ]
        )
    return {
        "title": "Prefix cache",
        "what": f"32 prompts that share their first {SHARED_TOKENS} tokens and have {OWN_TOKENS} of their own, 8 "
        "at a time, 16 new tokens each; another head in every repetition.",
        "header": [
            "cache",
            "wall s",
            "generated tok/s",
            "first token p50 ms",
            "p99 ms",
            "prompt tokens from the cache",
        ],
        "lines": lines,
    }


def speculation(run):
    """The demo's trained model on its own hint prompts, with and without drafts from the prompt."""
    folder = f"{run.repository}/data/demo/model"
    path = f"{run.args.work}/hints.jsonl"
    with open(f"{run.repository}/data/demo/test.jsonl") as questions, open(path, "w") as file:
        for line in list(questions)[:64]:
            record = json.loads(line)
            gold = record["answer"].rsplit("#### ", 1)[1]
            file.write(json.dumps({"text": HINT_PROMPT.format(question=record["question"], gold=gold)}) + "\n")
    lines = []
    for tokens in (0, SPECULATIVE_TOKENS):
        server = run.open_ours(
            folder, run.binaries.flags_for("f32", speculative_tokens=tokens), f"speculation-{tokens}"
        )
        try:
            for concurrency in (1, 8):
                runs = repeated(
                    run, server, "--prompts", path, "--max-tokens", SPECULATION_TOKENS, "--concurrency", concurrency
                )
                drafted = sum(each.get("num_draft_tokens", 0) for each in runs)
                accepted = sum(each.get("num_accepted_draft_tokens", 0) for each in runs)
                lines.append(
                    [
                        str(tokens),
                        str(concurrency),
                        f"{median(runs, 'generated_tokens_per_s'):.0f}",
                        quantile(runs, "itl_ms", "p50"),
                        f"{100 * accepted / drafted:.0f} % of {drafted}" if drafted else "–",
                    ]
                )
        finally:
            server.close()
    return {
        "title": "Speculation by prompt lookup",
        "what": "The demo's trained model on 64 hint prompts of its test split, whose answers copy names and numbers "
        f"of the question; {SPECULATION_TOKENS} new tokens each (those that are shorter run on past their end).",
        "header": ["draft tokens", "at a time", "generated tok/s", "between tokens p50 ms", "drafts accepted"],
        "lines": lines,
    }
