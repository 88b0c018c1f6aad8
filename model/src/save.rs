//! Writes a checkpoint folder in Hugging Face layout, tensor by tensor, synced to disk. The folder
//! is written in place: writing beside, the manifest and the rename are the caller's.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use candle_core::DType;
use serde_json::json;

use crate::config::LlamaConfig;
use crate::dtype::StoredDtype;
use crate::error::{ModelError, Result};
use crate::weights::{TensorSpec, Weights, tensor_specs};

/// Everything of a model folder that is neither weights nor `config.json`.
const COMPANION_FILES: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes `weights` in `config.dtype` as `model.safetensors` with `config.json` into `dir` (which
/// must exist), and copies tokenizer, template and generation files from `source`.
pub fn save_checkpoint(
    dir: &Path,
    config: &LlamaConfig,
    weights: &Weights,
    source: Option<&Path>,
) -> Result<()> {
    let mut named = weights.named().into_iter();
    write_checkpoint(dir, config, source, |spec, values| {
        let (name, tensor) = named.next().expect("one tensor per spec");
        if name != spec.name || tensor.dims() != spec.shape {
            let found = format!("{name} {:?}", tensor.dims());
            return Err(ModelError::tensor(
                dir,
                &spec.name,
                format!("{:?}", spec.shape),
                found,
            ));
        }
        values.extend(
            tensor
                .flatten_all()?
                .to_dtype(DType::F32)?
                .to_vec1::<f32>()?,
        );
        Ok(())
    })
}

/// As [`save_checkpoint`], with the values from a callback, called once per entry of
/// [`tensor_specs`] in that order with an empty vector to fill. Holds one tensor at a time.
pub fn write_checkpoint<E: From<ModelError>>(
    dir: &Path,
    config: &LlamaConfig,
    source: Option<&Path>,
    values_of: impl FnMut(&TensorSpec, &mut Vec<f32>) -> Result<(), E>,
) -> Result<(), E> {
    config.check(&dir.join("config.json"))?;
    write_safetensors(&dir.join("model.safetensors"), config, values_of)?;
    write_json(&dir.join("config.json"), &config.to_json())?;
    match source {
        Some(source) => copy_companions(source, dir)?,
        None => write_generation_config(dir, config)?,
    }
    Ok(sync_folder(dir)?)
}

/// Writes a default `generation_config.json`: where to stop, and nothing about sampling.
fn write_generation_config(dir: &Path, config: &LlamaConfig) -> Result<()> {
    let eos = match config.eos_token_ids.as_slice() {
        [id] => json!(id),
        ids => json!(ids),
    };
    let mut object = json!({ "_from_model_config": true });
    object["bos_token_id"] = json!(config.bos_token_id);
    object["eos_token_id"] = eos;
    object["pad_token_id"] = json!(config.pad_token_id);
    write_json(&dir.join("generation_config.json"), &object)
}

fn write_safetensors<E: From<ModelError>>(
    path: &Path,
    config: &LlamaConfig,
    mut values_of: impl FnMut(&TensorSpec, &mut Vec<f32>) -> Result<(), E>,
) -> Result<(), E> {
    let specs = tensor_specs(config);
    let io = |action| ModelError::io(path, action);
    let file = File::create(path).map_err(io("create"))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let header = header(&specs, config.dtype);
    writer
        .write_all(&(header.len() as u64).to_le_bytes())
        .map_err(io("write"))?;
    writer.write_all(header.as_bytes()).map_err(io("write"))?;
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    for spec in &specs {
        values.clear();
        values_of(spec, &mut values)?;
        if values.len() != spec.num_elements() {
            let expected = format!("{} values", spec.num_elements());
            let found = values.len().to_string();
            return Err(ModelError::tensor(path, &spec.name, expected, found).into());
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let found = format!("{} at index {index}", values[index]);
            return Err(ModelError::tensor(path, &spec.name, "finite values", found).into());
        }
        config.dtype.encode_into(&values, &mut bytes);
        writer.write_all(&bytes).map_err(io("write"))?;
    }
    let file = writer
        .into_inner()
        .map_err(|error| io("write")(error.into_error()))?;
    Ok(file.sync_all().map_err(io("sync"))?)
}

/// A safetensors header, padded with spaces so that the data starts at a multiple of 8 bytes.
/// `format: pt` because transformers before 4.47 refuses to load without it.
fn header(specs: &[TensorSpec], dtype: StoredDtype) -> String {
    let mut entries = serde_json::Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for spec in specs {
        let end = offset + spec.num_elements() * dtype.size();
        let entry = json!({
            "dtype": dtype.safetensors_name(),
            "shape": spec.shape,
            "data_offsets": [offset, end],
        });
        entries.insert(spec.name.clone(), entry);
        offset = end;
    }
    let mut text = serde_json::Value::Object(entries).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    text
}

/// Copies the tokenizer, template and generation files of `source` that exist.
pub fn copy_companions(source: &Path, dir: &Path) -> Result<()> {
    for name in COMPANION_FILES {
        let from = source.join(name);
        match std::fs::read(&from) {
            Ok(bytes) => write_synced(&dir.join(name), &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ModelError::Io {
                    path: from,
                    action: "read",
                    source,
                });
            }
        }
    }
    Ok(())
}

pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|source| ModelError::Json {
        path: path.to_path_buf(),
        source,
    })?;
    text.push('\n');
    write_synced(path, text.as_bytes())
}

/// Writes a whole file and syncs it to disk.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(ModelError::io(path, "create"))?;
    file.write_all(bytes)
        .map_err(ModelError::io(path, "write"))?;
    file.sync_all().map_err(ModelError::io(path, "sync"))
}

/// Syncs the folder's own entries, so that its files survive a crash by name too.
pub fn sync_folder(dir: &Path) -> Result<()> {
    let folder = File::open(dir).map_err(ModelError::io(dir, "open"))?;
    folder.sync_all().map_err(ModelError::io(dir, "sync"))
}
