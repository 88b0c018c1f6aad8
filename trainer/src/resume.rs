//! Finds the newest complete epoch of an output folder and takes its state over. Half folders are
//! removed, folders that fail their manifest are moved aside (those that could not be read are left
//! alone), and other settings than the saved ones are refused by name.

use std::fs::File;
use std::path::{Path, PathBuf};

use kernels::tensor::f32_update;
use model::ModelError;
use model::config::LlamaConfig;
use model::manifest::verify_folder;
use model::weights::Weights;

use crate::checkpoint::remove_folder;
use crate::checkpoint::{ARRAYS_FILE, STATE_FILE, STATE_FOLDER, STATE_FORMAT_VERSION, SavedState};
use crate::config::{SaveDtype, TrainingConfig};
use crate::error::{Result, TrainError};
use crate::progress::{Event, Progress};
use crate::state_file::read_arrays;
use crate::train::TrainState;

/// The only writer of an output folder. The lock goes when this is dropped or the process ends.
#[derive(Debug)]
pub struct OutFolder {
    _lock: File,
}

impl OutFolder {
    /// Makes the folder where needed and locks it.
    pub fn claim(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(TrainError::io(out))?;
        let path = out.join(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(TrainError::OutBusy { path }),
            Err(std::fs::TryLockError::Error(error)) => Err(TrainError::io(&path)(error)),
        }
    }
}

/// A complete epoch folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteEpoch {
    pub epoch: u32,
    pub path: PathBuf,
}

/// The newest epoch folder whose manifest holds; `None` for a fresh run. The caller has the folder's
/// lock: what an earlier process left half done is removed here.
pub fn newest_complete_epoch(out: &Path, progress: &mut Progress) -> Result<Option<CompleteEpoch>> {
    let mut epochs = Vec::new();
    for entry in std::fs::read_dir(out).map_err(TrainError::io(out))? {
        let path = entry.map_err(TrainError::io(out))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(".epoch_") && name.contains(".tmp-") {
            remove_folder(&path)?;
        } else if let Some(epoch) = name.strip_prefix("epoch_").and_then(|n| n.parse().ok()) {
            epochs.push(CompleteEpoch { epoch, path });
        }
    }
    epochs.sort_by_key(|found| std::cmp::Reverse(found.epoch));
    for found in epochs {
        let problem = match verify_folder(&found.path) {
            Ok(Some(_)) => return Ok(Some(found)),
            Ok(None) => "it has no manifest.json".to_string(),
            Err(error) if may_pass(&error) => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        let aside = free_name(out, found.epoch)?;
        std::fs::rename(&found.path, &aside).map_err(TrainError::io(&found.path))?;
        progress.emit(Event::Warning {
            message: format!(
                "{} is not a complete checkpoint ({problem}); moved to {}",
                found.path.display(),
                aside.display()
            ),
        });
    }
    Ok(None)
}

/// Whether an error tells of the machine, such as a disk that does not answer or a lack of file
/// handles, and not of the folder's content: nothing is known about the checkpoint then.
pub(crate) fn may_pass(error: &ModelError) -> bool {
    use std::io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound};
    let ModelError::Io { source, .. } = error else {
        return false;
    };
    !matches!(
        source.kind(),
        NotFound | NotADirectory | IsADirectory | InvalidData
    )
}

/// A name that nothing in `out` has, for a damaged epoch folder.
fn free_name(out: &Path, epoch: u32) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let path = out.join(format!(".epoch_{epoch}.invalid-{number}"));
        match path.symlink_metadata() {
            Ok(_) => number += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(TrainError::io(&path)(error)),
        }
    }
}

