"""make_gguf.py FOLDER f32|bf16|q8_0 FILE: a Llama checkpoint folder as a GGUF file for llama.cpp, no vocabulary
(prompts and answers are token ids here). Needs numpy and the PyPI package `gguf`, which holds the format's names,
writer and quantizer."""

import json
import struct
import sys

import gguf
import numpy as np

LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OTHER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}

# Values that share a scale in q8_0; rows that are not a multiple of it stay f16.
Q8_BLOCK = 32


def tensors(folder):
    """(name, f32 array) of each tensor of model.safetensors."""
    with open(f"{folder}/model.safetensors", "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            raw = file.read(end - begin)
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                assert entry["dtype"] == "F32", entry["dtype"]
                values = np.frombuffer(raw, np.float32)
            yield name, values.reshape(entry["shape"])


def gguf_name(name):
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(matrix, num_heads):
    """Hugging Face rotates the two halves of a head, llama.cpp's Llama neighbouring rows: same rows, reordered."""
    rows, columns = matrix.shape
    halves = matrix.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


def main(folder, dtype, path):
    config = json.load(open(f"{folder}/config.json"))
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(FILE_TYPES[dtype])
    for name, values in tensors(folder):
        if ".q_proj." in name or ".k_proj." in name:
            values = interleaved(values, heads if ".q_proj." in name else kv_heads)
        # Norms stay f32 in every GGUF file.
        kind = TYPES[dtype] if values.ndim == 2 else TYPES["f32"]
        if dtype == "q8_0" and values.shape[-1] % Q8_BLOCK:
            kind = gguf.GGMLQuantizationType.F16
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
