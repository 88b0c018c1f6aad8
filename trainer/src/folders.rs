//! The checkpoints of an output folder: their names, their order, and which of them stay.

use std::path::{Path, PathBuf};

use crate::checkpoint::{STATE_FILE, STATE_FOLDER, remove_folder};
use crate::error::{Result, TrainError};

/// What a checkpoint folder is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointName {
    /// `epoch_<n>`: after epoch n. All of them stay.
    Epoch(u32),
    /// `step_<n>`: after n optimizer steps. The newest few stay.
    Step(u64),
}

/// A checkpoint folder that lies in an output folder, complete or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    pub name: CheckpointName,
    pub path: PathBuf,
}

impl std::fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epoch(epoch) => write!(f, "epoch_{epoch}"),
            Self::Step(step) => write!(f, "step_{step}"),
        }
    }
}

impl CheckpointName {
    fn of(path: &Path) -> Option<Self> {
        Self::parse(path.file_name()?.to_str()?)
    }

    /// Back from its [`std::fmt::Display`].
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (kind, number) = name.split_once('_')?;
        match kind {
            "epoch" => Some(Self::Epoch(number.parse().ok()?)),
            "step" => Some(Self::Step(number.parse().ok()?)),
            _ => None,
        }
    }
}

/// Whether a killed process left this behind: half a checkpoint, or one on its way out.
pub(crate) fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        (name.starts_with(".epoch_") || name.starts_with(".step_")) && name.contains(".tmp-")
    })
}

/// The checkpoints in `out`, the one to resume from first: those that hold a trainer's state by
/// their steps (an epoch's before a step's at the same place), then the others.
pub(crate) fn list(out: &Path) -> Result<Vec<Folder>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(out).map_err(TrainError::io(out))? {
        let path = entry.map_err(TrainError::io(out))?.path();
        if let Some(name) = CheckpointName::of(&path) {
            found.push(Folder { name, path });
        }
    }
    found.sort_by_cached_key(|folder| {
        let (is_epoch, number) = match folder.name {
            CheckpointName::Epoch(epoch) => (true, u64::from(epoch)),
            CheckpointName::Step(step) => (false, step),
        };
        std::cmp::Reverse((steps_done(folder), is_epoch, number))
    });
    Ok(found)
}

/// Optimizer steps of a checkpoint that holds a trainer's state.
fn steps_done(folder: &Folder) -> Option<u64> {
    let path = folder.path.join(STATE_FOLDER).join(STATE_FILE);
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    state["position"]["counters"]["steps"].as_u64()
}

/// After `newest` was saved: no other checkpoint keeps a trainer's state, and only the newest
/// `max_step_checkpoints` step folders stay.
pub(crate) fn clear_older(
    out: &Path,
    newest: CheckpointName,
    max_step_checkpoints: usize,
) -> Result<()> {
    let mut steps = Vec::new();
    for folder in list(out)? {
        let state = folder.path.join(STATE_FOLDER);
        if folder.name != newest && state.exists() {
            discard(out, folder.name, &state)?;
        }
        if let CheckpointName::Step(step) = folder.name {
            steps.push((step, folder));
        }
    }
    steps.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    for (_, folder) in steps.into_iter().skip(max_step_checkpoints) {
        discard(out, folder.name, &folder.path)?;
    }
    Ok(())
}

/// Removes a folder in two moves, so that a process killed meanwhile leaves nothing that looks like
/// a damaged checkpoint.
pub(crate) fn discard(out: &Path, name: CheckpointName, path: &Path) -> Result<()> {
    let aside = out.join(format!(".{name}.tmp-{}-old", std::process::id()));
    remove_folder(&aside)?;
    std::fs::rename(path, &aside).map_err(TrainError::io(path))?;
    remove_folder(&aside)
}

#[cfg(test)]
mod tests;
