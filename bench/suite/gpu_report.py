"""The table of `bench/gpu.sh`: what was measured, what the card allows at most, and what PyTorch makes of it."""

from .gpu_shapes import BYTES, decode_floor, job_lengths, prefill_floor, serving_floor, training_floor
from .report import number, table

HEADER = ["what", "measured", "of the least time", "bound by", "PyTorch", "ours / PyTorch"]

PARTS_HEADER = ["part", "µs", "times", "together", "of the least time", "bound by", "best of cublasLt's, µs"]


def write(run):
    text = markdown(run)
    with open(f"{run.args.out}/report.md", "w") as file:
        file.write(text)
    return text


def markdown(run):
    shape, machine = run.args.shape, run.found("machine")
    facts = machine[0] if machine else {"card": "unknown", "time": "", "programs_from": "unknown"}
    parts = [f"## GPU: {facts['card']}, {facts['time'][:10]}, programs from {facts['programs_from']}, shape {shape}"]
    if run.args.emulated or run.args.device == "cpu":
        parts.append("**A smoke test without a GPU: no number here says anything about speed.**")
    if found := run.found("ceilings"):
        said = found[-1]
        parts.append(
            f"Least times are computed from {number(said['gb_per_s'])} GB/s (a copy, read and written) and "
            f"{number(said['tflops'])} TFLOP/s (a bf16 product), {said['by']}."
        )
    else:
        parts.append("Ceilings were not measured, so there are no least times.")
    lines = [*kernel_tests(run), *forward(run), *serving(run), *swap(run), *training(run), *demo(run)]
    parts.append(table(HEADER, lines))
    parts += [step_parts(run, whole) for whole in run.found("parts")]
    failed = [record for record in run.records if "failed" in record]
    if failed:
        lines = [f"- {record['part']}, {record['what']}: {record['failed']}" for record in failed]
        parts.append("Not measured:\n\n" + "\n".join(lines))
    seconds = [f"{record['part']} {record['seconds']:.0f} s" for record in run.found("took")]
    parts.append("Took: " + ", ".join(seconds) + ".")
    return "\n\n".join(parts) + "\n"


def demo(run):
    for record in run.found("demo"):
        right = ", ".join(f"{name} {count}" for name, count in record["right"].items())
        title = f"cargo demo, right of {record['num_questions']} questions"
        yield [title, f"{right}, {record['seconds']:.0f} s", *["–"] * 4]


def share(floor, measured_s):
    """How far the least time is from the measured one, and what bounds it."""
    if floor is None or not measured_s:
        return ["–", "–"]
    return [f"{100 * floor[0] / measured_s:.0f} %", floor[1]]


def floor_of(run, function, *arguments):
    ceilings = run.ceilings()
    return function(run.shape, ceilings, *arguments) if ceilings else None


def kernel_tests(run):
    for record in run.found("kernel tests"):
        yield [f"kernel tests on {record['device']}", f"{record['passed']} passed", *["–"] * 4]


def forward(run):
    ways = ["each reads all keys", "shared keys are read once"]
    for record in run.found("decode"):
        batch, context, ms = record["batch"], record["context"], record["ms_per_step"]
        rate = f"{ms:.3f} ms a step, {number(1e3 * batch / ms)} tokens/s"
        title, shared = f"decode, {batch} sequences × {context} tokens", record.get("shared", 0)
        if record["part"] == "tune":
            title += ", products by trial"
        if shared:
            title += f", {shared} in common, {ways.pop(0)}"
        floor = floor_of(run, decode_floor, batch, context, BYTES, shared)
        yield [title, rate, *share(floor, ms / 1e3), "–", "–"]
    for record in run.found("prefill"):
        tokens, ms = record["tokens"], record["ms"]
        floor = floor_of(run, prefill_floor, [tokens])
        rate = f"{ms:.2f} ms, {number(1e3 * tokens / ms)} tokens/s"
        yield [f"prefill, one prompt of {tokens} tokens", rate, *share(floor, ms / 1e3), "–", "–"]


def step_parts(run, whole):
    """The table of one step: what each of its kernels takes alone."""
    phase, lines = whole["phase"], []
    for part in run.found("part"):
        if part["phase"] != phase:
            continue
        us, count, least = part["us"], part["count"], part["least_us"]
        best = f"{part['best_us']:.2f}, number {part['best']} of {part['suggested']}" if "best" in part else "–"
        names = [f"{part['part']}, {part['rows']} rows", f"{us:.2f}", str(count), f"{count * us:.1f}"]
        lines.append([*names, *share((least, part["bound"]), us), best])
    for what, key in (("all parts", "sum_us"), ("with the best", "best_us"), ("the measured step", "step_us")):
        reached = share((whole["least_us"], "–"), whole[key])
        lines.append([f"**{what}**", "–", "–", f"{whole[key]:.1f}", *reached, "–"])
    rates = f"{number(whole['gb_per_s'])} GB/s and {number(whole['tflops'])} TFLOP/s, measured by the same program"
    said = f"Where the time of a step goes, {phase} (least times from {rates}):"
    return f"{said}\n\n{table(PARTS_HEADER, lines)}"


