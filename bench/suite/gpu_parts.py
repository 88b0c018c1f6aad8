"""The parts of `bench/gpu.sh` that need no server."""

import json
import os
import random
import re
import shutil
import subprocess
import threading
import time

from . import gpu_serving, machine


class Watch(threading.Timer):
    """Kills a process after a time."""

    def __init__(self, process, limit_s):
        super().__init__(limit_s, self._fire)
        self.process, self.has_fired, self.daemon = process, False, True
        self.start()

    def _fire(self):
        self.has_fired = True
        self.process.kill()


def text_of(command):
    """What a program prints, or nothing where it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def machine_line(run):
    query = "name,memory.total,driver_version,clocks.max.sm,power.limit"
    card = text_of(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"])
    if run.args.emulated or run.args.device == "cpu":
        card = "none: the software GPU" if run.args.emulated else "none: the CPU"
    facts = machine.facts(run.repository)
    try:
        commit = open(run.program("commit")).read().strip()
    except OSError:
        commit = "unknown"
    run.record(
        what="machine",
        card=card or "none found by nvidia-smi",
        time=facts["time"],
        cpu=facts["cpu"],
        cores=facts["cores"],
        memory_gib=facts["memory_gib"],
        kernel=facts["kernel"],
        programs_from=commit,
        gen_server=text_of([run.program("gen-server"), "--version"]),
        libraries=os.environ.get("LD_LIBRARY_PATH", ""),
    )


def doctor(run):
    """The server's own look at the machine."""
    run.record(what="doctor", seconds=round(run.command([run.program("gen-server"), "doctor"], "doctor"), 2))
    print(open(f"{run.args.out}/doctor.log").read())


def kernels(run):
    """The tests of every kernel, each on three seeds, on this card: a process for each file of tests, since a kernel that
    faults takes its whole process along. A file with failures runs once more with every launch waited for, so that
    the guilty one is named."""
    listed = text_of([run.program("kernel-tests"), "--list"])
    modules = sorted({line.split("::")[0] for line in listed.splitlines() if line.endswith(": test")})
    passed, failed, start = 0, [], time.monotonic()
    for module in modules:
        count, names = kernel_module(run, module)
        if names or count == 0:
            _, again = kernel_module(run, module, {"CUDA_LAUNCH_BLOCKING": "1"})
            failed += again or names or [f"{module}: no test ran"]
        passed += count
    text = open(f"{run.args.out}/kernel-tests.log").read()
    if "NOT TESTED" in text or "SKIPPED" in text:
        raise RuntimeError("tests found no GPU and skipped")
    if failed or passed == 0:
        raise RuntimeError(f"{passed} passed; failed: {', '.join(failed) or 'no test ran'}")
    device = "this machine's GPU" if "this machine's GPU" in text else "software GPU"
    run.record(what="kernel tests", passed=passed, device=device, seconds=round(time.monotonic() - start, 1))


def kernel_module(run, module, env=None):
    """How many of its tests passed, and the names of those that did not."""
    name = f"kernel-tests-{module}"
    command = [run.program("kernel-tests"), f"{module}::", "--nocapture", "--test-threads", 4 if env is None else 1]
    try:
        run.command(command, name, env)
    except RuntimeError:
        pass  # The names say more.
    path = f"{run.args.out}/{name}.log"
    text = open(path, errors="replace").read()
    os.remove(path)
    with open(f"{run.args.out}/kernel-tests.log", "a") as log:
        log.write(text)
    counts = re.search(r"(\d+) passed; (\d+) failed", text)
    names = sorted(set(re.findall(r"^test (\S+) \.\.\. .*FAILED$", text, re.M)))
    if not counts:
        names = names or [f"{module}: ended without a result"]
    return int(counts[1]) if counts else 0, names


def ceilings(run):
    """Copy bandwidth and the rate of a large bf16 product, through PyTorch: what floors are computed from."""
    peer(run, "ceilings")


def decode(run):
    """Prefill, too, where it is wanted: the weights are then made once."""
    wanted = run.shape.phases.split(",")
    if "prefill" not in run.args.only:
        wanted = [phase for phase in wanted if not phase.startswith("p")]
    phases(run, wanted)


def prefill(run):
    if not run.found("prefill"):
        phases(run, [phase for phase in run.shape.phases.split(",") if phase.startswith("p")])


def parts(run):
    """Where the time of a step goes: each of its kernels alone."""
    if run.args.device == "cpu":
        run.record(what="skipped", why="a CPU has no such parts")
        return
    phases(run, run.shape.parts.split(","), ["--parts"])


def cascade(run):
    """Decodes with a few-shot prompt in common: each reads all of its keys, then what is shared is read once for all."""
    if run.args.device == "cpu":
        run.record(what="skipped", why="a CPU has no such kernels")
        return
    for how in ("off", "always"):
        phases(run, [run.shape.cascade], ["--cascade-attention", how])


def tune(run):
    """Decodes with products' kernels chosen by trial."""
    if run.args.device == "cpu":
        run.record(what="skipped", why="a CPU has no such kernels")
        return
    decodes = [phase for phase in run.shape.phases.split(",") if not phase.startswith("p")]
    phases(run, decodes, ["--tune-products", "on"])


def phases(run, wanted, more=()):
    """Steps alone: forward pass and sampling, without requests, scheduling and text."""
    model, shape = gpu_serving.checkpoint(run), run.shape
    gpu_serving.stop(run)
    settings = {
        "--model": model,
        "--device": run.args.device,
        "--dtype": "bf16",
        "--phases": ",".join(wanted),
        "--max-num-seqs": shape.max_num_seqs,
        "--max-num-batched-tokens": shape.max_num_batched_tokens,
    }
    if run.args.device == "cuda":
        settings["--weight-arenas"] = 1
    flags = [part for pair in settings.items() for part in pair]
    run.command([run.program("gen-server"), "speed", "--json", *more, *flags], f"speed-{run.part}")


