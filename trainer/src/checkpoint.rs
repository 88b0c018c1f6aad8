//! Writes checkpoint folders so that one is either complete or invisible: everything goes into a
//! hidden folder beside, files synced, the manifest last, then one rename.
//!
//! ```text
//! OUT/epoch_<n>/            a model folder in Hugging Face layout, for serving
//!     manifest.json         size and sha256 of every file above
//!     adapter/              the adapters as PEFT reads them (LoRA; the model above has them merged)
//!     trainer_state/        what a resume needs; kept in the newest checkpoint only
//!         state.json        settings and the position in the run
//!         optimizer.safetensors
//!         manifest.json
//! OUT/step_<n>/             the same after n optimizer steps; the newest few are kept
//! ```
//!
//! The state lies in a subfolder because servers load every `*.safetensors` of a model folder.

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use kernels::tensor::{bf16_view, f32_view};
use kernels::{Moments, MomentsFormat, Quantized};
use model::manifest::{self, Manifest, file_sha256, verify_folder};
use model::save::{sync_folder, write_checkpoint, write_synced};
use serde::{Deserialize, Serialize};

use crate::config::{Method, SaveDtype, TrainingConfig};
use crate::error::{Result, TrainError};
use crate::folders::{CheckpointName, discard};
use crate::lora::peft::write_adapter;
use crate::resume::may_pass;
use crate::state_file::{Array, ArrayMut, ArrayType, ArrayWriter, Header};
use crate::train::TrainState;
use crate::train::engine::{Engine, ParameterSpec};
use crate::train::position::Position;
use crate::weights::Slot;

/// The adapters of a LoRA run, below its checkpoint.
pub const ADAPTER_FOLDER: &str = "adapter";
pub(crate) const STATE_FOLDER: &str = "trainer_state";
pub(crate) const STATE_FILE: &str = "state.json";
pub(crate) const ARRAYS_FILE: &str = "optimizer.safetensors";
pub(crate) const STATE_FORMAT_VERSION: u32 = 2;

/// A complete folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedCheckpoint {
    pub path: PathBuf,
    /// sha256 of `manifest.json` as it lies on disk: pins every file of the folder.
    pub manifest_sha256: String,
}

/// `trainer_state/state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    pub format_version: u32,
    pub config: TrainingConfig,
    pub position: Position,
}

/// Writes the checkpoint of this name for what `state` is now. Where that fails, as on a full disk,
/// the half folder is removed and those before it stay.
pub fn save(
    out: &Path,
    name: CheckpointName,
    tokenizer_source: &Path,
    config: &TrainingConfig,
    state: &TrainState,
) -> Result<SavedCheckpoint> {
    let beside = out.join(format!(".{name}.tmp-{}", std::process::id()));
    let write = || {
        write_model(&beside, tokenizer_source, config.save_dtype, &*state.engine)?;
        write_state(&beside.join(STATE_FOLDER), config, state)?;
        Manifest::write(&beside)?;
        sync_folder(&beside)?;
        Ok(file_sha256(&beside.join(manifest::FILE_NAME))?)
    };
    let manifest_sha256 = write().inspect_err(|_: &TrainError| {
        // The first error is the one to tell; the next process tries to remove it again.
        let _ = remove_folder(&beside);
    })?;
    let path = out.join(name.to_string());
    if path.exists() {
        // Left from a run that could not be gone on with from there.
        discard(out, name, &path)?;
    }
    std::fs::rename(&beside, &path).map_err(TrainError::io(&path))?;
    sync_folder(out)?;
    Ok(SavedCheckpoint {
        path,
        manifest_sha256,
    })
}

