//! Fetches a model's files into the Hugging Face cache. Weights only as safetensors: a `.bin` or `.pt`
//! file can carry code.

use std::path::PathBuf;

use hub_cache::{Kind, Repository};

pub use hub_cache::download::HubAccount;

use super::HubEnvironment;
use crate::error::{ModelError, Result};

/// What a model folder is made of; nothing else is fetched.
const FILES: [&str; 5] = [
    "*.json",
    "*.jinja",
    "*.safetensors",
    "LICENSE*",
    "USE_POLICY*",
];

/// Downloads `org/name[@revision]` into the cache and returns its snapshot folder. Files that are
/// there already are not fetched again.
pub fn download(
    model: &str,
    environment: &HubEnvironment,
    account: &HubAccount,
) -> Result<PathBuf> {
    let failed = |message: String| ModelError::folder(model.as_ref(), message);
    let repository = Repository::parse(Kind::Model, model)
        .ok_or_else(|| failed("is neither a folder nor org/name[@revision]".to_owned()))?;
    repository
        .download(FILES.map(str::to_owned).to_vec(), environment, account)
        .map_err(|error| failed(error.to_string()))
}
