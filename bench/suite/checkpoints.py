"""The checkpoints: random weights from `star random-model`, and a tokenizer of 4,096 entries made from the demo's."""

import itertools
import json
import os
import shutil
import subprocess

from . import workloads

SHAPES = ["tiny", "small", "1b"]
SEED = 20261122
# Written last into a finished folder.
STAMP = "bench-checkpoint.json"


def make_tokenizer(source, target, vocab_size):
    """The demo model's tokenizer, filled up to `vocab_size`: further tokens are pairs of its own, joined by merges of
    the lowest rank. Every id has a text, as with a real vocabulary: turning answers into text costs what it does."""
    tokenizer = json.load(open(f"{source}/tokenizer.json", encoding="utf-8"))
    model = tokenizer["model"]
    special = {added["content"] for added in tokenizer["added_tokens"]}
    vocab, merges = model["vocab"], model["merges"]
    pieces = sorted((token for token in vocab if token not in special and token.startswith("Ġ")), key=vocab.get)
    others = sorted((token for token in vocab if token not in special and not token.startswith("Ġ")), key=vocab.get)
    for left, right in itertools.chain(itertools.product(pieces, pieces), itertools.product(pieces, others)):
        if len(vocab) == vocab_size:
            break
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            merges.append([left, right])
    assert len(vocab) == vocab_size, len(vocab)
    os.makedirs(target, exist_ok=True)
    with open(f"{target}/tokenizer.json", "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False)
    shutil.copy(f"{source}/tokenizer_config.json", target)


def make(shape, root, repository, star):
    """The folder of a shape's checkpoint, made where it is not there yet."""
    folder = f"{root}/{shape}"
    settings = {"shape": shape, "seed": SEED, "vocab_size": workloads.VOCAB_SIZE}
    try:
        if json.load(open(f"{folder}/{STAMP}")) == settings:
            return folder
    except (OSError, ValueError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    make_tokenizer(f"{repository}/data/demo/model", f"{root}/tokenizer", workloads.VOCAB_SIZE)
    subprocess.run(
        [
            star,
            "random-model",
            "--preset",
            shape,
            "--tokenizer",
            f"{root}/tokenizer",
            "--seed",
            str(SEED),
            "--out",
            folder,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with open(f"{folder}/{STAMP}", "w") as file:
        json.dump(settings, file)
    return folder


def gguf(folder, dtype, python, repository):
    """The checkpoint as a GGUF file for llama.cpp, made where it is not there yet."""
    path = f"{folder}-{dtype}.gguf"
    if not os.path.exists(path):
        beside = f"{path}.tmp"
        subprocess.run([python, f"{repository}/bench/peers/make_gguf.py", folder, dtype, beside], check=True)
        os.rename(beside, path)
    return path


def write_prompts(root):
    """The prompts as files for `star bench`: {name: path}."""
    paths = {}
    many, long = workloads.prompts()
    for name, lines in [("prompts", many), ("long", [long])]:
        paths[name] = f"{root}/{name}.jsonl"
        with open(paths[name], "w") as file:
            for ids in lines:
                file.write(json.dumps({"token_ids": ids}) + "\n")
    return paths
