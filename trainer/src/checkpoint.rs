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
use half::bf16;
use kernels::Moments;
use kernels::tensor::{View, bf16_view, f32_view};
use model::manifest::{self, Manifest, file_sha256, verify_folder};
use model::save::{sync_folder, write_checkpoint, write_synced};
use serde::{Deserialize, Serialize};

use crate::config::{Method, SaveDtype, TrainingConfig};
use crate::error::{Result, TrainError};
use crate::folders::{CheckpointName, discard};
use crate::forward::Network;
use crate::lora::peft::write_adapter;
use crate::resume::may_pass;
use crate::state_file::{Array, ArrayMut, Named, write_arrays};
use crate::train::TrainState;
use crate::train::position::Position;
use crate::weights::Parameter;

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
    pub num_updates: u64,
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
        write_model(&beside, tokenizer_source, config.save_dtype, &state.network)?;
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
    network: &Network,
) -> Result<SavedCheckpoint> {
    let beside = out.join(format!(".model.tmp-{}", std::process::id()));
    write_model(&beside, tokenizer_source, dtype, network)?;
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
    network: &Network,
) -> Result<()> {
    remove_folder(dir)?;
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let mut config = network.config.clone();
    config.dtype = dtype.stored();
    let mut weights = network.weights.in_order().into_iter();
    write_checkpoint(dir, &config, Some(tokenizer_source), |_, values| {
        let weight = weights.next().expect("one weight per spec");
        *values = weight.merged()?;
        Ok::<(), TrainError>(())
    })?;
    if let Method::Lora(lora) = &network.method {
        write_adapter(
            &dir.join(ADAPTER_FOLDER),
            lora,
            &network.parameters,
            tokenizer_source,
        )?;
    }
    Ok(())
}

/// Whether the model's own files lack bits of a parameter: they round it, or have only what became of
/// it by merging.
pub(crate) fn is_in_state(parameter: &Parameter, config: &TrainingConfig) -> bool {
    config.method != Method::Full || parameter.values.dtype() != config.save_dtype.dtype()
}

/// Moments and, where the folder's weights are not all of them, the parameters: a resumed run has
/// every bit that an uninterrupted one has.
fn write_state(dir: &Path, config: &TrainingConfig, state: &TrainState) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let parameters = &state.network.parameters;
    let views = parameters
        .iter()
        .map(|parameter| ParameterView::new(&parameter.values))
        .collect::<Result<Vec<_>>>()?;
    let mut arrays = Vec::new();
    for ((parameter, moments), view) in parameters.iter().zip(&state.optimizer.moments).zip(&views)
    {
        arrays.extend(moment_arrays(&parameter.name, moments));
        if is_in_state(parameter, config) {
            arrays.push(Named::flat(
                format!("weight.{}", parameter.name),
                view.array(),
            ));
        }
    }
    write_arrays(&dir.join(ARRAYS_FILE), &arrays)?;
    let saved = SavedState {
        format_version: STATE_FORMAT_VERSION,
        config: config.clone(),
        num_updates: state.optimizer.num_updates,
        position: state.position.clone(),
    };
    let path = dir.join(STATE_FILE);
    let text = serde_json::to_vec_pretty(&saved).expect("plain data always serialises");
    write_synced(&path, &text)?;
    Manifest::write(dir)?;
    Ok(sync_folder(dir)?)
}

/// The arrays of one parameter's moments.
fn moment_arrays<'a>(name: &str, moments: &'a Moments) -> Vec<Named<'a>> {
    let named = |part: &str, values| Named::flat(format!("{part}.{name}"), values);
    match moments {
        Moments::F32 { first, second } => vec![
            named("first", Array::F32(first)),
            named("second", Array::F32(second)),
        ],
        Moments::Bf16 { first, second } => vec![
            named("first", Array::Bf16(first)),
            named("second", Array::Bf16(second)),
        ],
        Moments::Int8 { first, second } => vec![
            named("first", Array::U8(&first.codes)),
            named("first_scales", Array::F32(&first.scales)),
            named("second", Array::U8(&second.codes)),
            named("second_scales", Array::F32(&second.scales)),
        ],
    }
}

/// As [`moment_arrays`], to be read into.
pub(crate) fn moment_arrays_mut<'a>(
    name: &str,
    moments: &'a mut Moments,
) -> Vec<(String, ArrayMut<'a>)> {
    let named = |part: &str, values| (format!("{part}.{name}"), values);
    match moments {
        Moments::F32 { first, second } => vec![
            named("first", ArrayMut::F32(first)),
            named("second", ArrayMut::F32(second)),
        ],
        Moments::Bf16 { first, second } => vec![
            named("first", ArrayMut::Bf16(first)),
            named("second", ArrayMut::Bf16(second)),
        ],
        Moments::Int8 { first, second } => vec![
            named("first", ArrayMut::U8(&mut first.codes)),
            named("first_scales", ArrayMut::F32(&mut first.scales)),
            named("second", ArrayMut::U8(&mut second.codes)),
            named("second_scales", ArrayMut::F32(&mut second.scales)),
        ],
    }
}

/// A parameter's values, borrowed.
pub(crate) enum ParameterView<'a> {
    F32(View<'a, f32>),
    Bf16(View<'a, bf16>),
}

impl<'a> ParameterView<'a> {
    pub(crate) fn new(values: &'a Tensor) -> Result<Self> {
        Ok(match values.dtype() {
            DType::BF16 => Self::Bf16(bf16_view("save", "weight", values)?),
            _ => Self::F32(f32_view("save", "weight", values)?),
        })
    }

    pub(crate) fn array(&self) -> Array<'_> {
        match self {
            Self::F32(values) => Array::F32(values),
            Self::Bf16(values) => Array::Bf16(values),
        }
    }
}

#[cfg(test)]
mod tests;
