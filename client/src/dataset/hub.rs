//! From a dataset argument to a file: a path, or `org/name[@revision]:[config/]split` in the local
//! Hugging Face cache. No network here but in `download`, which only feature `hub` builds.

#[cfg(feature = "hub")]
pub mod download;

use std::path::{Path, PathBuf};

use hub_cache::{Kind, Missing, Repository, is_plain};

pub use hub_cache::HubEnvironment;

use crate::error::{ClientError, file_error};

/// What a split's file may be; the first kind that is there is taken.
const EXTENSIONS: [&str; 3] = ["parquet", "jsonl", "json"];

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
    repository: Repository<'a>,
    config: Option<&'a str>,
    split: &'a str,
}

impl<'a> DatasetName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (repository, part) = text.split_once(':')?;
        let repository = Repository::parse(Kind::Dataset, repository)?;
        let (config, split) = match part.split_once('/') {
            Some((config, split)) => (Some(config), split),
            None => (None, part),
        };
        let is_name = is_plain(split) && config.is_none_or(is_plain);
        is_name.then_some(Self {
            repository,
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

    fn snapshot(&self, cache: &Path) -> Result<PathBuf, ClientError> {
        self.repository.snapshot(cache).map_err(|missing| {
            let what = match missing {
                Missing::Repository => "has no such dataset".to_owned(),
                Missing::Revision => format!("has no revision {} of it", self.repository.revision),
            };
            let cache = cache.display();
            ClientError::Usage(format!(
                "{self} is no file, and {cache} {what}; {}",
                self.advice()
            ))
        })
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
        let Repository {
            organisation,
            name,
            revision,
            ..
        } = self.repository;
        let command = format!("hf download --repo-type dataset {organisation}/{name}");
        match revision {
            "main" => format!("download it first ({command})"),
            revision => format!("download it first ({command} --revision {revision})"),
        }
    }
}

impl std::fmt::Display for DatasetName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let repository = self.repository;
        write!(f, "{}/{}", repository.organisation, repository.name)?;
        if repository.revision != "main" {
            write!(f, "@{}", repository.revision)?;
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
