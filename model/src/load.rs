//! Reads the weights of a checkpoint folder: one safetensors file, or several with an index. Exactly
//! the tensors the config asks for, every value finite. Files are read, never mapped: a mapped file
//! that is cut short or replaced kills the process, and a checkpoint folder is on a shared disk.

mod header;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::tensor::Dtype;

use self::header::{read_header, read_index};
use crate::config::LlamaConfig;
use crate::dtype::StoredDtype;
use crate::error::{ModelError, Result};
use crate::weights::{EMBED, LM_HEAD, TensorSpec, Weights, WeightsHasher, tensor_specs};

/// Where one tensor lies.
#[derive(Debug)]
struct Location {
    file: usize,
    dtype: StoredDtype,
    shape: Vec<usize>,
    /// Absolute, in the file.
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Checkpoint {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Location>,
}

/// All weights of `config` from `dir`, converted to `dtype`, on the CPU. Holds one stored tensor in
/// memory besides the result.
pub(crate) fn load_weights(dir: &Path, config: &LlamaConfig, dtype: DType) -> Result<Weights> {
    let mut reader = TensorReader::open(dir, config)?;
    let tensors = reader.by_ref().map(|tensor| {
        let (spec, values) = tensor?;
        Ok(Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?)
    });
    let mut weights = Weights::from_tensors(config, tensors)?;
    weights.stored_digest = Some(reader.digest());
    Ok(weights)
}

/// The tensors of a checked checkpoint, one after another in [`tensor_specs`]' order; holds one
/// stored tensor in memory at a time.
#[derive(Debug)]
pub struct TensorReader {
    checkpoint: Checkpoint,
    specs: std::vec::IntoIter<TensorSpec>,
    hasher: WeightsHasher,
    bytes: Vec<u8>,
}

impl TensorReader {
    /// Refuses a checkpoint that is not `config`'s before the first value is read.
    pub fn open(dir: &Path, config: &LlamaConfig) -> Result<Self> {
        let mut checkpoint = Checkpoint::open(dir)?;
        let specs = tensor_specs(config);
        checkpoint.check_names(dir, config, &specs)?;
        for spec in &specs {
            checkpoint.check_shape(spec)?;
        }
        if config.tie_word_embeddings && checkpoint.tensors.contains_key(LM_HEAD) {
            checkpoint.check_tied_head(&specs[0])?;
        }
        Ok(Self {
            checkpoint,
            specs: specs.into_iter(),
            hasher: WeightsHasher::default(),
            bytes: Vec::new(),
        })
    }

    fn read(&mut self, spec: &TensorSpec) -> Result<Vec<f32>> {
        self.checkpoint.read(&spec.name, &mut self.bytes)?;
        let (path, location) = self.checkpoint.locate(&spec.name);
        self.hasher.start(&spec.name, &spec.shape, location.dtype);
        let (hasher, bytes) = (&mut self.hasher, &self.bytes);
        // Hashing is the longest part of loading, and has one thread.
        let ((), values) = rayon::join(
            || hasher.bytes(bytes),
            || {
                let values = location.dtype.decode(bytes);
                check_finite(path, &spec.name, &values).map(|()| values)
            },
        );
        values
    }

    /// Of what the files hold (see [`Weights::digest`]), once all tensors were read.
    ///
    /// # Panics
    /// Before that.
    pub fn digest(self) -> String {
        assert!(self.specs.len() == 0, "the digest is that of all tensors");
        self.hasher.finish()
    }
}

/// The next tensor's finite values in f32.
impl Iterator for TensorReader {
    type Item = Result<(TensorSpec, Vec<f32>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let spec = self.specs.next()?;
        Some(self.read(&spec).map(|values| (spec, values)))
    }
}

fn check_finite(path: &Path, name: &str, values: &[f32]) -> Result<()> {
    match values.par_iter().position_first(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => {
            let found = format!("{} at index {index}", values[index]);
            Err(ModelError::tensor(path, name, "finite values", found))
        }
    }
}

impl Checkpoint {
    fn open(dir: &Path) -> Result<Self> {
        let index_path = dir.join("model.safetensors.index.json");
        let single_path = dir.join("model.safetensors");
        let index = if index_path.exists() {
            Some(read_index(&index_path)?)
        } else {
            None
        };
        let names: BTreeSet<&str> = match &index {
            Some(index) => index.values().map(String::as_str).collect(),
            None if single_path.exists() => BTreeSet::from(["model.safetensors"]),
            None => return Err(ModelError::folder(dir, no_weights_message(dir))),
        };
        let mut checkpoint = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for name in names {
            checkpoint.open_file(&dir.join(name))?;
        }
        if let Some(index) = index {
            checkpoint.check_index(&index_path, &index)?;
        }
        Ok(checkpoint)
    }

