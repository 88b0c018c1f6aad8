"""Training, side by side: what is trained on, and each system as one process per run."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass

from . import checkpoints, machine, peers, report

LR = 3e-4
TOY_VOCAB_SIZE = 8192
# A disturbed run is made again, so often.
MAX_AGAIN = 2
# A run that takes longer than this is given up, in seconds.
TIME_LIMIT_S = 900

TORCH = peers.PEERS["transformers"]
TRL = peers.Peer(
    "trl",
    "train_trl.py",
    {"f32": "f32", "bf16": "bf16"},
    (["torch==2.15.0", "transformers==5.23.0", "numpy", "trl==1.16.0"],),
    (4.0, 2.0),
    {},
)


@dataclass(frozen=True)
class Shape:
    """A model, with the examples of a step of `full` and the steps of a run, of which the first do not count."""

    batch_size: int
    num_steps: int
    num_warm_up: int


SHAPES = {"toy": Shape(1, 30, 5), "tiny": Shape(4, 20, 4), "small": Shape(4, 8, 2)}
GSM8K_BATCH_SIZE = 8


@dataclass(frozen=True)
class System:
    """`peer` is None for ours."""

    name: str
    peer: object = None
    script: str = ""
    variant: str = ""


SYSTEMS = {
    each.name: each
    for each in [
        System("ours"),
        System("torch-eager", TORCH, "train_torch.py", "eager"),
        System("torch-fused", TORCH, "train_torch.py", "fused"),
        System("trl", TRL, "train_trl.py"),
    ]
}


def checkpoint(shape, args, repository, star, python):
    """The folder of a shape's checkpoint, made where it is not there yet."""
    if shape != "toy":
        return checkpoints.make(shape, args.work, repository, star)
    folder = f"{args.work}/toy"
    if not os.path.exists(f"{folder}/{checkpoints.STAMP}"):
        tokenizer = f"{args.work}/tokenizer-{TOY_VOCAB_SIZE}"
        checkpoints.make_tokenizer(f"{repository}/data/demo/model", tokenizer, TOY_VOCAB_SIZE)
        command = [python, f"{repository}/bench/peers/make_toy.py", "--tokenizer", tokenizer]
        command += ["--vocab-size", str(TOY_VOCAB_SIZE), "--out", folder]
        subprocess.run(command, check=True, capture_output=True)
        open(f"{folder}/{checkpoints.STAMP}", "w").close()
    return folder


