"""The parts of `bench/gpu.sh` that put load on `gen-server`: rates over gRPC, and a swap of weights under load."""

import json
import os
import random
import re
import shutil
import subprocess
import threading
import time

from . import checkpoints, workloads
from .gpu_shapes import job_lengths
from .ours import Binaries, OurServer

SEED = 20261126
# A prompt and its answer: 130 tokens and 200, at most 320 and 256.
MAX_TOKENS_OF_A_SEQUENCE = 576
# How long the job and the load around a swap should last, by the rate that was measured before.
JOB_S = 90
SWAP_LOAD_S = 25
SWAPPED_IN_AFTER_S = 3


class Checkpoints(threading.Thread):
    """Makes folders with random weights on half of the cores, while other parts use the GPU."""

    def __init__(self, run, seeds):
        super().__init__(daemon=True)
        self.tool_run, self.seeds = run, seeds
        self.made = {name: threading.Event() for name in seeds}
        self.errors = {}
        self.process = None
        self.start()

    def run(self):
        args, shape = self.tool_run.args, self.tool_run.shape
        tokenizer = f"{args.scratch}/tokenizer"
        checkpoints.make_tokenizer(f"{self.tool_run.repository}/data/demo/model", tokenizer, shape.vocab)
        threads = {"RAYON_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 2))}
        for name, seed in self.seeds.items():
            command = [f"{args.bin}/star", "random-model", "--preset", shape.preset, "--tokenizer", tokenizer]
            command += ["--seed", str(seed), "--out", folder_of(self.tool_run, name)]
            try:
                self.process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **threads}
                )
                said = self.process.communicate()[1]
                if self.process.returncode != 0:
                    self.errors[name] = said.strip()[-300:]
            except OSError as why:
                self.errors[name] = str(why)
            self.made[name].set()


def folder_of(run, name):
    return f"{run.args.scratch}/models/{name}"


def begin_checkpoints(run):
    """For the parts that are to run."""
    seeds = {"base": SEED, "other": SEED + 1}
    if "swap" not in run.args.only:
        del seeds["other"]
    if {"decode", "parts", "prefill", "grpc", "swap", "int8", "train"} & set(run.args.only):
        shutil.rmtree(run.args.scratch, ignore_errors=True)
        run.checkpoints = Checkpoints(run, seeds)


def checkpoint(run, name="base"):
    """A finished folder."""
    start = time.monotonic()
    if not run.checkpoints.made[name].wait(run.left_s()):
        raise RuntimeError("the checkpoint took too long to make")
    if name in run.checkpoints.errors:
        raise RuntimeError(f"star random-model: {run.checkpoints.errors[name]}")
    if (waited := time.monotonic() - start) > 1:
        run.record(what="waited for a checkpoint", name=name, seconds=round(waited, 1))
    return folder_of(run, name)


def server(run, weights="bf16"):
    """The one server of all parts, started where none runs, or one with other weights."""
    if run.server is not None and run.server_weights != weights:
        stop(run)
    if run.server is not None and run.server.process.poll() is not None:
        # It died in an earlier part, which has failed.
        stop(run)
    if run.server is None:
        shape, model = run.shape, checkpoint(run)
        limits = {"--max-num-seqs": shape.max_num_seqs, "--max-num-batched-tokens": shape.max_num_batched_tokens}
        settings = {
            "--device": run.args.device,
            **({"--quantize": weights} if weights == "int8" else {"--dtype": weights}),
            "--prefix-cache": "off",
            "--checkpoint-root": f"{run.args.scratch}/models",
            **limits,
        }
        flags = [str(part) for pair in settings.items() for part in pair]
        kv_cache_mib = shape.max_num_seqs * MAX_TOKENS_OF_A_SEQUENCE * shape.kv_bytes // 2**20 + 16
        start, run.server_weights = time.monotonic(), weights
        threads = len(os.sched_getaffinity(0))
        run.server = OurServer(
            Binaries(run.args.bin), model, flags, threads, run.args.out, "gpu", kv_cache_mib=kv_cache_mib
        )
        run.record(what="server started", seconds=round(time.monotonic() - start, 2), settings=run.server.command)
    return run.server


def stop(run):
    """Gives the card's memory back."""
    if run.server is not None:
        run.server.close()
        run.server = None


def close(run):
    """Ends what still runs. The checkpoints are of no use to anybody then."""
    stop(run)
    if run.checkpoints is not None and run.checkpoints.process is not None:
        run.checkpoints.process.kill()
    shutil.rmtree(run.args.scratch, ignore_errors=True)


def write_prompts(run, name, lengths):
    path = f"{run.args.scratch}/{name}.jsonl"
    draw = random.Random(SEED)
    with open(path, "w") as file:
        for length in lengths:
            ids = [draw.randrange(workloads.FIRST_WORD_ID, run.shape.vocab) for _ in range(length)]
            file.write(json.dumps({"token_ids": ids}) + "\n")
    return path


