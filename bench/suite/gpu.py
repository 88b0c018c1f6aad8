"""Measures our programs on a GPU, part by part, and PyTorch and transformers after them. See ../README.md, "On a GPU".

Each part has a time limit and is written down as soon as it is measured: `results.jsonl` (a line for each
measurement; a part that failed is one, too), `report.md` (written anew after each part) and each program's log.
"""

import argparse
import glob
import json
import lzma
import os
import shutil
import subprocess
import sys
import time
import traceback

from . import gpu_parts, gpu_report, gpu_serving
from .gpu_shapes import SHAPES, Ceilings

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# In this order; with the most seconds that each may take. What is cut off at the end is the peers.
PARTS = {
    "doctor": (gpu_parts.doctor, 60),
    "kernels": (gpu_parts.kernels, 90),
    "ceilings": (gpu_parts.ceilings, 60),
    "decode": (gpu_parts.decode, 120),
    "parts": (gpu_parts.parts, 60),
    "cascade": (gpu_parts.cascade, 60),
    "tune": (gpu_parts.tune, 60),
    "prefill": (gpu_parts.prefill, 60),
    "grpc": (gpu_serving.grpc, 150),
    "swap": (gpu_serving.swap, 75),
    "int8": (gpu_serving.int8, 90),
    "train": (gpu_parts.train, 120),
    "peers": (gpu_parts.peers, 200),
    "demo": (gpu_parts.demo, 120),
}


def names(text):
    return [name for name in text.split(",") if name]


def arguments():
    parser = argparse.ArgumentParser(
        prog="bench/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=names, default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--shape", choices=SHAPES, help="default: 3b; with --emulated or --device cpu tiny")
    parser.add_argument("--emulated", action="store_true", help="on the software GPU that the tests built")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: to try this script")
    parser.add_argument("--bin", default=f"{REPOSITORY}/target/cuda-bin", help="programs of cuda/build.sh")
    parser.add_argument("--out", default=f"{REPOSITORY}/target/bench-gpu")
    parser.add_argument("--scratch", help="folder for checkpoints, 15 GB; default: /dev/shm where it has room")
    parser.add_argument("--python", default=sys.executable, help="the one that has torch and transformers")
    parser.add_argument("--seconds", type=int, default=525, help="for all parts together")
    parser.add_argument("--bandwidth", type=float, help="GB/s, and ...")
    parser.add_argument("--tflops", type=float, help="... TFLOP/s to compute floors from, where ceilings cannot run")
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    args.shape = args.shape or ("tiny" if args.emulated or args.device == "cpu" else "3b")
    args.scratch = args.scratch or default_scratch(args.out)
    return args


def default_scratch(out):
    with_room = os.path.isdir("/dev/shm") and os.statvfs("/dev/shm")
    if with_room and with_room.f_bavail * with_room.f_frsize > 20e9:
        return "/dev/shm/bench-gpu"
    return f"{out}/scratch"


def software_gpu():
    """The folder with the newest libcuda.so that the tests built."""
    found = glob.glob(f"{REPOSITORY}/target/*/build/cuda-emulator-*/out/libcuda.so")
    if not found:
        sys.exit("bench/gpu.sh: no software GPU yet: cargo test -p cuda --no-run")
    return os.path.dirname(max(found, key=os.path.getmtime))


def unpack(folder):
    """What cuda/build.sh packed, where the programs themselves were left behind."""
    for packed in glob.glob(f"{folder}/*.xz"):
        program = packed.removesuffix(".xz")
        if not os.path.exists(program):
            with lzma.open(packed) as source, open(f"{program}.new", "wb") as target:
                shutil.copyfileobj(source, target)
            os.chmod(f"{program}.new", 0o755)
            os.rename(f"{program}.new", program)


class Run:
    """What all parts share."""

    def __init__(self, args):
        self.args, self.repository = args, REPOSITORY
        self.shape = SHAPES[args.shape]
        self.records = []
        self.deadline = time.monotonic() + args.seconds
        self.part, self.part_deadline = None, None
        self.server = self.server_weights = self.checkpoints = None
        os.makedirs(args.out, exist_ok=True)
        self.lines = open(f"{args.out}/results.jsonl", "w")
        if args.bandwidth and args.tflops:
            self.record(what="ceilings", by="given", gb_per_s=args.bandwidth, tflops=args.tflops)

    def record(self, **values):
        """A measurement: into the file and onto the screen."""
        values = {"part": self.part, **values}
        self.records.append(values)
        line = json.dumps(values)
        self.lines.write(line + "\n")
        self.lines.flush()
        print(line, flush=True)

    def found(self, what):
        return [record for record in self.records if record["what"] == what and "failed" not in record]

    def ceilings(self):
        """`None` before they are measured."""
        found = self.found("ceilings")
        return Ceilings(found[-1]["gb_per_s"] * 1e9, found[-1]["tflops"] * 1e12) if found else None

    def program(self, name):
        return f"{self.args.bin}/{name}"

    def left_s(self):
        return max(1.0, self.part_deadline - time.monotonic())

    def command(self, arguments, name, env=None):
        """Runs a program, with its output in a log. Every line {"what": ...} of its output is a record. Its last lines
        come with the error where it fails or takes too long."""
        path = f"{self.args.out}/{name}.log"
        start = time.monotonic()
        with open(path, "a") as log:
            process = subprocess.Popen(
                list(map(str, arguments)),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(env or {})},
            )
            watch = gpu_parts.Watch(process, self.left_s())
            for line in process.stdout:
                log.write(line)
                if line.startswith('{"what":'):
                    self.record(**json.loads(line))
            process.wait()
            watch.cancel()
        if process.returncode != 0:
            tail = open(path, errors="replace").read().strip().splitlines()[-3:]
            why = "took too long" if watch.has_fired else f"ended with {process.returncode}"
            raise RuntimeError(f"{os.path.basename(str(arguments[0]))} {why}: {' | '.join(tail)}"[:500])
        return time.monotonic() - start

    def run_part(self, name):
        part, limit_s = PARTS[name]
        self.part = name
        left_s = self.deadline - time.monotonic()
        if left_s < 5:
            self.record(what=name, failed="no time left")
            return
        self.part_deadline = time.monotonic() + min(limit_s, left_s)
        start = time.monotonic()
        try:
            part(self)
        except Exception as why:
            traceback.print_exc()
            self.record(what=name, failed=str(why)[:500])
        self.record(what="took", seconds=round(time.monotonic() - start, 1))


def main():
    args = arguments()
    if args.emulated:
        os.environ["LD_LIBRARY_PATH"] = f"{software_gpu()}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    unpack(args.bin)
    run = Run(args)
    try:
        run.part = "machine"
        gpu_parts.machine_line(run)
        gpu_serving.begin_checkpoints(run)
        for name in PARTS:
            if name in args.only:
                run.run_part(name)
                gpu_report.write(run)
    finally:
        gpu_serving.close(run)
        print(gpu_report.write(run))
    sys.exit(any("failed" in record for record in run.records))


if __name__ == "__main__":
    main()