/// Writes `out/model`, replacing the one of an earlier save.
pub fn save_model(
    out: &Path,
    tokenizer_source: &Path,
    dtype: SaveDtype,
    engine: &dyn Engine,
) -> Result<SavedCheckpoint> {
    let beside = out.join(format!(".model.tmp-{}", std::process::id()));
    write_model(&beside, tokenizer_source, dtype, engine)?;
    Manifest::write(&beside)?;
    let manifest_sha256 = file_sha256(&beside.join(manifest::FILE_NAME))?;
    sync_folder(&beside)?;
    let path = out.join("model");
    let old = out.join(format!(".model.old-{}", std::process::id()));
    if path.exists() {
        remove_folder(&old)?;
        std::fs::rename(&path, &old).map_err(TrainError::io(&path))?;
    }
    std::fs::rename(&beside, &path).map_err(TrainError::io(&path))?;
    sync_folder(out)?;
    remove_folder(&old)?;
    Ok(SavedCheckpoint {
        path,
        manifest_sha256,
    })
}

/// Puts `out/model` in order after an earlier process: where it ended between the two renames of a
/// save, the new model takes its place, or else the old one; whatever else it left is removed. The
/// caller has the folder's lock.
pub fn remove_half_models(out: &Path) -> Result<()> {
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(out).map_err(TrainError::io(out))? {
        let path = entry.map_err(TrainError::io(out))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(".model.tmp-") {
            new.push(path);
        } else if name.starts_with(".model.old-") {
            old.push(path);
        }
    }
    let model = out.join("model");
    if !model.try_exists().map_err(TrainError::io(&model))? {
        for found in new.iter().chain(&old) {
            let is_whole = match verify_folder(found) {
                Ok(manifest) => manifest.is_some(),
                Err(error) if may_pass(&error) => return Err(error.into()),
                Err(_) => false,
            };
            if is_whole {
                std::fs::rename(found, &model).map_err(TrainError::io(found))?;
                sync_folder(out)?;
                break;
            }
        }
    }
    if !model.try_exists().map_err(TrainError::io(&model))? {
        // Not even the old model is whole: it is the only one, and what to do with it is the user's.
        old.clear();
    }
    for leftover in new.iter().chain(&old) {
        remove_folder(leftover)?;
    }
    Ok(())
}

/// Removes a folder that may not exist.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io(path)(error))
        }
        _ => Ok(()),
    }
}

/// The model as a plain checkpoint, adapters merged, and beside it the adapters themselves.
fn write_model(
    dir: &Path,
    tokenizer_source: &Path,
    dtype: SaveDtype,
    engine: &dyn Engine,
) -> Result<()> {
    remove_folder(dir)?;
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let mut config = engine.config().clone();
    config.dtype = dtype.stored();
    let mut numbers = 0..;
    write_checkpoint(dir, &config, Some(tokenizer_source), |_, values| {
        let number = numbers.next().expect("an endless range");
        *values = engine.merged(number)?;
        Ok::<(), TrainError>(())
    })?;
    if let Method::Lora(lora) = engine.method() {
        write_adapter(&dir.join(ADAPTER_FOLDER), lora, engine, tokenizer_source)?;
    }
    Ok(())
}

/// Whether the model's own files lack bits of a parameter: they round it, or have only what became of
/// it by merging.
pub(crate) fn is_in_state(parameter: &ParameterSpec, config: &TrainingConfig) -> bool {
    config.method != Method::Full || parameter.dtype != config.save_dtype.dtype()
}

