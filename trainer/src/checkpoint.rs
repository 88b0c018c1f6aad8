//! Writes checkpoint folders so that one is either complete or invisible: everything goes into a
//! hidden folder beside, files synced, the manifest last, then one rename.
//!
//! ```text
//! OUT/epoch_<n>/            a model folder in Hugging Face layout, for serving
//!     manifest.json         size and sha256 of every file above
//!     trainer_state/        what a resume needs; kept for the newest epoch only
//!         state.json        settings, counters, losses so far
//!         optimizer.safetensors
//!         manifest.json
//! ```
//!
//! The state lies in a subfolder because servers load every `*.safetensors` of a model folder.

use std::path::{Path, PathBuf};

use kernels::tensor::f32_view;
use model::dtype::StoredDtype;
use model::manifest::{self, Manifest, file_sha256, verify_folder};
use model::save::{save_checkpoint, sync_folder};
use serde::{Deserialize, Serialize};

use crate::config::{SaveDtype, TrainingConfig};
use crate::error::{Result, TrainError};
use crate::forward::Network;
use crate::metrics::EpochLosses;
use crate::resume::may_pass;
use crate::state_file::write_arrays;
use crate::train::{Counters, TrainState};

pub(crate) const STATE_FOLDER: &str = "trainer_state";
pub(crate) const STATE_FILE: &str = "state.json";
pub(crate) const ARRAYS_FILE: &str = "optimizer.safetensors";
pub(crate) const STATE_FORMAT_VERSION: u32 = 1;

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
    pub counters: Counters,
    pub num_updates: u64,
    pub history: Vec<EpochLosses>,
}

/// Writes `out/epoch_<n>` for the epoch that `state` has just done, then removes the trainer state
/// of older epochs.
pub fn save_epoch(
    out: &Path,
    tokenizer_source: &Path,
    config: &TrainingConfig,
    state: &TrainState,
) -> Result<SavedCheckpoint> {
    let epoch = state.counters.epochs_done;
    let beside = out.join(format!(".epoch_{epoch}.tmp-{}", std::process::id()));
    write_model(&beside, tokenizer_source, config.save_dtype, &state.network)?;
    write_state(&beside.join(STATE_FOLDER), config, state)?;
    Manifest::write(&beside)?;
    let manifest_sha256 = file_sha256(&beside.join(manifest::FILE_NAME))?;
    sync_folder(&beside)?;
    let path = out.join(format!("epoch_{epoch}"));
    std::fs::rename(&beside, &path).map_err(TrainError::io(&path))?;
    sync_folder(out)?;
    for older in (1..epoch).rev() {
        let state = out.join(format!("epoch_{older}")).join(STATE_FOLDER);
        if !state.exists() {
            break;
        }
        std::fs::remove_dir_all(&state).map_err(TrainError::io(&state))?;
    }
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

fn write_model(
    dir: &Path,
    tokenizer_source: &Path,
    dtype: SaveDtype,
    network: &Network,
) -> Result<()> {
    remove_folder(dir)?;
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let mut config = network.config.clone();
    config.dtype = match dtype {
        SaveDtype::F32 => StoredDtype::F32,
        SaveDtype::Bf16 => StoredDtype::Bf16,
        SaveDtype::F16 => StoredDtype::F16,
    };
    Ok(save_checkpoint(
        dir,
        &config,
        &network.weights,
        Some(tokenizer_source),
    )?)
}

/// Moments and, where the folder's weights are rounded, the f32 weights themselves: a resumed run
/// has every bit that an uninterrupted one has.
fn write_state(dir: &Path, config: &TrainingConfig, state: &TrainState) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
    let weights = state.network.weights.named();
    let views = weights
        .iter()
        .map(|(_, weight)| f32_view("save", "weight", weight))
        .collect::<Result<Vec<_>, _>>()?;
    let mut arrays: Vec<(String, &[f32])> = Vec::new();
    for (moments, view) in state.optimizer.moments.iter().zip(&views) {
        arrays.push((format!("first.{}", moments.name), &moments.first));
        arrays.push((format!("second.{}", moments.name), &moments.second));
        if config.save_dtype != SaveDtype::F32 {
            arrays.push((format!("weight.{}", moments.name), view));
        }
    }
    write_arrays(&dir.join(ARRAYS_FILE), &arrays)?;
    let saved = SavedState {
        format_version: STATE_FORMAT_VERSION,
        config: config.clone(),
        counters: state.counters,
        num_updates: state.optimizer.num_updates,
        history: state.history.clone(),
    };
    let path = dir.join(STATE_FILE);
    let text = serde_json::to_vec_pretty(&saved).expect("plain data always serialises");
    std::fs::write(&path, text)
        .and_then(|()| std::fs::File::open(&path)?.sync_all())
        .map_err(TrainError::io(&path))?;
    Manifest::write(dir)?;
    Ok(sync_folder(dir)?)
}

#[cfg(test)]
mod tests;
