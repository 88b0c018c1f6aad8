//! From a dataset argument to a file: a path, or `org/name[@revision]:[config/]split` in the local
//! Hugging Face cache (<https://huggingface.co/docs/hub/local-cache>). No network here but in
//! `download`, which only feature `hub` builds.

#[cfg(feature = "hub")]
pub mod download;

use std::path::{Path, PathBuf};

use crate::error::{ClientError, file_error};

/// What a split's file may be; the first kind that is there is taken.
const EXTENSIONS: [&str; 3] = ["parquet", "jsonl", "json"];

/// The values of the environment that say where the cache is; the caller reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubEnvironment {
    /// `HF_HUB_CACHE`
    pub hf_hub_cache: Option<PathBuf>,
    /// `HF_HOME`
    pub hf_home: Option<PathBuf>,
    /// `HOME`
    pub home: Option<PathBuf>,
}

impl HubEnvironment {
    /// `$HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        let below = |base: &Option<PathBuf>, rest: &str| base.as_ref().map(|base| base.join(rest));
        self.hf_hub_cache
            .clone()
            .or_else(|| below(&self.hf_home, "hub"))
            .or_else(|| below(&self.home, ".cache/huggingface/hub"))
    }
}

/// The file that an argument names. A path wins over a cached dataset of the same name; what is no
/// name either comes back as it is, for the reader to say what is wrong with it.
pub fn locate(argument: &Path, environment: &HubEnvironment) -> Result<PathBuf, ClientError> {
    let name = argument.to_str().and_then(DatasetName::parse);
    match name {
        Some(name) if !argument.exists() => name.find(environment),
        None if !argument.exists() && is_repository(argument) => {
            let argument = argument.display();
            Err(ClientError::Usage(format!(
                "{argument} is no file; a dataset of the Hugging Face cache is named with its split, \
                 {argument}:SPLIT or {argument}:CONFIG/SPLIT, as in openai/gsm8k:main/test"
            )))
        }
        _ => Ok(argument.to_path_buf()),
    }
}

/// Whether this may be meant as `org/name` without a split.
fn is_repository(argument: &Path) -> bool {
    let text = argument.to_str().unwrap_or_default();
    argument.extension().is_none() && DatasetName::parse(&format!("{text}:test")).is_some()
}

/// `org/name[@revision]:[config/]split`, every part of it a plain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatasetName<'a> {
    organisation: &'a str,
    name: &'a str,
    revision: &'a str,
    config: Option<&'a str>,
    split: &'a str,
}

impl<'a> DatasetName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (repository, part) = text.split_once(':')?;
        let (repository, revision) = repository.split_once('@').unwrap_or((repository, "main"));
        let (organisation, name) = repository.split_once('/')?;
        let (config, split) = match part.split_once('/') {
            Some((config, split)) => (Some(config), split),
            None => (None, part),
        };
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
        };
        let parts = [organisation, name, split, config.unwrap_or("default")];
        // A branch may have slashes: refs/convert/parquet.
        let is_name = parts.into_iter().all(plain) && revision.split('/').all(plain);
        is_name.then_some(Self {
            organisation,
            name,
            revision,
            config,
            split,
        })
    }

    /// Folders of a snapshot that may hold the split.
    fn folders(&self) -> Vec<&'a str> {
        match self.config {
            Some(config) => vec![config],
            None => vec!["data", ""],
        }
    }

    fn find(&self, environment: &HubEnvironment) -> Result<PathBuf, ClientError> {
        let Some(cache) = environment.cache_dir() else {
            return Err(ClientError::Usage(format!(
                "{self} is no file, and there is no Hugging Face cache to look it up in (HOME is \
                 not set)"
            )));
        };
        let snapshot = self.snapshot(&cache)?;
        let mut found = Vec::new();
        for folder in self.folders() {
            found.extend(self.files(&snapshot.join(folder))?);
        }
        let first_kind = EXTENSIONS.into_iter().find_map(|extension| {
            let is_kind = |path: &&PathBuf| path.extension().is_some_and(|it| it == extension);
            let files: Vec<&PathBuf> = found.iter().filter(is_kind).collect();
            (!files.is_empty()).then_some(files)
        });
        match first_kind.as_deref() {
            Some([file]) => Ok((*file).clone()),
            Some(files) => Err(ClientError::Usage(format!(
                "{self} is {} files in {}: give one file, or all of them joined, by its path",
                files.len(),
                snapshot.display()
            ))),
            None => Err(ClientError::Usage(format!(
                "{self}: {} holds no such split{}; {}",
                snapshot.display(),
                self.config.map_or("", |_| " of this configuration"),
                self.advice()
            ))),
        }
    }

    /// A branch or tag is a file in `refs` that holds a commit; a commit is a folder in `snapshots`.
    fn snapshot(&self, cache: &Path) -> Result<PathBuf, ClientError> {
        let (organisation, name) = (self.organisation, self.name);
        let repository = cache.join(format!("datasets--{organisation}--{name}"));
        let missing = |what: &str| {
            ClientError::Usage(format!(
                "{self} is no file, and {} {what}; {}",
                cache.display(),
                self.advice()
            ))
        };
        if !repository.is_dir() {
            return Err(missing("has no such dataset"));
        }
        let commit = match std::fs::read_to_string(repository.join("refs").join(self.revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => self.revision.to_owned(),
        };
        let snapshot = repository.join("snapshots").join(&commit);
        let is_plain = commit.chars().all(|c| c.is_ascii_alphanumeric());
        if is_plain && snapshot.is_dir() {
            return Ok(snapshot);
        }
        Err(missing(&format!("has no revision {} of it", self.revision)))
    }

    /// `test.jsonl` and `test-00000-of-00001.parquet` are files of split `test`.
    fn files(&self, folder: &Path) -> Result<Vec<PathBuf>, ClientError> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(file_error("list", folder)(cause)),
        };
        let is_split = |path: &PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let rest = stem.and_then(|stem| stem.strip_prefix(self.split));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("-0"))
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<PathBuf> = paths.filter(is_split).collect();
        files.sort();
        Ok(files)
    }

    fn advice(&self) -> String {
        let (organisation, name) = (self.organisation, self.name);
        let command = format!("hf download --repo-type dataset {organisation}/{name}");
        match self.revision {
            "main" => format!("download it first ({command})"),
            revision => format!("download it first ({command} --revision {revision})"),
        }
    }
}

impl std::fmt::Display for DatasetName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        write!(f, ":")?;
        if let Some(config) = self.config {
            write!(f, "{config}/")?;
        }
        f.write_str(self.split)
    }
}

#[cfg(test)]
mod tests;