def train(run):
    """`trainer sft`, all weights, from its own metrics. It is stopped before it saves: 45 GB of optimizer state."""
    rows, length, num_steps = run.shape.training
    model = gpu_serving.checkpoint(run)
    gpu_serving.stop(run)
    folder = f"{run.args.scratch}/train"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    write_examples(run, f"{folder}/train.jsonl", rows * (num_steps + 1), length)
    settings = {
        "--device": run.args.device,
        "--model": model,
        "--train": f"{folder}/train.jsonl",
        "--format": "prompt-completion",
        "--prompt-format": "plain",
        "--out": f"{folder}/out",
        "--epochs": 1,
        "--batch-size": rows,
        # Inputs and the label of the last one.
        "--max-length": length + 1,
        "--max-tokens-per-micro-batch": max(4 * length, 128),
        "--precision": "bf16",
        "--lr": 1e-5,
        "--validation-fraction": 0,
        "--progress": "plain",
    }
    if run.ceilings():
        settings["--peak-tflops"] = run.ceilings().flops_per_s / 1e12
    flags = [str(part) for pair in settings.items() for part in pair]
    with open(f"{run.args.out}/trainer.log", "w") as log:
        process = subprocess.Popen([run.program("trainer"), "sft", *flags], stdout=log, stderr=log)
        try:
            steps = wait_for_steps(run, process, f"{folder}/out/metrics.jsonl", num_steps)
        finally:
            process.kill()
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    if any(step["tokens"] != rows * length for step in steps):
        raise RuntimeError(f"expected {rows * length} tokens a step, found {[step['tokens'] for step in steps]}")
    timed = steps[min(3, num_steps // 2) :]
    # The median step.
    middle = sorted(timed, key=lambda step: step["tokens_per_s"])[len(timed) // 2]
    run.record(
        what="train",
        by="ours",
        rows=rows,
        length=length,
        num_steps=len(timed),
        tokens_per_s=middle["tokens_per_s"],
        ms=1e3 * middle["tokens"] / middle["tokens_per_s"],
        tflops=middle.get("tflops"),
        mfu=middle.get("mfu"),
        first_loss=steps[0]["loss"],
        last_loss=steps[-1]["loss"],
        resident_bytes=middle.get("peak_resident_bytes"),
    )


def write_examples(run, path, count, length):
    """Examples of `length` inputs: BOS, a word as the prompt, words, of which the end of the text is no input."""
    vocab = json.load(open(f"{run.repository}/data/demo/model/tokenizer.json", encoding="utf-8"))["model"]["vocab"]
    words = sorted(word[1:] for word in vocab if re.fullmatch("Ġ[a-z]+", word))
    draw = random.Random(20261125)
    with open(path, "w") as file:
        for _ in range(count):
            completion = "".join(f" {draw.choice(words)}" for _ in range(length - 2))
            file.write(json.dumps({"prompt": f" {draw.choice(words)}", "completion": completion}) + "\n")


def wait_for_steps(run, process, path, count):
    while True:
        try:
            lines = open(path).read().splitlines()
        except OSError:
            lines = []
        if len(lines) > count or (len(lines) == count and process.poll() is not None):
            return [json.loads(line) for line in lines[:count]]
        if process.poll() is not None or run.left_s() <= 1.0:
            why = "took too long" if process.poll() is None else f"ended with {process.returncode}"
            tail = open(f"{run.args.out}/trainer.log", errors="replace").read().strip().splitlines()[-3:]
            raise RuntimeError(f"trainer {why} after {len(lines)} steps: {' | '.join(tail)}"[:500])
        time.sleep(0.1)


def peers(run):
    """PyTorch and transformers on the same shape: same prompts in number and length, same new tokens, greedy."""
    gpu_serving.stop(run)
    peer(run, "continuous,static,train")


def demo(run):
    """The whole loop on the card, on a small trained model: what it comes to is known from CPUs (README.md)."""
    if run.args.emulated:
        run.record(what="skipped", why="the demo takes hours on the software GPU")
        return
    gpu_serving.stop(run)
    out = f"{run.args.scratch}/demo"
    shutil.rmtree(out, ignore_errors=True)
    settings = {"--device": run.args.device, "--demo-dir": f"{run.repository}/data/demo", "--out": out}
    flags = [part for pair in settings.items() for part in pair]
    seconds = run.command([run.program("star"), "demo", *flags], "demo")
    results = json.load(open(f"{out}/results.json"))
    answers = {"zero-shot": results["zero_shot"], "vanilla": results["vanilla"]["test"], "star": results["star"]["test"]}
    right = {name: summary["counts"]["right"] for name, summary in answers.items()}
    num_questions = results["zero_shot"]["counts"]["attempts"]
    run.record(what="demo", seconds=round(seconds, 1), num_questions=num_questions, right=right)


def peer(run, what):
    load, (rows, length, _) = run.shape.closed_loop, run.shape.training
    settings = {
        "--what": what,
        "--shape": run.args.shape,
        "--device": "cuda" if run.args.device == "cuda" and not run.args.emulated else "cpu",
        "--num-prompts": load.num_prompts,
        "--prompt-tokens": load.prompt_tokens,
        "--max-tokens": load.max_tokens,
        "--rows": rows,
        "--length": length,
        "--seconds": int(run.left_s()),
    }
    script = f"{run.repository}/bench/peers/gpu_transformers.py"
    arguments = [run.args.python, script, *(part for pair in settings.items() for part in pair)]
    run.command(arguments, f"peers-{run.part}", {"HF_HUB_OFFLINE": "1"})
