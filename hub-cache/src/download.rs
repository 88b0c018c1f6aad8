//! Fetches files of a repository into the Hugging Face cache, with crate `hf-hub`.

use std::path::PathBuf;

use hf_hub::{HFClient, HFError};

use super::{HubEnvironment, Kind, Repository};

/// Who asks, and whom. The caller reads the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubAccount {
    /// `HF_TOKEN`: needed for gated repositories such as Llama's.
    pub token: Option<String>,
    /// `HF_ENDPOINT`, where it is not the public hub.
    pub endpoint: Option<String>,
}

impl HubAccount {
    /// From what looks a variable up.
    pub fn read(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        Self {
            token: text("HF_TOKEN"),
            endpoint: text("HF_ENDPOINT"),
        }
    }
}

/// Why nothing was fetched; to be read after the repository's name.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("cannot be asked for: {0}")]
    Client(HFError),
    #[error("cannot be downloaded: {0}")]
    Transfer(HFError),
}

impl Repository<'_> {
    /// Fetches the files that match `patterns` and gives the snapshot's folder. Files that are there
    /// already are not fetched again.
    pub fn download(
        &self,
        patterns: Vec<String>,
        environment: &HubEnvironment,
        account: &HubAccount,
    ) -> Result<PathBuf, DownloadError> {
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
        let client = client.build_sync().map_err(DownloadError::Client)?;
        let fetched = match self.kind {
            Kind::Model => client
                .model(self.organisation, self.name)
                .snapshot_download()
                .revision(self.revision)
                .allow_patterns(patterns)
                .send(),
            Kind::Dataset => client
                .dataset(self.organisation, self.name)
                .snapshot_download()
                .revision(self.revision)
                .allow_patterns(patterns)
                .send(),
        };
        fetched.map_err(DownloadError::Transfer)
    }
}
