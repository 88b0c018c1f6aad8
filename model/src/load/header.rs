//! What stands before the values: the index of a folder of several files, and the header of each file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use safetensors::tensor::Metadata;

use crate::error::{ModelError, Result};

/// As in the safetensors library: a longer header is a broken or hostile file.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Tensor name to file name.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(path).map_err(ModelError::io(path, "read"))?;
    let index: Index = serde_json::from_str(&text).map_err(|source| ModelError::Json {
        path: path.to_path_buf(),
        source,
    })?;
    // A name with a slash would reach out of the folder.
    match index
        .weight_map
        .values()
        .find(|file| !crate::manifest::is_plain_name(file))
    {
        None => Ok(index.weight_map),
        Some(file) => {
            let expected = "names of files in the folder";
            Err(ModelError::value(
                path,
                "weight_map",
                expected,
                file.clone(),
            ))
        }
    }
}

/// The place where the data begins, and the checked header: offsets without gaps or overlaps that
/// fit shapes, and end where the file ends.
pub(super) fn read_header(path: &Path, file: &mut File) -> Result<(u64, Metadata)> {
    let broken = |message: String| ModelError::folder(path, message);
    let file_bytes = file
        .metadata()
        .map_err(ModelError::io(path, "inspect"))?
        .len();
    let mut length = [0; 8];
    let truncated = || broken(format!("not a safetensors file: only {file_bytes} bytes"));
    if file_bytes < 8 {
        return Err(truncated());
    }
    file.read_exact(&mut length)
        .map_err(ModelError::io(path, "read"))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(broken(format!(
            "not a safetensors file: a header of {header_bytes} bytes"
        )));
    }
    if header_bytes + 8 > file_bytes {
        return Err(truncated());
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header)
        .map_err(ModelError::io(path, "read"))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| broken(format!("not a safetensors file: broken header: {error}")))?;
    let data_start = 8 + header_bytes;
    let expected = data_start + metadata.data_len() as u64;
    if expected != file_bytes {
        return Err(broken(format!(
            "incomplete or damaged: expected {expected} bytes, found {file_bytes}"
        )));
    }
    Ok((data_start, metadata))
}
