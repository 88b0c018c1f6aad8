//! Fetches a model's files into the Hugging Face cache, with crate `hf-hub`. Weights only as
//! safetensors: a `.bin` or `.pt` file can carry code.

use std::path::PathBuf;

use hf_hub::HFClient;

use super::{HubEnvironment, HubName};
use crate::error::{ModelError, Result};

/// What a model folder is made of; nothing else is fetched.
const FILES: [&str; 5] = [
    "*.json",
    "*.jinja",
    "*.safetensors",
    "LICENSE*",
    "USE_POLICY*",
];

/// Who asks, and whom. The caller reads the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubAccount {
    /// `HF_TOKEN`: needed for gated models such as Llama.
    pub token: Option<String>,
    /// `HF_ENDPOINT`, where it is not the public hub.
    pub endpoint: Option<String>,
}

/// Downloads `org/name[@revision]` into the cache and returns its snapshot folder. Files that are
/// there already are not fetched again.
pub fn download(
    model: &str,
    environment: &HubEnvironment,
    account: &HubAccount,
) -> Result<PathBuf> {
    let failed = |message: String| ModelError::folder(model.as_ref(), message);
    let name = HubName::parse(model)
        .ok_or_else(|| failed("is neither a folder nor org/name[@revision]".to_owned()))?;
    let mut client = HFClient::builder();
    if let Some(cache) = environment.cache_dir() {
        client = client.cache_dir(cache);
    }
    if let Some(token) = &account.token {
        client = client.token(token);
    }
    if let Some(endpoint) = &account.endpoint {
        client = client.endpoint(endpoint);
    }
    let client = client
        .build_sync()
        .map_err(|error| failed(format!("cannot be asked for: {error}")))?;
    client
        .model(name.organisation, name.name)
        .snapshot_download()
        .revision(name.revision)
        .allow_patterns(FILES.map(str::to_owned).to_vec())
        .send()
        .map_err(|error| failed(format!("cannot be downloaded: {error}")))
}
