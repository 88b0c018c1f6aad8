//! Adapter folders as PEFT writes and reads them: `adapter_config.json` and
//! `adapter_model.safetensors`, with PEFT's names.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use model::manifest::{Manifest, verify_folder};
use model::save::{sync_folder, write_synced};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LoraConfig, LoraTarget};
use crate::checkpoint::{array_type, write_tensor};
use crate::error::{Result, TrainError};
use crate::state_file::{ArrayWriter, Header};
use crate::train::engine::{Engine, ParameterSpec};
use crate::weights::Slot;

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The fields of `adapter_config.json` that say what an adapter computes.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    target_modules: Vec<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Fields with which PEFT computes something that this program does not, unless they are absent, empty,
/// false or "none".
const UNSUPPORTED: [&str; 16] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "use_rslora",
];

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Writes the adapters that `engine` trains into `dir`, synced, with a manifest.
pub(crate) fn write_adapter(
    dir: &Path,
    lora: &LoraConfig,
    engine: &dyn Engine,
    base: &Path,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let parameters = engine.parameters();
    let header = |parameter: &ParameterSpec| Header {
        name: parameter.name.clone(),
        dtype: array_type(parameter),
        shape: parameter.shape.clone(),
    };
    let headers: Vec<Header> = parameters.iter().map(header).collect();
    let path = dir.join(WEIGHTS_FILE);
    let mut writer = ArrayWriter::create(&path, &headers)?;
    for number in 0..parameters.len() {
        write_tensor(&mut writer, &engine.values(Slot(number))?)?;
    }
    writer.finish()?;
    let modules = lora.targets.iter().map(|target| target.module());
    // Whatever is not here has PEFT's default.
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.display().to_string(),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": modules.collect::<Vec<_>>(),
        "bias": "none",
        "inference_mode": true,
    });
    let path = dir.join(CONFIG_FILE);
    let text = serde_json::to_vec_pretty(&config).expect("plain data always serialises");
    write_synced(&path, &text)?;
    Manifest::write(dir)?;
    Ok(sync_folder(dir)?)
}

/// An adapter folder that was read: ours or PEFT's.
#[derive(Debug)]
pub(crate) struct AdapterFolder {
    /// alpha / r.
    pub(crate) scale: f64,
    targets: Vec<LoraTarget>,
    /// By PEFT's names, f32.
    tensors: std::collections::BTreeMap<String, Tensor>,
}

impl AdapterFolder {
    /// # Errors
    /// Missing or broken files, and everything an adapter may have that this program does not compute
    /// (other methods, biases, patterns of ranks): the message names the field.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let config = read_config(dir)?;
        // Ours has a manifest, PEFT's none.
        verify_folder(dir)?;
        let path = dir.join(CONFIG_FILE);
        let targets = config
            .target_modules
            .iter()
            .map(|module| {
                LoraTarget::ALL
                    .into_iter()
                    .find(|target| target.module() == module)
                    .ok_or_else(|| bad(&path, format!("target_modules has \"{module}\", expected some of the seven projections of a Llama layer")))
            })
            .collect::<Result<_>>()?;
        let path = dir.join(WEIGHTS_FILE);
        let bytes = std::fs::read(&path).map_err(TrainError::io(&path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(&path, e.to_string()))?;
        let mut tensors = std::collections::BTreeMap::new();
        for (name, view) in file.tensors() {
            let dtype = DType::try_from(view.dtype())?;
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
            tensors.insert(name, tensor.to_dtype(DType::F32)?);
        }
        Ok(Self {
            scale: config.lora_alpha / config.r as f64,
            targets,
            tensors,
        })
    }

    /// Whether the weight with this Hugging Face name should have an adapter.
    pub(crate) fn has_target(&self, weight: &str) -> bool {
        let is_named =
            |target: &LoraTarget| weight.ends_with(&format!("{}.weight", target.module()));
        self.targets.iter().any(is_named)
    }

    /// Takes A `[rank, in]` and B `[out, rank]` out, for the weight `[out, in]` with this name.
    pub(crate) fn take(&mut self, weight: &str, dir: &Path) -> Result<(Tensor, Tensor)> {
        let path = dir.join(WEIGHTS_FILE);
        let mut take = |name: &String| {
            let missing = || bad(&path, format!("no tensor {name}"));
            self.tensors.remove(name).ok_or_else(missing)
        };
        let [a, b] = super::adapter_names(weight);
        Ok((take(&a)?, take(&b)?))
    }

    /// Refuses tensors that no weight has taken.
    pub(crate) fn finish(self, dir: &Path) -> Result<()> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(bad(
                &dir.join(WEIGHTS_FILE),
                format!("tensor {name} belongs to no weight of this model"),
            )),
        }
    }
}

fn read_config(dir: &Path) -> Result<AdapterConfig> {
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read(&path).map_err(TrainError::io(&path))?;
    let config: AdapterConfig =
        serde_json::from_slice(&text).map_err(|error| bad(&path, error.to_string()))?;
    let wrong = |field: &str, found: &dyn std::fmt::Display, expected: &str| {
        Err(bad(
            &path,
            format!("{field} = {found}: expected {expected}"),
        ))
    };
    if config.peft_type != "LORA" {
        return wrong("peft_type", &config.peft_type, "LORA");
    }
    if config.r == 0 {
        return wrong("r", &config.r, "1 or more");
    }
    // Others (pissa, olora, loftq, corda) change the base weights, too.
    let known = [
        json!(true),
        json!(false),
        json!("gaussian"),
        json!("orthogonal"),
        json!("eva"),
    ];
    match config.others.get("init_lora_weights") {
        Some(value) if !value.is_null() && !known.contains(value) => {
            return wrong(
                "init_lora_weights",
                value,
                "one that leaves the base as it is",
            );
        }
        _ => {}
    }
    for field in UNSUPPORTED {
        if let Some(value) = config.others.get(field).filter(|value| !is_nothing(value)) {
            return wrong(field, value, "nothing: this program does not compute it");
        }
    }
    Ok(config)
}

fn bad(path: &Path, what: String) -> TrainError {
    TrainError::BadCheckpoint {
        path: path.to_path_buf(),
        what,
    }
}
