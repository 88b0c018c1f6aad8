"""What is measured: prompts, workloads and how a rate follows from a wall time. All of it is made from seeds."""

import random
from dataclasses import dataclass

# Lengths of 64 forward prompts over GSM8K questions with a vocabulary of 4,096: what bootstrapping sends.
PROMPT_LENGTHS = [
    int(length)
    for length in (
        "59 59 64 65 67 67 68 68 70 70 71 72 73 73 74 76 79 80 80 80 81 82 83 84 84 85 86 88 88 90 91 92 92 94 94 94 "
        "95 96 96 96 96 98 98 98 99 99 100 102 105 105 107 108 112 113 119 120 123 133 144 146 149 152 155 197"
    ).split()
]
LONG_PROMPT = 512
VOCAB_SIZE = 4096
# The ids below are special tokens and single bytes.
FIRST_WORD_ID = 300
BOS = 0
PROMPT_SEED = 20261122


@dataclass(frozen=True)
class Workload:
    """`num_prompts` prompts at once, `max_tokens` new tokens each."""

    name: str
    num_prompts: int
    max_tokens: int
    # generated: all new tokens over the wall time. decode: those after the first over the time after the first.
    # prompt: prompt tokens over the wall time.
    rate: str
    is_long: bool = False

    @property
    def unit(self):
        return {"generated": "tok/s", "decode": "tok/s after the first", "prompt": "prompt tok/s"}[self.rate]

    def prompts(self):
        return [prompts()[1]] if self.is_long else prompts()[0][: self.num_prompts]


WORKLOADS = {
    each.name: each
    for each in [
        Workload("W", 64, 64, "generated"),
        Workload("Wlong", 16, 256, "generated"),
        Workload("single", 1, 128, "decode"),
        Workload("Wprefill", 64, 1, "prompt"),
        Workload("prefill512", 1, 1, "prompt", is_long=True),
        Workload("B1", 1, 32, "generated"),
        Workload("B8", 8, 32, "generated"),
        Workload("B64", 64, 32, "generated"),
        # Only compared, never timed.
        Workload("check", 8, 16, "generated"),
    ]
}
MAIN = ["W", "Wlong", "single", "Wprefill", "prefill512"]
BATCHES = ["B1", "B8", "B64"]


def prompts():
    """The 64 prompts in an order that mixes lengths, and the long one, as token ids."""
    draw = random.Random(PROMPT_SEED)
    lengths = PROMPT_LENGTHS[:]
    draw.shuffle(lengths)

    def ids(length):
        return [BOS] + [draw.randrange(FIRST_WORD_ID, VOCAB_SIZE) for _ in range(length - 1)]

    return [ids(length) for length in lengths], ids(LONG_PROMPT)