/// Moments and, where the folder's weights are not all of them, the parameters: a resumed run has
/// every bit that an uninterrupted one has.
fn write_state(dir: &Path, config: &TrainingConfig, state: &TrainState) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let parameters = state.engine.parameters();
    let format = config.optimizer.moments.format();
    let mut headers = Vec::new();
    for parameter in &parameters {
        headers.extend(moment_headers(parameter, format));
        if is_in_state(parameter, config) {
            headers.push(weight_header(parameter));
        }
    }
    let path = dir.join(ARRAYS_FILE);
    let mut writer = ArrayWriter::create(&path, &headers)?;
    for (number, parameter) in parameters.iter().enumerate() {
        for values in moment_arrays(state.engine.moments(Slot(number))?.as_ref()) {
            writer.write(values)?;
        }
        if is_in_state(parameter, config) {
            write_tensor(&mut writer, &state.engine.values(Slot(number))?)?;
        }
    }
    writer.finish()?;
    let saved = SavedState {
        format_version: STATE_FORMAT_VERSION,
        config: config.clone(),
        position: state.position.clone(),
    };
    let path = dir.join(STATE_FILE);
    let text = serde_json::to_vec_pretty(&saved).expect("plain data always serialises");
    write_synced(&path, &text)?;
    Manifest::write(dir)?;
    Ok(sync_folder(dir)?)
}

/// Names of the arrays of a parameter's moments and what they hold, in the order of [`moment_arrays`].
pub(crate) fn moment_headers(parameter: &ParameterSpec, format: MomentsFormat) -> Vec<Header> {
    let count = parameter.num_elements();
    let both = |dtype| vec![("first", dtype, count), ("second", dtype, count)];
    let parts = match format {
        MomentsFormat::F32 => both(ArrayType::F32),
        MomentsFormat::Bf16 => both(ArrayType::Bf16),
        MomentsFormat::Int8 => {
            let num_scales = Quantized::num_scales(count);
            vec![
                ("first", ArrayType::U8, count),
                ("first_scales", ArrayType::F32, num_scales),
                ("second", ArrayType::U8, count),
                ("second_scales", ArrayType::F32, num_scales),
            ]
        }
    };
    let parts = parts.into_iter();
    parts
        .map(|(part, dtype, len)| Header {
            name: format!("{part}.{}", parameter.name),
            dtype,
            shape: vec![len],
        })
        .collect()
}

fn moment_arrays(moments: &Moments) -> Vec<Array<'_>> {
    match moments {
        Moments::F32 { first, second } => vec![Array::F32(first), Array::F32(second)],
        Moments::Bf16 { first, second } => vec![Array::Bf16(first), Array::Bf16(second)],
        Moments::Int8 { first, second } => vec![
            Array::U8(&first.codes),
            Array::F32(&first.scales),
            Array::U8(&second.codes),
            Array::F32(&second.scales),
        ],
    }
}

/// As [`moment_arrays`], to be read into.
pub(crate) fn moment_arrays_mut(moments: &mut Moments) -> Vec<ArrayMut<'_>> {
    match moments {
        Moments::F32 { first, second } => vec![ArrayMut::F32(first), ArrayMut::F32(second)],
        Moments::Bf16 { first, second } => vec![ArrayMut::Bf16(first), ArrayMut::Bf16(second)],
        Moments::Int8 { first, second } => vec![
            ArrayMut::U8(&mut first.codes),
            ArrayMut::F32(&mut first.scales),
            ArrayMut::U8(&mut second.codes),
            ArrayMut::F32(&mut second.scales),
        ],
    }
}

/// The array of a parameter's values, flat.
pub(crate) fn weight_header(parameter: &ParameterSpec) -> Header {
    Header {
        name: format!("weight.{}", parameter.name),
        dtype: array_type(parameter),
        shape: vec![parameter.num_elements()],
    }
}

/// What a parameter's values are stored as.
pub(crate) fn array_type(parameter: &ParameterSpec) -> ArrayType {
    match parameter.dtype {
        DType::BF16 => ArrayType::Bf16,
        _ => ArrayType::F32,
    }
}

/// Writes a tensor as the next array.
pub(crate) fn write_tensor(writer: &mut ArrayWriter<'_>, values: &Tensor) -> Result<()> {
    if values.dtype() == DType::BF16 {
        writer.write(Array::Bf16(&bf16_view("save", "values", values)?))
    } else {
        writer.write(Array::F32(&f32_view("save", "values", values)?))
    }
}

#[cfg(test)]
mod tests;
