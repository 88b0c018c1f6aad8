//! From a checkpoint's name to its folder, which is below the root whatever the name says.

use std::path::{Path, PathBuf};

use super::ReloadError;

/// Longer names are no names.
const MAX_NAME_BYTES: usize = 512;

/// The folder that `checkpoint` names. `root` is canonical.
pub(super) fn resolve(root: &Path, checkpoint: &str) -> Result<PathBuf, ReloadError> {
    let wrong = |problem: &str| ReloadError::Name {
        checkpoint: checkpoint.chars().take(80).collect(),
        problem: problem.to_owned(),
    };
    if checkpoint.is_empty() {
        return Err(wrong("the name is empty"));
    }
    if checkpoint.len() > MAX_NAME_BYTES {
        return Err(wrong("the name is too long"));
    }
    if checkpoint.starts_with('/') {
        return Err(wrong("the name is an absolute path"));
    }
    for part in checkpoint.split('/') {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if part.is_empty() || !part.bytes().all(is_allowed) {
            return Err(wrong("a part of the name is empty or has other characters"));
        }
        if part == "." || part == ".." {
            return Err(wrong("a part of the name is a step to another folder"));
        }
    }
    let missing = || ReloadError::Missing {
        checkpoint: checkpoint.to_owned(),
    };
    // Links are followed here, once; what they lead to must be below the root.
    let folder = root
        .join(checkpoint)
        .canonicalize()
        .map_err(|_| missing())?;
    if !folder.starts_with(root) {
        return Err(wrong("the name leads out of the checkpoint root by a link"));
    }
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(missing())
    }
}
