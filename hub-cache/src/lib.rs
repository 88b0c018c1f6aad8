//! Models and datasets in the local Hugging Face cache, by `org/name[@revision]`
//! (<https://huggingface.co/docs/hub/local-cache>). No network here but in `download`, which only
//! feature `download` builds.

#[cfg(feature = "download")]
pub mod download;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

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
    /// From what looks a variable up.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        Self {
            hf_hub_cache: path("HF_HUB_CACHE"),
            hf_home: path("HF_HOME"),
            home: path("HOME"),
        }
    }

    /// `$HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        let below = |base: &Option<PathBuf>, rest: &str| base.as_ref().map(|base| base.join(rest));
        self.hf_hub_cache
            .clone()
            .or_else(|| below(&self.hf_home, "hub"))
            .or_else(|| below(&self.home, ".cache/huggingface/hub"))
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Model,
    Dataset,
}

/// `org/name[@revision]`, every part of it a plain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repository<'a> {
    pub kind: Kind,
    pub organisation: &'a str,
    pub name: &'a str,
    /// A branch, a tag or a commit; `main` where none is named.
    pub revision: &'a str,
}

/// What the cache lacks of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// All of it.
    Repository,
    /// The revision.
    Revision,
}

/// Whether this is one name: it cannot walk out of the folder that it is joined to.
pub fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
}

impl<'a> Repository<'a> {
    pub fn parse(kind: Kind, text: &'a str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, name) = repository.split_once('/')?;
        // A branch may have slashes: refs/pr/1.
        let is_name = is_plain(organisation) && is_plain(name) && revision.split('/').all(is_plain);
        is_name.then_some(Self {
            kind,
            organisation,
            name,
            revision,
        })
    }

    /// Its folder in the cache, whether it is there or not.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        cache.join(format!("{kind}--{}--{}", self.organisation, self.name))
    }

    /// The folder of the revision's files. A branch or tag is a file in `refs` that holds a commit; a
    /// commit is a folder in `snapshots`.
    pub fn snapshot(&self, cache: &Path) -> Result<PathBuf, Missing> {
        let repository = self.folder(cache);
        if !repository.is_dir() {
            return Err(Missing::Repository);
        }
        let commit = match std::fs::read_to_string(repository.join("refs").join(self.revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => self.revision.to_owned(),
        };
        let snapshot = repository.join("snapshots").join(&commit);
        let is_commit = commit.chars().all(|c| c.is_ascii_alphanumeric());
        (is_commit && snapshot.is_dir())
            .then_some(snapshot)
            .ok_or(Missing::Revision)
    }
}

#[cfg(test)]
mod tests;
