"""What the trainers' processes share. A process trains once and writes one JSON line: {"version", "settings", "step_ms",
"losses", "peak_mib"}. The examples, in the order of the run, are lines {"ids", "label_start"} of a file: the loss is on
ids[label_start:]."""

import argparse
import json
import os


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--examples", required=True, help="JSONL of ids and label_start")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True, help="falls in a straight line to 0")
    parser.add_argument("--dtype", required=True, help="f32, or bf16: autocast over f32 weights")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--out", help="folder for what a trainer writes")
    args = parser.parse_args()
    os.environ.update(
        {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    )
    return args


def examples(args):
    with open(args.examples) as file:
        found = [json.loads(line) for line in file]
    assert len(found) == args.batch_size * args.steps, len(found)
    return found


def peak_mib():
    """The most memory this process ever had resident."""
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def private_stdout():
    """Libraries print to stdout as they like: that goes to stderr, and the result has a pipe of its own."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return results
