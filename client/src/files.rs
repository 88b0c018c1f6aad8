//! Small files that are whole or absent: written beside, flushed, renamed.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::error::{ClientError, file_error};

/// Creates a folder and those above it.
pub fn create_folder(path: &Path) -> Result<(), ClientError> {
    fs::create_dir_all(path).map_err(file_error("create the folder", path))
}

/// Replaces a file as a whole; a crash leaves the old one or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
    let beside = beside(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // Makes the new name durable; a folder that cannot be opened for it still has the file.
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(file_error("write", path))
}

/// [`write_atomic`], unless the file has these bytes already.
#[cfg(feature = "embedded")]
pub(crate) fn write_if_other(path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
    if fs::read(path).ok().as_deref() == Some(bytes) {
        return Ok(());
    }
    write_atomic(path, bytes)
}

/// Writes pretty JSON with a final newline.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ClientError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|cause| ClientError::BadFile {
        path: path.to_owned(),
        problem: format!("it cannot be written as JSON: {cause}"),
    })?;
    bytes.push(b'\n');
    write_atomic(path, &bytes)
}

/// One JSON object a line; `path` only names the file in errors.
pub fn to_jsonl<T: Serialize>(records: &[T], path: &Path) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    for record in records {
        serde_json::to_writer(&mut bytes, record).map_err(|cause| ClientError::BadFile {
            path: path.to_owned(),
            problem: format!("a record cannot be written as JSON: {cause}"),
        })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Reads JSON; `None` where there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ClientError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file_error("read", path)(cause)),
    };
    let value = serde_json::from_slice(&bytes).map_err(|cause| ClientError::BadFile {
        path: path.to_owned(),
        problem: cause.to_string(),
    })?;
    Ok(Some(value))
}

/// Reads JSON that must be there.
pub fn require_json<T: DeserializeOwned>(path: &Path) -> Result<T, ClientError> {
    read_json(path)?
        .ok_or_else(|| file_error("read", path)(std::io::Error::other("there is no such file")))
}

/// SHA-256 of a file's bytes, hexadecimal.
pub fn sha256_of_file(path: &Path) -> Result<String, ClientError> {
    let bytes = fs::read(path).map_err(file_error("read", path))?;
    Ok(sha256_hex(&bytes))
}

/// SHA-256 of bytes, hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read back, and no half file stays beside it.
    #[test]
    fn json_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2]).unwrap();
        write_json(&path, &vec![3]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// A file that is no JSON is named with its problem.
    #[test]
    fn bad_json_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, "{").unwrap();
        let error = require_json::<Vec<u32>>(&path).unwrap_err().to_string();
        assert!(
            error.contains("a.json") && error.contains("line 1"),
            "{error}"
        );
        let error = require_json::<Vec<u32>>(&dir.path().join("b.json"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("b.json"), "{error}");
    }
}
