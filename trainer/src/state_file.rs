//! Flat f32 arrays in one safetensors file, written and read array by array, so that neither
//! direction ever holds a second copy of the optimizer's state.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Bytes converted at a time.
const CHUNK_VALUES: usize = 1 << 16;
/// A header of a million tensors is below this.
const MAX_HEADER_BYTES: u64 = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Writes the arrays in the order given and syncs the file.
pub fn write_arrays(path: &Path, arrays: &[(String, &[f32])]) -> Result<()> {
    let mut header = BTreeMap::new();
    let mut offset = 0;
    for (name, values) in arrays {
        let end = offset + 4 * values.len() as u64;
        let entry = Entry {
            dtype: "F32".to_string(),
            shape: vec![values.len()],
            data_offsets: [offset, end],
        };
        header.insert(name.as_str(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header).expect("strings and numbers always serialise");
    header.resize(header.len().next_multiple_of(8), b' ');
    let write = || -> std::io::Result<()> {
        let mut writer = BufWriter::with_capacity(4 * CHUNK_VALUES, File::create(path)?);
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        let mut bytes = Vec::with_capacity(4 * CHUNK_VALUES);
        for chunk in arrays
            .iter()
            .flat_map(|(_, values)| values.chunks(CHUNK_VALUES))
        {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            writer.write_all(&bytes)?;
        }
        writer
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?
            .sync_all()
    };
    write().map_err(TrainError::io(path))
}

/// Reads the arrays back into slices of the same names, sizes and order.
pub fn read_arrays(path: &Path, arrays: &mut [(String, &mut [f32])]) -> Result<()> {
    let bad = |what: String| TrainError::BadCheckpoint {
        path: path.to_path_buf(),
        what,
    };
    let file = File::open(path).map_err(TrainError::io(path))?;
    let mut reader = BufReader::with_capacity(4 * CHUNK_VALUES, file);
    let mut length = [0; 8];
    reader
        .read_exact(&mut length)
        .map_err(TrainError::io(path))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(bad(format!("a header of {length} bytes")));
    }
    let mut header = vec![0; length as usize];
    reader
        .read_exact(&mut header)
        .map_err(TrainError::io(path))?;
    let header: BTreeMap<String, Entry> = serde_json::from_slice(&header)
        .map_err(|error| bad(format!("not a safetensors header: {error}")))?;
    if header.len() != arrays.len() {
        return Err(bad(format!(
            "{} arrays, expected {}",
            header.len(),
            arrays.len()
        )));
    }
    let mut offset = 0;
    let mut bytes = vec![0; 4 * CHUNK_VALUES];
    for (name, values) in arrays {
        let end = offset + 4 * values.len() as u64;
        let entry = header
            .get(name.as_str())
            .ok_or_else(|| bad(format!("no array {name}")))?;
        if entry.data_offsets != [offset, end] || entry.dtype != "F32" {
            let found = entry.data_offsets;
            return Err(bad(format!(
                "{name} lies at {found:?}, expected f32 at {offset}..{end}"
            )));
        }
        for chunk in values.chunks_mut(CHUNK_VALUES) {
            let bytes = &mut bytes[..4 * chunk.len()];
            reader.read_exact(bytes).map_err(TrainError::io(path))?;
            for (value, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        offset = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
