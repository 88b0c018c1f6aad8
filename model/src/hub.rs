//! From a `--model` argument to a folder: a local path, or `org/name[@revision]` in the local
//! Hugging Face cache (<https://huggingface.co/docs/hub/local-cache>). No network here but in
//! `download`, which only feature `hub` builds.

#[cfg(feature = "hub")]
pub mod download;

use std::path::{Path, PathBuf};

use crate::error::{ModelError, Result};

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
        self.hf_hub_cache
            .clone()
            .or_else(|| self.hf_home.as_ref().map(|home| home.join("hub")))
            .or_else(|| {
                self.home
                    .as_ref()
                    .map(|home| home.join(".cache/huggingface/hub"))
            })
    }
}

/// The folder of `model`. A path wins over a cached model of the same name.
pub fn resolve(model: &str, environment: &HubEnvironment) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let Some(name) = HubName::parse(model) else {
        let message = if path.exists() {
            "is not a folder"
        } else {
            "does not exist"
        };
        return Err(ModelError::folder(path, message));
    };
    let Some(cache) = environment.cache_dir() else {
        let message =
            "is no folder, and there is no Hugging Face cache to look it up in (HOME is not set)";
        return Err(ModelError::folder(path, message));
    };
    name.snapshot(&cache)
}

/// `org/name[@revision]`, every part of it a plain name.
struct HubName<'a> {
    organisation: &'a str,
    name: &'a str,
    revision: &'a str,
}

impl<'a> HubName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (model, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, name) = model.split_once('/')?;
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
        };
        // A branch may have slashes: refs/pr/1.
        let revision_is_plain = revision.split('/').all(plain);
        (plain(organisation) && plain(name) && revision_is_plain).then_some(Self {
            organisation,
            name,
            revision,
        })
    }

    /// A branch or tag is a file in `refs` that holds a commit; a commit is a folder in `snapshots`.
    fn snapshot(&self, cache: &Path) -> Result<PathBuf> {
        let Self {
            organisation,
            name,
            revision,
        } = self;
        let repository = cache.join(format!("models--{organisation}--{name}"));
        if !repository.is_dir() {
            let message = format!(
                "has no {organisation}/{name}; download it first (hf download {organisation}/{name})"
            );
            return Err(ModelError::folder(cache, message));
        }
        let commit = match std::fs::read_to_string(repository.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => (*revision).to_owned(),
        };
        let snapshot = repository.join("snapshots").join(&commit);
        let is_plain = commit.chars().all(|c| c.is_ascii_alphanumeric());
        if is_plain && snapshot.is_dir() {
            return Ok(snapshot);
        }
        let message = format!(
            "has no revision {revision}; download it first \
             (hf download {organisation}/{name} --revision {revision})"
        );
        Err(ModelError::folder(&repository, message))
    }
}

#[cfg(test)]
mod tests;
