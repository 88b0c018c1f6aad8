"""Writes the tiny models beside this file and what transformers computes with them.

    pip install torch transformers safetensors
    python make_golden.py

Each folder is a model as `save_pretrained` writes it, plus `golden.safetensors`: for every prompt
`i` the token ids `input_ids.i` [T] and the float32 logits `logits.i` [T, vocab].
The values here were made with torch 2.15.0 and transformers 5.23.0 on a CPU.
"""

import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
BASE = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, max_position_embeddings=128, rms_norm_eps=1e-5, hidden_act="silu",
    bos_token_id=0, attention_bias=False, mlp_bias=False,
)


def main():
    # Of the four frequencies (wave lengths 6, 63, 628, 6283) one is kept, one blended, two stretched.
    scaling = dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=64)
    write("llama3_tied_gqa", torch.float32, "1GB", LlamaConfig(
        **BASE, num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=[1, 2],
        rope_parameters=scaling))
    # bf16, in several files with an index, and heads wider than hidden_size / num_attention_heads.
    write("untied_mha", torch.bfloat16, "24KB", LlamaConfig(
        **BASE, num_key_value_heads=4, tie_word_embeddings=False, eos_token_id=1, head_dim=12,
        rope_parameters=dict(rope_type="default", rope_theta=500.0)))


@torch.no_grad()
def write(name, dtype, max_shard_size, config):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(20261122)
    model = LlamaForCausalLM(config)
    for key, parameter in sorted(model.named_parameters()):
        if parameter.dim() == 1:  # norms
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.normal_(0, 1 / math.sqrt(parameter.shape[1]), generator=generator)
    model = model.to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, max_shard_size=max_shard_size)

    # Loaded anew: `to(bfloat16)` has rounded the rotary frequencies of this one too.
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    golden = {}
    for index, length in enumerate([1, 40]):
        ids = torch.randint(3, config.vocab_size, (length,), generator=generator)
        golden[f"input_ids.{index}"] = ids.to(torch.int32)
        golden[f"logits.{index}"] = model(ids[None]).logits[0].contiguous()
    save_file(golden, folder / "golden.safetensors")


if __name__ == "__main__":
    main()