    fn open_file(&mut self, path: &Path) -> Result<()> {
        let mut file = File::open(path).map_err(ModelError::io(path, "open"))?;
        let (data_start, metadata) = read_header(path, &mut file)?;
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::BF16 => StoredDtype::Bf16,
                Dtype::F16 => StoredDtype::F16,
                Dtype::F32 => StoredDtype::F32,
                other => {
                    let expected = "BF16, F16 or F32";
                    return Err(ModelError::tensor(
                        path,
                        &name,
                        expected,
                        format!("{other:?}"),
                    ));
                }
            };
            let location = Location {
                file: self.files.len(),
                dtype,
                shape: info.shape.clone(),
                start: data_start + info.data_offsets.0 as u64,
                end: data_start + info.data_offsets.1 as u64,
            };
            if let Some(other) = self.tensors.insert(name.clone(), location) {
                let found = format!("another in {}", self.files[other.file].0.display());
                return Err(ModelError::tensor(
                    path,
                    &name,
                    "one tensor of this name",
                    found,
                ));
            }
        }
        self.files.push((path.to_path_buf(), file));
        Ok(())
    }

    /// The index and the files must tell the same.
    fn check_index(&self, path: &Path, index: &BTreeMap<String, String>) -> Result<()> {
        for (name, file) in index {
            let found = self
                .tensors
                .get(name)
                .map(|location| &self.files[location.file].0);
            if found.and_then(|path| path.file_name()) != Some(std::ffi::OsStr::new(file)) {
                let found =
                    found.map_or("none".to_owned(), |path| format!("in {}", path.display()));
                return Err(ModelError::tensor(
                    path,
                    name,
                    format!("a tensor in {file}"),
                    found,
                ));
            }
        }
        match self
            .tensors
            .iter()
            .find(|(name, _)| !index.contains_key(*name))
        {
            None => Ok(()),
            Some((name, location)) => {
                let found = format!("only in {}", self.files[location.file].0.display());
                Err(ModelError::tensor(
                    path,
                    name,
                    "an entry in weight_map",
                    found,
                ))
            }
        }
    }

    /// Exactly the tensors of `specs`, but for a stored copy of a tied head and for the frequency
    /// buffers that old checkpoints carry and that follow from the config.
    fn check_names(&self, dir: &Path, config: &LlamaConfig, specs: &[TensorSpec]) -> Result<()> {
        if let Some(spec) = specs
            .iter()
            .find(|spec| !self.tensors.contains_key(&spec.name))
        {
            let path = match self.files.as_slice() {
                [(path, _)] => path.as_path(),
                _ => dir,
            };
            let expected = format!("shape {:?}", spec.shape);
            return Err(ModelError::tensor(
                path,
                &spec.name,
                expected,
                "no such tensor",
            ));
        }
        let wanted: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let harmless = |name: &str| {
            (name == LM_HEAD && config.tie_word_embeddings)
                || name.ends_with(".self_attn.rotary_emb.inv_freq")
        };
        match self
            .tensors
            .iter()
            .find(|(name, _)| !wanted.contains(name.as_str()) && !harmless(name))
        {
            None => Ok(()),
            Some((name, location)) => {
                let expected = format!("only the tensors config.json asks for ({})", specs.len());
                let found = format!("one more, of shape {:?}", location.shape);
                Err(ModelError::tensor(
                    &self.files[location.file].0,
                    name,
                    expected,
                    found,
                ))
            }
        }
    }

    fn check_shape(&self, spec: &TensorSpec) -> Result<()> {
        let (path, location) = self.locate(&spec.name);
        if location.shape == spec.shape {
            return Ok(());
        }
        let expected = format!("shape {:?} (by config.json)", spec.shape);
        let found = format!("{:?}", location.shape);
        Err(ModelError::tensor(path, &spec.name, expected, found))
    }

    /// A head stored although config.json ties it must be the embedding, or one of the two would be
    /// dropped in silence.
    fn check_tied_head(&mut self, embed: &TensorSpec) -> Result<()> {
        self.check_shape(&TensorSpec {
            name: LM_HEAD.to_owned(),
            shape: embed.shape.clone(),
        })?;
        let (mut head_bytes, mut embed_bytes) = (Vec::new(), Vec::new());
        self.read(LM_HEAD, &mut head_bytes)?;
        self.read(EMBED, &mut embed_bytes)?;
        let (path, head) = self.locate(LM_HEAD);
        let (_, embed) = self.locate(EMBED);
        if head.dtype == embed.dtype && head_bytes == embed_bytes {
            return Ok(());
        }
        let expected = "the same values as model.embed_tokens.weight (tie_word_embeddings is true)";
        Err(ModelError::tensor(path, LM_HEAD, expected, "other values"))
    }

    fn locate(&self, name: &str) -> (&Path, &Location) {
        let location = &self.tensors[name];
        (&self.files[location.file].0, location)
    }

    fn read(&mut self, name: &str, bytes: &mut Vec<u8>) -> Result<()> {
        let location = &self.tensors[name];
        let (path, file) = &mut self.files[location.file];
        bytes.resize((location.end - location.start) as usize, 0);
        file.seek(SeekFrom::Start(location.start))
            .map_err(ModelError::io(path, "seek"))?;
        file.read_exact(bytes).map_err(ModelError::io(path, "read"))
    }
}

fn no_weights_message(dir: &Path) -> String {
    let names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let has = |extensions: &[&str]| {
        let extension = |name: &String| Path::new(name).extension()?.to_str().map(str::to_owned);
        names
            .iter()
            .any(|n| extension(n).is_some_and(|e| extensions.contains(&e.as_str())))
    };
    if has(&["bin", "pt", "pth"]) {
        return "has PyTorch weights (.bin, .pt), which can carry code and are not read; convert them \
                with transformers' save_pretrained, which writes safetensors"
            .to_owned();
    }
    if has(&["gguf"]) {
        return "has GGUF weights, which are not read; expected safetensors".to_owned();
    }
    "has neither model.safetensors nor model.safetensors.index.json".to_owned()
}

#[cfg(test)]
mod tests;