/// Reads the settings and counters of a complete epoch and refuses other settings than `config`.
pub fn read_state(found: &CompleteEpoch, config: &TrainingConfig) -> Result<SavedState> {
    let dir = found.path.join(STATE_FOLDER);
    if !dir.is_dir() {
        return Err(TrainError::BadCheckpoint {
            path: found.path.clone(),
            what: format!(
                "has no {STATE_FOLDER} to resume from (only the newest epoch of a run keeps it); \
                 give another --out, or start from this folder with --model"
            ),
        });
    }
    if verify_folder(&dir)?.is_none() {
        return Err(TrainError::BadCheckpoint {
            path: dir,
            what: "has no manifest.json, so its files cannot be checked; give another --out, or \
                   start from the epoch's folder with --model"
                .to_string(),
        });
    }
    let path = dir.join(STATE_FILE);
    let text = std::fs::read(&path).map_err(TrainError::io(&path))?;
    let saved: SavedState =
        serde_json::from_slice(&text).map_err(|error| TrainError::BadCheckpoint {
            path: path.clone(),
            what: error.to_string(),
        })?;
    if saved.format_version != STATE_FORMAT_VERSION {
        let what = format!(
            "format_version {}, this trainer reads {STATE_FORMAT_VERSION}",
            saved.format_version
        );
        return Err(TrainError::BadCheckpoint { path, what });
    }
    refuse_changes(&found.path, &saved.config, config)?;
    Ok(saved)
}

/// Weights, moments and counters of a complete epoch, bit for bit, into `state`.
pub fn load_state(found: &CompleteEpoch, saved: SavedState, state: &mut TrainState) -> Result<()> {
    if saved.config.save_dtype == SaveDtype::F32 {
        let architecture = LlamaConfig::load(&found.path)?;
        let stored = Weights::load(&found.path, &architecture, candle_core::DType::F32)?;
        state.network.set_weights(&stored)?;
    }
    let mut masters: Vec<Vec<f32>> = Vec::new();
    if saved.config.save_dtype != SaveDtype::F32 {
        masters.extend(
            state
                .optimizer
                .moments
                .iter()
                .map(|m| vec![0.0; m.first.len()]),
        );
    }
    let mut arrays: Vec<(String, &mut [f32])> = Vec::new();
    let mut master = masters.iter_mut();
    for moments in &mut state.optimizer.moments {
        arrays.push((format!("first.{}", moments.name), &mut moments.first));
        arrays.push((format!("second.{}", moments.name), &mut moments.second));
        if let Some(values) = master.next() {
            arrays.push((format!("weight.{}", moments.name), values));
        }
    }
    read_arrays(
        &found.path.join(STATE_FOLDER).join(ARRAYS_FILE),
        &mut arrays,
    )?;
    for ((_, weight), values) in state.network.weights.named().iter().zip(masters) {
        f32_update("resume", "weight", weight, |weight| {
            weight.copy_from_slice(&values);
        })?;
    }
    state.optimizer.num_updates = saved.num_updates;
    state.counters = saved.counters;
    state.history = saved.history;
    Ok(())
}

/// Compares two settings leaf by leaf, so that the error can name the field.
fn refuse_changes(path: &Path, saved: &TrainingConfig, requested: &TrainingConfig) -> Result<()> {
    let json = |config| serde_json::to_value(config).expect("plain data always serialises");
    match first_difference("", &json(saved), &json(requested)) {
        None => Ok(()),
        Some((field, saved, requested)) => Err(TrainError::ConfigChanged {
            path: path.to_path_buf(),
            field,
            saved,
            requested,
        }),
    }
}

fn first_difference(
    field: &str,
    saved: &serde_json::Value,
    requested: &serde_json::Value,
) -> Option<(String, String, String)> {
    match (saved.as_object(), requested.as_object()) {
        (Some(old), Some(new)) if old.keys().eq(new.keys()) => {
            old.iter().find_map(|(key, value)| {
                let name = if field.is_empty() {
                    key.clone()
                } else {
                    format!("{field}.{key}")
                };
                first_difference(&name, value, &new[key])
            })
        }
        _ if saved == requested => None,
        _ => Some((field.to_string(), saved.to_string(), requested.to_string())),
    }
}

#[cfg(test)]
mod tests;
