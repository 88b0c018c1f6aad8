//! How `config.json` and `generation_config.json` are read and written: which keys are understood,
//! which are known to change nothing, which values would need a network we do not have.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::{Llama3RopeScaling, LlamaConfig};
use crate::config_json::object::{Object, shown};
use crate::dtype::StoredDtype;
use crate::error::{ModelError, Result};

mod object;

/// Read by [`parse_config`].
const UNDERSTOOD: &[&str] = &[
    "architectures",
    "attention_bias",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "partial_rotary_factor",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
];

/// Known to change nothing in the logits of one prompt.
const HARMLESS: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "attention_dropout",
    "initializer_range",
    "pretraining_tp",
    "transformers_version",
    "use_cache",
];

pub(crate) fn read_text(dir: &Path, name: &'static str) -> Result<String> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            ModelError::folder(dir, format!("has no {name}; is it a model folder?"))
        } else {
            ModelError::Io {
                path,
                action: "read",
                source,
            }
        }
    })
}

pub(crate) fn parse_config(text: &str, path: &Path) -> Result<LlamaConfig> {
    let object = Object::parse(text, path)?;
    require_llama(&object)?;
    let hidden_size = object.size("hidden_size")?;
    let num_attention_heads = object.size("num_attention_heads")?;
    let (rope_theta, rope_scaling) = rope(&object)?;
    Ok(LlamaConfig {
        vocab_size: object.size("vocab_size")?,
        hidden_size,
        intermediate_size: object.size("intermediate_size")?,
        num_hidden_layers: object.size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: object
            .optional_size("num_key_value_heads")?
            .unwrap_or(num_attention_heads),
        head_dim: head_dim(&object, hidden_size, num_attention_heads)?,
        // The defaults are those of transformers' LlamaConfig.
        rms_norm_eps: object.optional_number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        tie_word_embeddings: object
            .optional_bool("tie_word_embeddings")?
            .unwrap_or(false),
        max_position_embeddings: object
            .optional_size("max_position_embeddings")?
            .unwrap_or(2048),
        dtype: dtype(&object)?,
        bos_token_id: object.ids("bos_token_id")?.first().copied(),
        eos_token_ids: object.ids("eos_token_id")?,
        pad_token_id: object.ids("pad_token_id")?.first().copied(),
    })
}

/// Keys that are neither understood nor known to be harmless. `LlamaForCausalLM` of transformers
/// does not read them either, so they change no logits there; callers may want to log them.
pub(crate) fn unknown_keys(text: &str, path: &Path) -> Result<Vec<String>> {
    let object = Object::parse(text, path)?;
    let known = |key: &str| UNDERSTOOD.contains(&key) || HARMLESS.contains(&key);
    Ok(object
        .map
        .keys()
        .filter(|key| !known(key))
        .cloned()
        .collect())
}

pub(crate) fn parse_generation_eos(text: &str, path: &Path, vocab_size: usize) -> Result<Vec<u32>> {
    let ids = Object::parse(text, path)?.ids("eos_token_id")?;
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        None => Ok(ids),
        Some(id) => Err(ModelError::value(
            path,
            "eos_token_id",
            format!("ids below vocab_size ({vocab_size})"),
            id.to_string(),
        )),
    }
}

/// Keys of transformers 4 and 5 both, with the same values, so that either reads it.
pub(crate) fn config_to_json(config: &LlamaConfig) -> Value {
    let mut rope_parameters = json!({ "rope_type": "default" });
    let mut rope_scaling = Value::Null;
    if let Some(scaling) = &config.rope_scaling {
        rope_scaling = json!({
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        });
        rope_parameters = rope_scaling.clone();
    }
    rope_parameters["rope_theta"] = json!(config.rope_theta);
    let eos = match config.eos_token_ids.as_slice() {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    };
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_scaling,
        "rope_parameters": rope_parameters,
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "initializer_range": 0.02,
        "use_cache": true,
        "torch_dtype": config.dtype.torch_name(),
        "dtype": config.dtype.torch_name(),
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos,
        "pad_token_id": config.pad_token_id,
    })
}