def serving(run):
    load, job = run.shape.closed_loop, run.shape.job
    best = max(run.found("continuous") + run.found("static"), key=lambda record: record["tokens_per_s"], default=None)
    for record in run.found("closed loop")[:1]:
        num = record["num_requests"]
        floor = floor_of(run, whole, [load.prompt_tokens] * num, load.max_tokens, run.shape.max_num_seqs)
        title = f"gRPC, {num} × ({load.prompt_tokens} + {load.max_tokens}), streams"
        yield [title, rate_of(record), *share(floor, record["wall_s"]), *beside(record, best)]
    for record in run.found("few streams"):
        num, few = record["num_requests"], run.shape.few_streams
        weight_bytes = {"bf16": 2, "int8": 1}[record["weights"]]
        floor = floor_of(run, whole, [few.prompt_tokens] * num, few.max_tokens, num, weight_bytes)
        title = f"gRPC, {num} × ({few.prompt_tokens} + {few.max_tokens}), streams, weights in {record['weights']}"
        yield [title, rate_of(record), *share(floor, record["wall_s"]), "–", "–"]
    for record in run.found("job")[:1]:
        num = record["num_requests"]
        lengths = job_lengths(job.num_prompts, job.prompt_tokens)[:num]
        floor = floor_of(run, whole, lengths, job.max_tokens, run.shape.max_num_seqs)
        part = "" if num == job.num_prompts else f" (a part of {job.num_prompts:,})"
        title = f"gRPC, {num:,}{part} × ({job.prompt_tokens} on average + {job.max_tokens}), one batch stream"
        yield [title, rate_of(record), *share(floor, record["wall_s"]), "–", "–"]
    for name in ("continuous", "static"):
        for record in run.found(name):
            floor = floor_of(run, whole, [load.prompt_tokens] * load.num_prompts, load.max_tokens, load.num_prompts)
            line = [f"transformers, {record['how']}", rate_of(record), *share(floor, record["wall_s"])]
            yield [*line, "–", "–"]


def whole(shape, ceilings, lengths, max_tokens, batch, weight_bytes=BYTES):
    return serving_floor(shape, ceilings, lengths, max_tokens, batch, weight_bytes), "both"


def rate_of(record):
    failed = f", {record['num_failed']} failed" if record.get("num_failed") else ""
    return f"{number(record['tokens_per_s'])} tokens/s, {record['wall_s']:.2f} s{failed}"


def beside(ours, peer):
    if peer is None:
        return ["–", "–"]
    return [f"{number(peer['tokens_per_s'])} tokens/s", f"**{ours['tokens_per_s'] / peer['tokens_per_s']:.2f}**"]


def swap(run):
    for record in run.found("swap"):
        under = "" if record["is_under_load"] else " (the load ended before it)"
        gap = f"longest gap {record['longest_gap_ms']} ms, without a swap {record['longest_gap_without_ms']} ms"
        counts = f"{record['num_failed']} of {record['num_requests']:,} failed"
        times = f"loaded in {record['load_ms']:,} ms, swapped in {record['swap_ms']:,} ms"
        yield [f"swap under load{under}", f"{counts}; {times}; {gap}", *["–"] * 4]


def training(run):
    records = run.found("train")
    ours = [record for record in records if record["by"] == "ours"]
    theirs = [record for record in records if record["by"] != "ours"]
    best = max(theirs, key=lambda record: record["tokens_per_s"], default=None)
    for record in ours + theirs:
        floor = floor_of(run, training_floor, record["rows"], record["length"])
        mfu = f", MFU {100 * record['mfu']:.1f} %" if record.get("mfu") else ""
        peak = f", {record['peak_gib']} GiB" if record.get("peak_gib") else ""
        title = f"training, {record['rows']} × {record['length']}, {record['by']}"
        rate = f"{number(record['tokens_per_s'])} tokens/s, {record['ms']:.0f} ms a step{mfu}{peak}"
        pair = beside(record, best) if record in ours else ["–", "–"]
        yield [title, rate, *share(floor, record["ms"] / 1e3), *pair]
