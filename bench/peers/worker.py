"""What every peer's process shares: one JSON request a line on stdin, one JSON reply a line on stdout.

Requests: {"prompts": [[id, ...], ...], "max_tokens": n, "keep_tokens": bool}. Reply: {"wall_s": s} and, where asked
for, {"tokens": [[id, ...], ...]}. The first line a process writes is {"ready": {...}}: versions and settings.
"""

import argparse
import json
import os
import sys
import time


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="Hugging Face folder, or the GGUF file for llama.cpp")
    parser.add_argument("--dtype", required=True, help="f32, bf16 or q8_0")
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def private_stdout():
    """Libraries print to stdout as they like: that goes to stderr, and the replies have a pipe of their own."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def serve(replies, ready, run):
    """Answers requests until stdin ends. `run(prompts, max_tokens)` gives the generated ids of each prompt."""

    def reply(value):
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    reply({"ready": ready})
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        tokens = run(request["prompts"], request["max_tokens"])
        wall_s = time.perf_counter() - start
        tokens = [[int(token) for token in each] for each in tokens]
        wrong = [len(each) for each in tokens if len(each) != request["max_tokens"]]
        if wrong or len(tokens) != len(request["prompts"]):
            reply({"error": f"expected {request['max_tokens']} tokens for every prompt, found {wrong[:4]}"})
        else:
            reply({"wall_s": wall_s, **({"tokens": tokens} if request.get("keep_tokens") else {})})