fn head_dim(object: &Object<'_>, hidden_size: usize, num_heads: usize) -> Result<usize> {
    if let Some(head_dim) = object.optional_size("head_dim")? {
        return Ok(head_dim);
    }
    if num_heads == 0 || !hidden_size.is_multiple_of(num_heads) {
        let expected =
            format!("a divisor of hidden_size ({hidden_size}), as head_dim is not given");
        return Err(object.wrong("num_attention_heads", expected, num_heads.to_string()));
    }
    Ok(hidden_size / num_heads)
}

fn dtype(object: &Object<'_>) -> Result<StoredDtype> {
    let mut found = None;
    for key in ["dtype", "torch_dtype"] {
        let Some(name) = object.optional_text(key)? else {
            continue;
        };
        let Some(dtype) = StoredDtype::from_name(name) else {
            return Err(object.wrong(key, "bfloat16, float16 or float32", name));
        };
        if found.is_some_and(|other| other != dtype) {
            return Err(object.wrong(key, "the same as dtype", name));
        }
        found = Some(dtype);
    }
    Ok(found.unwrap_or(StoredDtype::F32))
}

/// Theta and scaling from `rope_parameters` (transformers 5), `rope_theta` with `rope_scaling`
/// (transformers 4), or both where they agree.
fn rope(object: &Object<'_>) -> Result<(f64, Option<Llama3RopeScaling>)> {
    object.require_default("partial_rotary_factor", &json!(1.0))?;
    let flat_theta = object.optional_number("rope_theta")?;
    let old = object
        .optional_object("rope_scaling")?
        .map(|o| rope_type(&o))
        .transpose()?;
    let Some(parameters) = object.optional_object("rope_parameters")? else {
        return Ok((flat_theta.unwrap_or(10_000.0), old.flatten()));
    };
    parameters.require_default("partial_rotary_factor", &json!(1.0))?;
    let scaling = rope_type(&parameters)?;
    if let Some(old) = old.filter(|old| *old != scaling) {
        let expected = format!("the same as rope_parameters ({scaling:?})");
        return Err(object.wrong("rope_scaling", expected, format!("{old:?}")));
    }
    let theta = parameters.optional_number("rope_theta")?;
    match (theta, flat_theta) {
        (Some(theta), Some(flat)) if theta.to_bits() != flat.to_bits() => {
            let expected = format!("the same as rope_parameters.rope_theta ({theta})");
            Err(object.wrong("rope_theta", expected, flat.to_string()))
        }
        (theta, flat) => Ok((theta.or(flat).unwrap_or(10_000.0), scaling)),
    }
}

fn rope_type(object: &Object<'_>) -> Result<Option<Llama3RopeScaling>> {
    let name = match object.optional_text("rope_type")? {
        Some(name) => Some(name),
        // The key's name before transformers 4.43.
        None => object.optional_text("type")?,
    };
    match name {
        None | Some("default") => Ok(None),
        Some("llama3") => Ok(Some(Llama3RopeScaling {
            factor: object.number("factor")?,
            low_freq_factor: object.number("low_freq_factor")?,
            high_freq_factor: object.number("high_freq_factor")?,
            original_max_position_embeddings: object.size("original_max_position_embeddings")?,
        })),
        Some(other) => Err(object.wrong("rope_type", "llama3 or default", other)),
    }
}

/// Refuses another architecture, and what only another architecture has.
fn require_llama(object: &Object<'_>) -> Result<()> {
    let architectures = object.typed("architectures", "a list of names", Value::as_array)?;
    let named = |names: &&Vec<Value>| names.iter().any(|name| name == "LlamaForCausalLM");
    match (architectures, object.optional_text("model_type")?) {
        (Some(names), _) if !named(&names) => {
            let found = shown(&Value::Array(names.clone()));
            return Err(object.wrong("architectures", "LlamaForCausalLM", found));
        }
        (_, Some(model_type)) if model_type != "llama" => {
            return Err(object.wrong("model_type", "llama", model_type));
        }
        (None, None) => {
            return Err(object.wrong("architectures", "LlamaForCausalLM", "nothing"));
        }
        _ => {}
    }
    if object.get("hidden_act") != Some(&json!("swish")) {
        object.require_default("hidden_act", &json!("silu"))?;
    }
    object.require_default("attention_bias", &json!(false))?;
    object.require_default("mlp_bias", &json!(false))?;
    match object.get("quantization_config") {
        None => Ok(()),
        Some(_) => Err(object.wrong(
            "quantization_config",
            "nothing (weights in bf16, f16 or f32)",
            "a quantized checkpoint",
        )),
    }
}
