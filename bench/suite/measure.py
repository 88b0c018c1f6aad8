"""The side-by-side runs: all systems of a (model, dtype) hold their model at the same time and take turns, workload
by workload and repetition by repetition, so that a slow minute of the machine meets all of them."""

import json
import os

from . import checkpoints, machine, ours, peers, report, workloads

# 64 answers of 64 tokens would take minutes there; batch sizes say more.
WORKLOADS_1B = ["single", "B8", "B64", "prefill512"]
# A disturbed run is made again, so often.
MAX_AGAIN = 2
# Memory that is left to the rest of the machine.
SPARE_GIB = 2.0
# KV cache, the programs and their buffers.
OURS_GIB = 3.0
BYTES_IN_MEMORY = {"f32": 4.0, "bf16": 2.0, "int8": 1.1}


class Run:
    """What all groups share, and the result that they fill."""

    def __init__(self, args, binaries, bench, log, result):
        self.args, self.binaries, self.bench, self.log, self.result = args, binaries, bench, log, result
        self.repository = os.path.dirname(bench)
        self.prompt_files = checkpoints.write_prompts(args.work)
        self.peers = []

    def checkpoint(self, model):
        folder = checkpoints.make(model, self.args.work, self.repository, self.binaries.star)
        config = json.load(open(f"{folder}/config.json"))
        embedding = config["vocab_size"] * config["hidden_size"]
        head_dim = config["hidden_size"] // config["num_attention_heads"]
        attention = (
            config["hidden_size"] * head_dim * 2 * (config["num_attention_heads"] + config["num_key_value_heads"])
        )
        layer = attention + 3 * config["hidden_size"] * config["intermediate_size"]
        # Norms are left out: they are some ten thousand.
        self.result["models"][model] = {
            "num_parameters": embedding + config["num_hidden_layers"] * layer,
            "num_embedding": embedding,
        }
        return folder

    def open_ours(self, folder, arguments, label):
        return ours.OurServer(self.binaries, folder, arguments, self.args.threads, self.args.work, label)

    def open_peer(self, peer, folder, dtype):
        model = folder
        if peer.reads_gguf:
            python = peers.python_of(peer, self.args.venvs)
            model = checkpoints.gguf(folder, peer.dtypes[dtype], python, self.repository)
        log_path = f"{self.args.work}/{peer.name}-{os.path.basename(folder)}-{dtype}.log"
        return peers.PeerProcess(peer, self.args.venvs, self.bench, model, dtype, self.args.threads, log_path)

    def openers(self, folder, model, dtype):
        """[(names, memory in GiB, function that opens the systems)] of what can run this type; the rest is noted."""
        size = self.result["models"][model]["num_parameters"] * BYTES_IN_MEMORY[dtype] / 2**30
        found = []
        if "ours" in self.args.systems:
            try:
                arguments = self.binaries.flags_for(dtype)
                found.append(("ours", size + OURS_GIB, lambda: self.both_ways(folder, arguments, f"{model}-{dtype}")))
            except ours.NotAvailable as why:
                self.result["missing"][f"ours, {dtype}"] = str(why)
        for peer in self.peers:
            if dtype in peer.dtypes:
                factor, fixed = peer.memory
                found.append(
                    (peer.name, factor * size + fixed, lambda peer=peer: [self.open_peer(peer, folder, dtype)])
                )
        return found

    def both_ways(self, folder, arguments, label):
        server = self.open_ours(folder, arguments, label)
        systems = [ours.OurSystem(server, via, self.prompt_files, self.args.work) for via in ("streams", "batch")]
        systems[-1].close = server.close
        return systems

    def group(self, model, dtype):
        """Measures one model at one type with every system."""
        folder = self.checkpoint(model)
        names = self.args.workloads or (WORKLOADS_1B if model == "1b" else workloads.MAIN)
        chosen = [workloads.WORKLOADS[name] for name in names]
        openers = self.openers(folder, model, dtype)
        room = machine.memory_available_gib() - SPARE_GIB
        if sum(memory for _, memory, _ in openers) <= room:
            batches = [openers]
        else:
            self.log(f"{model} {dtype}: memory for one system at a time only")
            batches = [[opener] for opener in openers if opener[1] <= room]
        for batch in batches:
            systems = []
            try:
                for name, _, open_systems in batch:
                    self.log(f"{model} {dtype}: starting {name}")
                    systems += self.opened(name, dtype, open_systems)
                self.take_turns(model, dtype, systems, chosen)
            finally:
                for system in systems:
                    system.close()

    def opened(self, name, dtype, open_systems):
        """A system that cannot start is reported, and the others go on."""
        try:
            with machine.at_work(self.args.lock):
                return open_systems()
        except (RuntimeError, OSError) as why:
            self.log(f"{name} {dtype} cannot start: {why}")
            self.result["missing"][f"{name}, {dtype}"] = str(why)[:300]
            return []

    def take_turns(self, model, dtype, systems, chosen):
        for workload in chosen:
            able = [system for system in systems if system.measures(workload)]
            runs = {system.name: [] for system in able}
            for system in able:
                with machine.at_work(self.args.lock):
                    system.warm_up(workload)
                self.result["systems"][system.name, dtype] = system.facts
            for _ in range(self.args.repetitions):
                for system in able:
                    self.timed(system, workload, runs[system.name])
            for system in able:
                row = report.row(model, dtype, workload, system.name, runs[system.name])
                self.result["rows"].append(row)
                self.log(f"{model} {dtype} {workload.name} {system.name}: {report.spread(row)} {workload.unit}")

    def timed(self, system, workload, runs):
        """One run that counts; disturbed ones before it are kept, too."""
        for _ in range(1 + MAX_AGAIN):
            with machine.Turn(self.args.lock) as turn:
                measured = system.measure(workload)
            runs.append({**measured, "others": round(turn.others, 2)})
            if turn.others <= report.DISTURBED_CORES:
                return

    def compare_tokens(self):
        """The first greedy tokens of `tiny` in f32 from every system: the same computation before any rate."""
        folder = self.checkpoint("tiny")
        workload = workloads.WORKLOADS["check"]
        reference = None
        for name, _, open_systems in self.openers(folder, "tiny", "f32"):
            systems = self.opened(name, "f32", open_systems)
            try:
                for system in systems:
                    with machine.at_work(self.args.lock):
                        tokens = system.tokens(workload)
                    reference = reference or tokens
                    self.result["agreement"][system.name] = agreement(reference, tokens)
                    self.log(f"tokens of {system.name}: {self.result['agreement'][system.name]}")
            finally:
                for system in systems:
                    system.close()


def agreement(reference, tokens):
    pairs = list(zip(reference, tokens, strict=True))
    same = sum(one == other for one, other in pairs)
    if same == len(pairs):
        return f"all {len(pairs)} answers equal"
    shared = [next((i for i, (x, y) in enumerate(zip(*pair, strict=True)) if x != y), len(pair[0])) for pair in pairs]
    return f"{same} of {len(pairs)} equal; equal up to token {min(shared)} in all"
