"""What `bench/gpu.sh` computes on, and how long it must take at least: bytes and operations by formula, over what the
card was measured to do. Weights are bf16 where nothing else is said, the cache always is."""

import random
from dataclasses import dataclass

BYTES = 2


@dataclass(frozen=True)
class Load:
    """`num_prompts` answers of `max_tokens` each."""

    num_prompts: int
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True)
class Shape:
    """A preset of `star random-model`, and how much of everything is right for it."""

    preset: str
    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab: int
    # For `gen-server speed`: batch x context, and p for tokens of a prompt.
    phases: str
    # And those whose steps are taken apart.
    parts: str
    # The same with a prefix in common.
    cascade: str
    max_num_seqs: int
    max_num_batched_tokens: int
    closed_loop: Load
    # So few streams that a step is bound by the reading of weights.
    few_streams: Load
    # Prompts of many lengths: see `job_lengths`.
    job: Load
    # Examples a step, tokens of each, steps.
    training: tuple

    @property
    def num_body(self):
        """Weights of the layers' products."""
        attention = self.hidden * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def num_last(self):
        """Of these, what the last layer needs only for the tokens whose logits are wanted: all but keys and values."""
        return self.hidden * self.head_dim * 2 * self.num_heads + 3 * self.hidden * self.intermediate

    @property
    def num_head(self):
        """Of the output head, which is the embedding, too."""
        return self.vocab * self.hidden

    @property
    def num_products(self):
        return self.num_body + self.num_head

    @property
    def kv_bytes(self):
        """A token's keys and values in all layers."""
        return self.num_layers * 2 * self.num_kv_heads * self.head_dim * BYTES

    def attention_flops(self, num_pairs):
        """Of `num_pairs` pairs of a query and a key it sees: scores and sums of values, all layers and heads."""
        return 4.0 * num_pairs * self.num_layers * self.num_heads * self.head_dim


LLAMA_3B = {"hidden": 3072, "intermediate": 8192, "num_layers": 28, "num_heads": 24, "num_kv_heads": 8, "head_dim": 128}
LLAMA_1B = {"hidden": 2048, "intermediate": 8192, "num_layers": 16, "num_heads": 32, "num_kv_heads": 8, "head_dim": 64}
TINY = {"hidden": 256, "intermediate": 704, "num_layers": 6, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64}

# One card's share of what a run does; GSM8K's training split has 7,473 questions.
FULL = {
    "phases": "1x128,8x128,64x128,128x384,256x384,256x1024,512x384,p512,p2048,p8192",
    "parts": "8x128,256x384,p2048",
    # A few-shot prompt of GSM8K, a question and half an answer.
    "cascade": "256x1216/1024",
    "max_num_seqs": 512,
    "max_num_batched_tokens": 8192,
    "closed_loop": Load(256, 128, 256),
    "few_streams": Load(8, 128, 256),
    "job": Load(7473, 130, 200),
    "training": (8, 1024, 20),
}
SMALL = {
    "phases": "1x16,4x32,p32",
    "parts": "4x32,p32",
    "cascade": "4x48/32",
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "closed_loop": Load(4, 12, 6),
    "few_streams": Load(2, 12, 6),
    "job": Load(8, 16, 4),
    "training": (2, 32, 2),
}
SHAPES = {
    "3b": Shape("3b", vocab=128256, **LLAMA_3B, **FULL),
    "1b": Shape("1b", vocab=4096, **LLAMA_1B, **FULL),
    "tiny": Shape("tiny-704", vocab=4096, **TINY, **SMALL),
}


@dataclass(frozen=True)
class Ceilings:
    """What the card can do: bytes and operations a second."""

    bytes_per_s: float
    flops_per_s: float

    def least(self, num_bytes, flops):
        """Seconds, and which of the two it is that needs them."""
        by_memory, by_products = num_bytes / self.bytes_per_s, flops / self.flops_per_s
        return max(by_memory, by_products), "memory" if by_memory >= by_products else "products"


def decode_floor(shape, ceilings, batch, context, weight_bytes=BYTES, shared=0):
    """One step for `batch` sequences that have `context` tokens each, the first `shared` of which are the same: every
    weight and every key once."""
    num_keys = batch * (context - shared) + shared
    num_bytes = weight_bytes * shape.num_products + num_keys * shape.kv_bytes
    flops = 2.0 * shape.num_products * batch + shape.attention_flops(batch * context)
    return ceilings.least(num_bytes, flops)


def prefill_floor(shape, ceilings, lengths, weight_bytes=BYTES):
    """All tokens of prompts with these lengths; the head and the end of the last layer only for the last of each."""
    tokens = sum(lengths)
    flops = 2.0 * ((shape.num_body - shape.num_last) * tokens + (shape.num_last + shape.num_head) * len(lengths))
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    flops += shape.attention_flops((pairs * (shape.num_layers - 1) + tokens) / shape.num_layers)
    return ceilings.least(weight_bytes * shape.num_products + tokens * shape.kv_bytes, flops)


def serving_floor(shape, ceilings, lengths, max_tokens, batch, weight_bytes=BYTES):
    """Seconds for answers of `max_tokens` to prompts of these lengths, at most `batch` at a time: the prompts, then
    steps with a full batch."""
    total = prefill_floor(shape, ceilings, lengths, weight_bytes)[0]
    batch = min(batch, len(lengths))
    mean = sum(lengths) / len(lengths)
    # A prompt's last token gives the first token of the answer.
    num_steps = (max_tokens - 1) * len(lengths) / batch
    context = [mean + at for at in range(1, max_tokens)]
    per_step = [decode_floor(shape, ceilings, batch, tokens, weight_bytes)[0] for tokens in context]
    return total + (num_steps * sum(per_step) / len(per_step) if per_step else 0.0)


def training_floor(shape, ceilings, rows, length):
    """A step's products and attention, forward and twice that backward; each key is seen by half of the queries."""
    tokens = rows * length
    flops = 6.0 * shape.num_products * tokens + 3 * shape.attention_flops(rows * length * (length + 1) / 2)
    # Weights, moments and gradients in f32, read and written by the update.
    return ceilings.least(28.0 * shape.num_products, flops)


def job_lengths(num_prompts, mean):
    """Lengths around `mean`, spread as those of GSM8K's prompts are (60 to 320 where the mean is 130)."""
    draw = random.Random(7)
    return [round(mean * min(2.46, max(0.46, draw.gauss(1.0, 0.27)))) for _ in range(num_prompts)]
