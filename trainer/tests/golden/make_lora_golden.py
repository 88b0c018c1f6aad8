"""Writes what PEFT computes with LoRA adapters on the tiny model of `model/tests/golden`.

    pip install torch transformers peft safetensors
    python make_lora_golden.py

For each of `lora_qv` (targets q_proj and v_proj) and `lora_all` (all seven linears), rank 4, alpha 8,
no dropout, the folder holds the adapter as PEFT writes it (`adapter_config.json`,
`adapter_model.safetensors`) and `golden.safetensors`:

- `loss.base` and `loss.adapter`, each [1]: the mean loss of batch 0 of `batches.json` without the
  adapter and with it,
- `grad.<key>` for every key of `adapter_model.safetensors`: the gradient of `loss.adapter`,
- `merged.<name>` for every weight of the model that the adapter changes, by its name in the model:
  the weight with the adapter merged into it (`merge_and_unload`),
- `loss.merged`, [1]: of the merged model.

What PEFT 0.21 needs to load an adapter, as tried: of `adapter_config.json` `peft_type` ("LORA") always;
`r`, `lora_alpha` and `target_modules` where they are not 8, 8 and q_proj with v_proj, the defaults for
Llama (a string there is a regular expression over whole module names); every other field may be
absent, unknown ones are ignored. Keys are `base_model.model.` + the name of the linear in the model +
`.lora_A.weight` ([r, in]) or `.lora_B.weight` ([out, r]); metadata is not needed. The update is
alpha / r * B A. A module that `target_modules` does not name loses its matrices without an error.

Both matrices are drawn at random: PEFT begins with B = 0, where A has no gradient.
Made with torch 2.15.0, transformers 5.23.0 and peft 0.21.2 on a CPU.
"""

import json
import shutil

import torch
from make_golden import HERE, MODEL, loss_of
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load():
    return LlamaForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager")


def write(name, targets, batch):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    golden = {}
    with torch.no_grad():
        golden["loss.base"] = loss_of(load(), batch)[None]
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=targets)
    model = get_peft_model(load(), config)
    # What PEFT writes is the name of where the model came from: no path of this machine.
    model.peft_config["default"].base_model_name_or_path = "llama3_tied_gqa"
    generator = torch.Generator().manual_seed(20261126)
    trainable = {key: p for key, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for _, parameter in sorted(trainable.items()):
            parameter.normal_(0, 0.1, generator=generator)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)

    loss = loss_of(model, batch)
    loss.backward()
    golden["loss.adapter"] = loss.detach()[None]
    saved = load_file(folder / "adapter_model.safetensors")
    for key, parameter in trainable.items():
        # A file's key lacks the adapter's name.
        key = key.replace(".default.", ".")
        assert torch.equal(saved[key], parameter)
        golden[f"grad.{key}"] = parameter.grad.contiguous()
    assert len(saved) == len(trainable)

    before = dict(load().named_parameters())
    merged = model.merge_and_unload()
    for key, weight in merged.named_parameters():
        if not torch.equal(weight, before[key]):
            golden[f"merged.{key}"] = weight.detach().contiguous()
    with torch.no_grad():
        golden["loss.merged"] = loss_of(merged, batch)[None]
    save_file(golden, folder / "golden.safetensors")
    print(name, {key: value.item() for key, value in golden.items() if key.startswith("loss")})


def main():
    with open(HERE / "batches.json") as file:
        batch = json.load(file)["batches"][0]
    write("lora_qv", ["q_proj", "v_proj"], batch)
    write("lora_all", ALL, batch)


if __name__ == "__main__":
    main()