class Case:
    """One shape, workload, type and number of threads: the data, and a run of every system on it."""

    def __init__(self, run, shape, workload, dtype, threads):
        self.run, self.shape, self.workload, self.dtype, self.threads = run, shape, workload, dtype, threads
        numbers = SHAPES[shape]
        self.batch_size = numbers.batch_size if workload == "full" else GSM8K_BATCH_SIZE
        self.num_steps = run.args.steps or numbers.num_steps
        self.num_warm_up = min(numbers.num_warm_up, self.num_steps // 3)
        self.label = f"{shape}-{workload}-{dtype}-{threads}"
        self.folder = f"{run.args.work}/train/{self.label}"
        self.model = checkpoint(shape, run.args, run.repository, run.star, run.python)

    def write_data(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        command = [self.run.python, f"{self.run.bench}/peers/training_data.py", "--model", self.model]
        command += ["--workload", self.workload, "--count", str(self.batch_size * self.num_steps)]
        command += ["--demo", f"{self.run.repository}/data/demo/train.jsonl", "--out", self.folder]
        subprocess.run(command, check=True)
        with open(f"{self.folder}/examples.jsonl") as file:
            rows = [json.loads(line) for line in file]
        # Inputs and labels of each step. Padding and the last token of an example are no inputs.
        steps = [rows[at : at + self.batch_size] for at in range(0, len(rows), self.batch_size)]
        self.tokens = [sum(len(row["ids"]) - 1 for row in step) for step in steps]
        self.labels = [sum(len(row["ids"]) - row["label_start"] for row in step) for step in steps]

    def command(self, system):
        if system.peer is None:
            out = f"{self.folder}/out"
            shutil.rmtree(out, ignore_errors=True)
            settings = {
                "--threads": self.threads,
                "--model": self.model,
                "--train": f"{self.folder}/train.jsonl",
                "--format": "prompt-completion",
                "--prompt-format": "plain",
                "--out": out,
                "--epochs": 1,
                "--batch-size": self.batch_size,
                "--lr": LR,
                "--validation-fraction": 0,
            }
            flags = [str(part) for pair in settings.items() for part in pair]
            return [self.run.trainer, "sft", *flags, *self.run.our_flags(self.dtype)]
        settings = {
            "--model": self.model,
            "--examples": f"{self.folder}/examples.jsonl",
            "--batch-size": self.batch_size,
            "--steps": self.num_steps,
            "--lr": LR,
            "--dtype": self.dtype,
            "--threads": self.threads,
            "--variant": system.variant,
            "--out": f"{self.folder}/{system.name}",
        }
        flags = [str(part) for pair in settings.items() for part in pair]
        python = peers.python_of(system.peer, self.run.args.venvs)
        return [python, f"{self.run.bench}/peers/{system.script}", *flags]

    def train(self, system):
        """One run in a fresh process."""
        log_path = f"{self.folder}/{system.name}.log"
        start = time.monotonic()
        with open(log_path, "w") as log, open(f"{self.folder}/{system.name}.out", "w+") as out:
            process = subprocess.Popen(self.command(system), stdout=out, stderr=log)
            peak_mib = wait(process)
            out.seek(0)
            text = out.read()
        if process.returncode != 0:
            tail = open(log_path, errors="replace").read().strip().splitlines()[-3:]
            raise RuntimeError(f"{system.name} ended with {process.returncode}: {' | '.join(tail)}")
        if system.peer is None:
            found = {**self.read_metrics(), "peak_mib": peak_mib}
        else:
            found = json.loads(text.strip().splitlines()[-1])
        if len(found["losses"]) != self.num_steps or len(found["step_ms"]) != self.num_steps:
            raise RuntimeError(f"{system.name}: {len(found['losses'])} of {self.num_steps} steps")
        return {**found, "wall_s": time.monotonic() - start}

    def read_metrics(self):
        """Ours, from its own log."""
        with open(f"{self.folder}/out/metrics.jsonl") as file:
            steps = [json.loads(line) for line in file]
        found = [step["tokens"] for step in steps], [step["label_tokens"] for step in steps]
        if found != (self.tokens, self.labels):
            raise RuntimeError(f"ours saw other examples: {found} instead of {self.tokens}, {self.labels}")
        return {
            "version": self.run.commit,
            "settings": "trainer sft" + "".join(f" {flag}" for flag in self.run.our_flags(self.dtype)),
            "step_ms": [1000 * step["tokens"] / step["tokens_per_s"] for step in steps],
            "losses": [step["loss"] for step in steps],
        }

    def row(self, system, runs):
        """A table line from a system's runs: those that were not disturbed, or all where none was."""
        quiet = [run for run in runs if run["others"] <= report.DISTURBED_CORES]
        used = quiet or runs
        timed = [run["step_ms"][self.num_warm_up :] for run in used]
        medians = [statistics.median(times) for times in timed]

        def rate(counts):
            return statistics.median(1000 * sum(counts[self.num_warm_up :]) / sum(times) for times in timed)

        return {
            "shape": self.shape,
            "workload": self.workload,
            "dtype": self.dtype,
            "threads": self.threads,
            "system": system.name,
            "num_steps": self.num_steps,
            "batch_size": self.batch_size,
            "step_ms": statistics.median(time for times in timed for time in times),
            "step_ms_min": min(medians),
            "step_ms_max": max(medians),
            "tokens_per_s": rate(self.tokens),
            "label_tokens_per_s": rate(self.labels),
            "peak_mib": statistics.median(run["peak_mib"] for run in used),
            "losses": used[-1]["losses"],
            "is_disturbed": not quiet,
            "runs": runs,
        }


def wait(process):
    """Until it ends; gives the most memory it had, in MiB. A process that takes too long is killed."""
    deadline = time.monotonic() + TIME_LIMIT_S
    try:
        while True:
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            if found:
                process.returncode = os.waitstatus_to_exitcode(status)
                return usage.ru_maxrss / 1024
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.02)
    except BaseException:
        process.kill()
        with contextlib.suppress(ChildProcessError):
            process.wait()
        raise


class Run:
    """What all cases share, and the result that they fill."""

    def __init__(self, args, bench, log, result):
        self.args, self.bench, self.log, self.result = args, bench, log, result
        self.repository = os.path.dirname(bench)
        self.trainer, self.star = f"{args.programs}/trainer", f"{args.programs}/star"
        self.python = peers.python_of(TORCH, args.venvs)
        self.commit = result["machine"]["commit"]
        self.systems = []

    def our_flags(self, dtype):
        return [] if dtype == "f32" else self.args.ours_bf16.split()

    def case(self, shape, workload, dtype, threads):
        case = Case(self, shape, workload, dtype, threads)
        case.write_data()
        able = list(self.systems)
        if dtype == "bf16" and not self.args.ours_bf16:
            able = [system for system in able if system.peer]
            self.result["missing"]["ours, bf16"] = "no flags given (--ours-bf16)"
        runs = {system.name: [] for system in able}
        for _ in range(self.args.repetitions):
            for system in list(able):
                try:
                    self.timed(case, system, runs[system.name])
                except RuntimeError as why:
                    self.log(f"{case.label}: {why}")
                    self.result["missing"][f"{system.name}, {case.label}"] = str(why)[:300]
                    able.remove(system)
        for system in able:
            row = case.row(system, runs[system.name])
            self.result["rows"].append(row)
            self.log(f"{case.label} {system.name}: {row['step_ms']:.1f} ms/step, loss {row['losses'][-1]:.6f}")

    def timed(self, case, system, runs):
        """One run that counts; disturbed ones before it are kept, too."""
        for _ in range(1 + MAX_AGAIN * (not self.args.quick)):
            with machine.Turn(self.args.lock) as turn:
                measured = case.train(system)
            runs.append({**measured, "others": round(turn.others, 2)})
            self.result["systems"][system.name, case.dtype] = {key: measured[key] for key in ("version", "settings")}
            if turn.others <= report.DISTURBED_CORES:
                return
