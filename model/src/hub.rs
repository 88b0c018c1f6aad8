//! From a `--model` argument to a folder: a local path, or `org/name[@revision]` in the local
//! Hugging Face cache. No network here but in `download`, which only feature `hub` builds.

#[cfg(feature = "hub")]
pub mod download;

use std::path::{Path, PathBuf};

use hub_cache::{Kind, Missing, Repository};

use crate::error::{ModelError, Result};

pub use hub_cache::HubEnvironment;

/// The folder of `model`. A path wins over a cached model of the same name.
pub fn resolve(model: &str, environment: &HubEnvironment) -> Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let Some(repository) = Repository::parse(Kind::Model, model) else {
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
    repository
        .snapshot(&cache)
        .map_err(|what| missing(&repository, &cache, what))
}

/// A missing repository or revision in words, with how to get it.
fn missing(repository: &Repository<'_>, cache: &Path, what: Missing) -> ModelError {
    let Repository {
        organisation,
        name,
        revision,
        ..
    } = repository;
    match what {
        Missing::Repository => {
            let message = format!(
                "has no {organisation}/{name}; download it first (hf download {organisation}/{name})"
            );
            ModelError::folder(cache, message)
        }
        Missing::Revision => {
            let message = format!(
                "has no revision {revision}; download it first \
                 (hf download {organisation}/{name} --revision {revision})"
            );
            ModelError::folder(&repository.folder(cache), message)
        }
    }
}

#[cfg(test)]
mod tests;
