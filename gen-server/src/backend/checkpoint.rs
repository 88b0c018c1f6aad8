//! What holds for checkpoint folders whatever computes them: the one that is served at the start, and those
//! that are swapped in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::{
    ModelError,
    config::LlamaConfig,
    folder::ModelFolder,
    manifest::{self, Manifest},
    tokenizer::{ModelTokenizer, TokenizerOptions},
};

use super::{LoadError, ModelInfo};
use crate::{config::ServerConfig, error::ServerError};

/// The served model's folder and tokenizer, verified.
pub(super) fn open(config: &ServerConfig) -> Result<(ModelFolder, ModelTokenizer), ServerError> {
    let dir = &config.model_dir;
    let folder = ModelFolder::open(dir)?;
    verify_manifest(dir, None).map_err(|error| folder_error(dir, error))?;
    let mut options = TokenizerOptions {
        template: config.chat_template.clone(),
        ..Default::default()
    };
    if let Some(date) = &config.template_date {
        options.template_date.clone_from(date);
    }
    let tokenizer = ModelTokenizer::load_with(dir, &options)?;
    Ok((folder, tokenizer))
}

/// What is told about the model; `dtype` is that of the computation.
pub(super) fn model_info(folder: &ModelFolder, dtype: String) -> ModelInfo {
    ModelInfo {
        architecture: "LlamaForCausalLM".to_owned(),
        num_parameters: folder.config.num_parameters() as u64,
        dtype,
        vocab_size: folder.config.vocab_size as u32,
        eos_token_ids: folder.generation.eos_token_ids.clone(),
    }
}

pub(super) fn folder_name(dir: &Path) -> String {
    let canonical = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    canonical
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What a checkpoint must share with the served model.
#[derive(Debug)]
pub(super) struct Served {
    pub config: LlamaConfig,
    pub tokenizer_digest: String,
}

impl Served {
    /// The folder is whole, and of the same architecture and tokenizer.
    pub(super) fn check(
        &self,
        folder: &Path,
        expected_manifest_sha256: Option<&str>,
    ) -> Result<(), LoadError> {
        verify_manifest(folder, expected_manifest_sha256)?;
        let opened = ModelFolder::open(folder).map_err(unusable)?;
        if let Some((key, served, found)) = self.config.architecture_difference(&opened.config) {
            let message = format!("config.json: {key}: expected {served}, found {found}");
            return Err(LoadError::OtherArchitecture(message));
        }
        self.check_tokenizer(&folder.join("tokenizer.json"))
    }

    /// Ids mean the same under all weights. A checkpoint may come without a tokenizer.
    fn check_tokenizer(&self, file: &Path) -> Result<(), LoadError> {
        if !file.exists() {
            return Ok(());
        }
        let found = manifest::file_sha256(file).map_err(unusable)?;
        if found == self.tokenizer_digest {
            return Ok(());
        }
        Err(LoadError::OtherArchitecture(format!(
            "tokenizer.json: expected the served one, sha256 {}, found {found}",
            self.tokenizer_digest
        )))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unusable(error: ModelError) -> LoadError {
    LoadError::Unusable(error.to_string())
}

/// Loaded weights whose logits are not what logits are.
pub(super) fn does_not_work(problem: &str) -> LoadError {
    LoadError::Unusable(format!("the new weights do not work: {problem}"))
}

fn folder_error(dir: &Path, error: LoadError) -> ServerError {
    let (LoadError::Manifest(message)
    | LoadError::OtherArchitecture(message)
    | LoadError::Unusable(message)) = error;
    ServerError::Model(ModelError::Folder {
        path: dir.to_path_buf(),
        message,
    })
}

/// A folder with a manifest must be as it says; one that is expected must be there.
fn verify_manifest(folder: &Path, expected_sha256: Option<&str>) -> Result<(), LoadError> {
    let wrong = |error: ModelError| LoadError::Manifest(error.to_string());
    let file: PathBuf = folder.join(manifest::FILE_NAME);
    if let Some(expected) = expected_sha256 {
        if !fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
            return Err(LoadError::Manifest(
                "the folder has no manifest.json, but one was expected".to_owned(),
            ));
        }
        let found = manifest::file_sha256(&file).map_err(wrong)?;
        if !found.eq_ignore_ascii_case(expected) {
            return Err(LoadError::Manifest(format!(
                "manifest.json: expected sha256 {expected}, found {found}"
            )));
        }
    }
    match Manifest::read(folder).map_err(wrong)? {
        Some(manifest) => manifest.verify(folder).map_err(wrong),
        None => Ok(()),
    }
}
