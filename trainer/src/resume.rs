//! Finds the newest complete checkpoint of an output folder and takes its state over. Half folders
//! are removed, folders that fail their manifest are moved aside (those that could not be read are
//! left alone), and other settings than the saved ones are refused by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::bf16;
use kernels::Moments;
use model::ModelError;
use model::config::LlamaConfig;
use model::load::TensorReader;
use model::manifest::verify_folder;

use crate::checkpoint::{ARRAYS_FILE, STATE_FILE, STATE_FOLDER, STATE_FORMAT_VERSION, SavedState};
use crate::checkpoint::{
    is_in_state, moment_arrays_mut, moment_headers, remove_folder, weight_header,
};
use crate::config::TrainingConfig;
use crate::error::{Result, TrainError};
use crate::folders::{CheckpointName, Folder, is_leftover, list};
use crate::progress::{Event, Progress};
use crate::state_file::{ArrayMut, ArrayReader};
use crate::train::TrainState;
use crate::train::engine::{Engine, ParameterSpec};
use crate::weights::Slot;

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

/// The checkpoint with most steps whose manifest holds (an epoch's wins a tie); `None` for a fresh
/// run. The caller has the folder's lock: what an earlier process left half done is removed here.
pub fn newest_complete(out: &Path, progress: &mut Progress) -> Result<Option<Folder>> {
    for entry in std::fs::read_dir(out).map_err(TrainError::io(out))? {
        let path = entry.map_err(TrainError::io(out))?.path();
        if is_leftover(&path) {
            remove_folder(&path)?;
        }
    }
    for found in list(out)? {
        let problem = match verify_folder(&found.path) {
            Ok(Some(_)) => return Ok(Some(found)),
            Ok(None) => "it has no manifest.json".to_string(),
            Err(error) if may_pass(&error) => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        let aside = free_name(out, found.name)?;
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

/// A name that nothing in `out` has, for a damaged folder.
fn free_name(out: &Path, name: CheckpointName) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let path = out.join(format!(".{name}.invalid-{number}"));
        match path.symlink_metadata() {
            Ok(_) => number += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(TrainError::io(&path)(error)),
        }
    }
}

/// Reads the settings and the position of a complete checkpoint and refuses other settings than
/// `config`.
pub fn read_state(found: &Folder, config: &TrainingConfig) -> Result<SavedState> {
    let dir = found.path.join(STATE_FOLDER);
    if !dir.is_dir() {
        return Err(TrainError::BadCheckpoint {
            path: found.path.clone(),
            what: format!(
                "has no {STATE_FOLDER} to resume from (only the newest checkpoint of a run keeps \
                 it); \
                 give another --out, or start from this folder with --model"
            ),
        });
    }
    if verify_folder(&dir)?.is_none() {
        return Err(TrainError::BadCheckpoint {
            path: dir,
            what: "has no manifest.json, so its files cannot be checked; give another --out, or \
                   start from the checkpoint with --model"
                .to_string(),
        });
    }
    let path = dir.join(STATE_FILE);
    let text = std::fs::read(&path).map_err(TrainError::io(&path))?;
    let saved = parse_state(&text).map_err(|what| TrainError::BadCheckpoint { path, what })?;
    refuse_changes(&found.path, &saved.config, config)?;
    Ok(saved)
}

/// The version first: the fields of another one mean something else, or are not there.
fn parse_state(text: &[u8]) -> Result<SavedState, String> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let version = &value["format_version"];
    if *version != STATE_FORMAT_VERSION {
        return Err(format!(
            "format_version {version}, this trainer reads {STATE_FORMAT_VERSION}; give another \
             --out, or start from the checkpoint with --model"
        ));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Weights, moments and position of a complete checkpoint, bit for bit, into `state`.
pub fn load_state(found: &Folder, saved: SavedState, state: &mut TrainState) -> Result<()> {
    let engine = &mut *state.engine;
    let parameters = engine.parameters();
    let in_state = |parameter: &ParameterSpec| is_in_state(parameter, &saved.config);
    if !parameters.iter().all(in_state) {
        load_stored(&found.path, engine, &parameters)?;
    }
    let path = found.path.join(STATE_FOLDER).join(ARRAYS_FILE);
    let mut reader = ArrayReader::open(&path)?;
    let format = saved.config.optimizer.moments.format();
    for (number, parameter) in parameters.iter().enumerate() {
        let mut moments = Moments::zeros(format, parameter.num_elements());
        let headers = moment_headers(parameter, format);
        for (header, values) in headers.iter().zip(moment_arrays_mut(&mut moments)) {
            reader.read(&header.name, values)?;
        }
        engine.set_moments(Slot(number), moments)?;
        if in_state(parameter) {
            let values = read_weight(&mut reader, parameter)?;
            engine.set_values(Slot(number), &values)?;
        }
    }
    reader.finish()?;
    state.position = saved.position;
    Ok(())
}

fn read_weight(reader: &mut ArrayReader<'_>, parameter: &ParameterSpec) -> Result<Tensor> {
    let name = weight_header(parameter).name;
    let (count, shape) = (parameter.num_elements(), parameter.shape.as_slice());
    Ok(if parameter.dtype == DType::BF16 {
        let mut values = vec![bf16::ZERO; count];
        reader.read(&name, ArrayMut::Bf16(&mut values))?;
        Tensor::from_vec(values, shape, &Device::Cpu)?
    } else {
        let mut values = vec![0.0; count];
        reader.read(&name, ArrayMut::F32(&mut values))?;
        Tensor::from_vec(values, shape, &Device::Cpu)?
    })
}

/// The parameters as the folder's own weights have them.
fn load_stored(dir: &Path, engine: &mut dyn Engine, parameters: &[ParameterSpec]) -> Result<()> {
    let config = LlamaConfig::load(dir)?;
    let names = parameters.iter().map(|parameter| parameter.name.as_str());
    let by_name: BTreeMap<&str, usize> = names.zip(0..).collect();
    for tensor in TensorReader::open(dir, &config)? {
        let (spec, stored) = tensor?;
        if let Some(&number) = by_name.get(spec.name.as_str()) {
            let values = Tensor::from_vec(stored, spec.shape.as_slice(), &Device::Cpu)?;
            let values = values.to_dtype(parameters[number].dtype)?;
            engine.set_values(Slot(number), &values)?;
        }
    }
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
