"""Writes the data of one training workload twice: `train.jsonl` (prompt, completion) for `trainer sft`, and
`examples.jsonl` for the others: the same examples as ids with `label_start`, in the order in which `trainer sft` takes
them."""

import argparse
import json
import random
import re

from tokenizers import Tokenizer

# Inputs of an example of the workload `full`; its ids are one more, the last being only a label.
FULL_INPUTS = 256
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def shuffled(count, seed, epoch):
    """The order of an epoch, as trainer/src/rng.rs draws it."""
    key = mix(mix((seed + GOLDEN) & MASK) ^ ((epoch * GOLDEN) & MASK))
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        bits = mix((key + (last + 1) * GOLDEN) & MASK)
        other = (bits * (last + 1)) >> 64
        order[last], order[other] = order[other], order[last]
    return order


def full(tokenizer, count):
    """Words that are a token each: BOS and a word to begin with, then words, then the end of the text."""
    words = sorted(word[1:] for word in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]+", word))
    words = [word for word in words if len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) == 1]
    draw = random.Random(20261125)

    def text(num_words):
        return "".join(f" {draw.choice(words)}" for _ in range(num_words))

    return [{"prompt": text(1), "completion": text(FULL_INPUTS - 2)} for _ in range(count)]


def gsm8k(path, count):
    """The demo's questions and worked answers."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(count), strict=False)]
    assert len(rows) == count, f"{path} has {len(rows)} lines, {count} are needed"
    return [{"prompt": f"Q: {row['question']}\nA:", "completion": f" {row['answer']}"} for row in rows]


def encode(tokenizer, line, end):
    """As ModelTokenizer::encode_training: in one go, or apart where the prompt's own ids would change."""
    prompt = tokenizer.encode(line["prompt"]).ids
    whole = tokenizer.encode(line["prompt"] + line["completion"]).ids
    if whole[: len(prompt)] != prompt:
        whole = prompt + tokenizer.encode(line["completion"], add_special_tokens=False).ids
    return {"ids": whole + [end], "label_start": len(prompt)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--workload", required=True, choices=["full", "gsm8k"])
    parser.add_argument("--demo", required=True, help="the demo's train.jsonl")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(f"{args.model}/tokenizer.json")
    end = json.load(open(f"{args.model}/config.json"))["eos_token_id"]
    lines = full(tokenizer, args.count) if args.workload == "full" else gsm8k(args.demo, args.count)
    rows = [encode(tokenizer, line, end) for line in lines]
    if args.workload == "full":
        assert all(len(row["ids"]) == FULL_INPUTS + 1 for row in rows)
    write(f"{args.out}/train.jsonl", lines)
    write(f"{args.out}/examples.jsonl", [rows[index] for index in shuffled(args.count, 0, 1)])


def write(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
