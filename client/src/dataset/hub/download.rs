//! Fetches a split's files into the Hugging Face cache.

use std::path::{Path, PathBuf};

pub use hub_cache::download::HubAccount;

use super::{DatasetName, EXTENSIONS, HubEnvironment, locate};
use crate::error::ClientError;

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
        self.repository
            .download(self.patterns(), environment, account)
            .map_err(|error| ClientError::Usage(format!("{self} {error}")))?;
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
