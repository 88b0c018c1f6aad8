//! Fetches a split's files into the Hugging Face cache, with crate `hf-hub`.

use std::path::{Path, PathBuf};

use hf_hub::HFClient;

use super::{DatasetName, EXTENSIONS, HubEnvironment, locate};
use crate::error::ClientError;

/// Who asks, and whom. The caller reads the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubAccount {
    /// `HF_TOKEN`: needed for gated datasets.
    pub token: Option<String>,
    /// `HF_ENDPOINT`, where it is not the public hub.
    pub endpoint: Option<String>,
}

/// [`locate`]; where the cache lacks the split, it is downloaded first.
pub fn locate_or_download(
    argument: &Path,
    environment: &HubEnvironment,
    account: &HubAccount,
) -> Result<PathBuf, ClientError> {
    let found = locate(argument, environment);
    match argument.to_str().and_then(DatasetName::parse) {
        Some(name) if found.is_err() => {
            name.download(environment, account)?;
            locate(argument, environment)
        }
        _ => found,
    }
}

impl DatasetName<'_> {
    fn download(
        &self,
        environment: &HubEnvironment,
        account: &HubAccount,
    ) -> Result<(), ClientError> {
        let failed = |problem: String| ClientError::Usage(format!("{self} {problem}"));
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
            .dataset(self.organisation, self.name)
            .snapshot_download()
            .revision(self.revision)
            .allow_patterns(self.patterns())
            .send()
            .map_err(|error| failed(format!("cannot be downloaded: {error}")))?;
        Ok(())
    }

    /// What belongs to the split, and nothing else of the dataset.
    pub(super) fn patterns(&self) -> Vec<String> {
        let mut patterns = Vec::new();
        for folder in self.folders() {
            let slash = if folder.is_empty() { "" } else { "/" };
            for extension in EXTENSIONS {
                for rest in ["", "-0*"] {
                    patterns.push(format!("{folder}{slash}{}{rest}.{extension}", self.split));
                }
            }
        }
        patterns
    }
}
