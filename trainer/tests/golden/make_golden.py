"""Writes what transformers computes when it fine-tunes the tiny model of `model/tests/golden`.

    pip install torch transformers safetensors
    python make_golden.py

The model is `llama3_tied_gqa`: llama3 rope scaling, grouped heads, tied head, float32. Beside this
file are then written

- `batches.json`: the examples (`ids`, and `label_start`: the loss is on `ids[label_start:]`), five
  batches of four; and of a run of 20 steps over them in turn the loss and the gradient's norm before
  clipping (`losses`, `norms`), and the loss of batch 0 afterwards (`last`).
- `gradients.safetensors`: of batch 0 the `loss`, as [1], and the gradient of every parameter by its
  name.

The loss is the mean over the labels of a batch. AdamW with a peak rate of 1e-3 that falls in a
straight line to 0, weight decay 0.1 on matrices, the gradient clipped to a norm of 1.0: settings
that `golden.rs` repeats. Made with torch 2.15.0 and transformers 5.23.0 on a CPU.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

HERE = Path(__file__).parent
MODEL = HERE.parents[2] / "model/tests/golden/llama3_tied_gqa"
NUM_STEPS, PEAK_LR, WEIGHT_DECAY, MAX_NORM = 20, 1e-3, 0.1, 1.0
# (tokens, of them prompt) of each example of a batch: one label, all but one a label, long and short.
LENGTHS = [
    [(5, 4), (23, 9), (40, 1), (12, 11)],
    [(64, 30), (2, 1), (17, 5), (31, 20)],
    [(9, 3), (9, 3), (9, 3), (9, 3)],
    [(100, 60), (50, 10), (3, 2), (28, 27)],
    [(33, 16), (44, 22), (11, 1), (70, 69)],
]


def make_batches(vocab_size):
    generator = torch.Generator().manual_seed(20261125)

    def example(length, prompt):
        ids = torch.randint(3, vocab_size, (length,), generator=generator)
        return {"ids": ids.tolist(), "label_start": prompt}

    return [[example(*each) for each in batch] for batch in LENGTHS]


def loss_of(model, batch):
    """Padded on the right; padding and prompts carry no label."""
    width = max(len(example["ids"]) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(batch):
        length, start = len(example["ids"]), example["label_start"]
        ids[row, :length] = torch.tensor(example["ids"])
        mask[row, :length] = 1
        labels[row, start:length] = ids[row, start:length]
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def train(model, batches):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.999), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / NUM_STEPS)
    losses, norms = [], []
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, batches[step % len(batches)])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).item())
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        last = loss_of(model, batches[0]).item()
    return {"losses": losses, "norms": norms, "last": last}


def main():
    model = LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager")
    batches = make_batches(model.config.vocab_size)
    loss = loss_of(model, batches[0])
    loss.backward()
    gradients = {name: p.grad.contiguous() for name, p in model.named_parameters()}
    save_file({"loss": loss.detach()[None], **gradients}, HERE / "gradients.safetensors")
    run = train(model, batches)
    with open(HERE / "batches.json", "w") as file:
        json.dump({"batches": batches, **run}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