def bench(run, what, lengths, max_tokens, *more, weights="bf16"):
    """One run of `star bench`, as a record."""
    prompts = write_prompts(run, what.replace(" ", "-"), lengths)
    via = "batch" if "batch" in more else "streams"
    report = server(run, weights).bench("--prompts", prompts, "--max-tokens", max_tokens, *more, limit_s=run.left_s())
    found = report["repetitions"][0]
    times = {name: found[name] for name in ("ttft_ms", "itl_ms", "message_gap_ms", "e2e_ms") if found[name]}
    rounded = {name: {key: round(value, 2) for key, value in quantiles.items()} for name, quantiles in times.items()}
    run.record(
        what=what,
        via=via,
        weights=weights,
        num_requests=found["num_requests"],
        num_failed=found["num_failed"],
        prompt_tokens=found["num_prompt_tokens"],
        max_tokens=max_tokens,
        wall_s=round(found["wall_s"], 3),
        tokens_per_s=round(found["generated_tokens_per_s"], 1),
        **rounded,
    )
    return found


def grpc(run):
    """A closed loop of streams, and a job of GSM8K's size and shape over one batch stream."""
    load, job = run.shape.closed_loop, run.shape.job
    lengths = [load.prompt_tokens] * load.num_prompts
    server(run).bench("--num-prompts", min(8, load.num_prompts), "--max-tokens", 4, limit_s=run.left_s())
    found = bench(run, "closed loop", lengths, load.max_tokens, "--concurrency", load.num_prompts)
    # No more than there is time for: where the rate is low, a part of it.
    seconds = max(1.0, min(JOB_S, run.left_s() - 10))
    num = min(job.num_prompts, max(64, int(found["generated_tokens_per_s"] * seconds / job.max_tokens)))
    lengths = job_lengths(job.num_prompts, job.prompt_tokens)[:num]
    bench(run, "job", lengths, job.max_tokens, "--via", "batch")


def swap(run):
    """Streams without a break, and other weights swapped in after some seconds."""
    load = run.shape.closed_loop
    server(run)
    checkpoint(run, "other")
    rate = max((record["tokens_per_s"] for record in run.found("closed loop")), default=None)
    if rate is None:
        lengths = [load.prompt_tokens] * load.num_prompts
        rate = bench(run, "closed loop", lengths, load.max_tokens, "--concurrency", load.num_prompts)[
            "generated_tokens_per_s"
        ]
    num = max(load.num_prompts, int(rate * SWAP_LOAD_S / load.max_tokens))
    reloaded = Reload(run)
    lengths = [load.prompt_tokens] * num
    found = bench(run, "load with a swap", lengths, load.max_tokens, "--concurrency", load.num_prompts)
    ended = time.monotonic()
    reloaded.join(timeout=run.left_s())
    if reloaded.error or reloaded.ended is None:
        raise RuntimeError(f"the swap failed: {reloaded.error or 'took too long'}")
    before = run.found("closed loop")[-1]
    run.record(
        what="swap",
        load_ms=reloaded.load_ms,
        swap_ms=reloaded.swap_ms,
        num_requests=found["num_requests"],
        num_failed=found["num_failed"],
        # False: the load ended first, and the swap was met by less of it, or none.
        is_under_load=reloaded.ended < ended,
        longest_gap_ms=round(found["message_gap_ms"]["max"], 2) if found["message_gap_ms"] else None,
        longest_gap_without_ms=before["message_gap_ms"]["max"] if "message_gap_ms" in before else None,
        tokens_per_s=round(found["generated_tokens_per_s"], 1),
        tokens_per_s_without=before["tokens_per_s"],
    )


def int8(run):
    """Few streams with weights in bf16, then with weights in int8."""
    load = run.shape.few_streams
    lengths = [load.prompt_tokens] * load.num_prompts
    for weights in ("bf16", "int8"):
        server(run, weights)
        flags = ["--concurrency", load.num_prompts]
        bench(run, "few streams", lengths, load.max_tokens, *flags, weights=weights)
    # The parts after this one measure bf16.
    stop(run)


class Reload(threading.Thread):
    """`star reload` after some seconds."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.star, self.endpoint, self.limit_s = run.program("star"), run.server.endpoint, run.left_s()
        self.error = self.ended = self.load_ms = self.swap_ms = None
        self.start()

    def run(self):
        time.sleep(SWAPPED_IN_AFTER_S)
        command = [self.star, "reload", "other", "--server", self.endpoint]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.limit_s)
        except subprocess.SubprocessError as why:
            self.error = str(why)
            return
        found = re.search(r"loaded in (\d+) ms, swapped in (\d+) ms", done.stdout)
        if done.returncode != 0 or not found:
            self.error = (done.stderr or done.stdout).strip()[-300:]
            return
        self.load_ms, self.swap_ms = int(found[1]), int(found[2])
        self.ended = time.monotonic()
