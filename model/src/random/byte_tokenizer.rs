//! A tokenizer anyone may have: one token for each byte, and Llama 3's special tokens.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};
use crate::save;

/// Ids from 0, in this order; the bytes follow.
const SPECIAL: [&str; 6] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
];

/// Writes `tokenizer.json` and `tokenizer_config.json`, and sets `config`'s special ids.
pub(super) fn write(config: &mut LlamaConfig, dir: &Path) -> Result<()> {
    let needed = SPECIAL.len() + 256;
    if config.vocab_size < needed {
        return Err(ModelError::value(
            &dir.join("config.json"),
            "vocab_size",
            format!(
                "at least {needed} (256 bytes and {} special tokens)",
                SPECIAL.len()
            ),
            config.vocab_size.to_string(),
        ));
    }
    config.bos_token_id = Some(0);
    config.eos_token_ids = vec![1, 2];
    config.pad_token_id = Some(3);
    save::write_json(&dir.join("tokenizer.json"), &tokenizer_json())?;
    let object = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "pad_token": SPECIAL[3],
        "clean_up_tokenization_spaces": false,
    });
    save::write_json(&dir.join("tokenizer_config.json"), &object)
}

fn tokenizer_json() -> Value {
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let bytes = crate::decode_stream::byte_alphabet().into_values();
    let tokens = SPECIAL
        .iter()
        .map(|&token| token.to_owned())
        .chain(bytes.map(String::from));
    let vocab: Map<String, Value> = tokens
        .zip(0u32..)
        .map(|(token, id)| (token, id.into()))
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": SPECIAL[0], "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": {
                SPECIAL[0]: { "id": SPECIAL[0], "ids": [0], "tokens": [SPECIAL[0]] },
            },
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}
