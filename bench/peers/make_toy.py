"""The checkpoint of the shape `toy`: 10 M parameters in two layers, random, with a given tokenizer."""

import argparse
import shutil

import torch
from transformers import LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--tokenizer", required=True, help="folder")
parser.add_argument("--vocab-size", type=int, required=True)
parser.add_argument("--out", required=True)
args = parser.parse_args()

torch.manual_seed(20261125)
config = LlamaConfig(
    vocab_size=args.vocab_size,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=2,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=2048,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=3,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)
model = LlamaForCausalLM(config)
model.config.dtype = torch.float32
model.save_pretrained(args.out)
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(f"{args.tokenizer}/{name}", args.out)
