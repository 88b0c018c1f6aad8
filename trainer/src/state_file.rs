//! Flat arrays of f32, bf16 or bytes in one safetensors file, written and read array by array, so that
//! neither direction ever holds a second copy of the optimizer's state.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use half::bf16;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Values converted at a time.
const CHUNK_VALUES: usize = 1 << 16;
/// A header of a million tensors is below this.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// An array to be written.
#[derive(Debug, Clone, Copy)]
pub enum Array<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    U8(&'a [u8]),
}

/// An array to be read into.
#[derive(Debug)]
pub enum ArrayMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    U8(&'a mut [u8]),
}

/// What values are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayType {
    F32,
    Bf16,
    U8,
}

/// An array that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub dtype: ArrayType,
    pub shape: Vec<usize>,
}

impl ArrayType {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::U8 => "U8",
        }
    }

    fn num_bytes(self, count: usize) -> u64 {
        let size = match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        };
        size * count as u64
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl Array<'_> {
    fn dtype(self) -> ArrayType {
        match self {
            Self::F32(_) => ArrayType::F32,
            Self::Bf16(_) => ArrayType::Bf16,
            Self::U8(_) => ArrayType::U8,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::U8(values) => values.len(),
        }
    }

    fn write_to(self, writer: &mut impl Write, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::U8(values) => writer.write_all(values),
            Self::F32(values) => values.chunks(CHUNK_VALUES).try_for_each(|chunk| {
                bytes.clear();
                bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                writer.write_all(bytes)
            }),
            Self::Bf16(values) => values.chunks(CHUNK_VALUES).try_for_each(|chunk| {
                bytes.clear();
                bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
                writer.write_all(bytes)
            }),
        }
    }
}

impl ArrayMut<'_> {
    fn as_array(&self) -> Array<'_> {
        match self {
            Self::F32(values) => Array::F32(values),
            Self::Bf16(values) => Array::Bf16(values),
            Self::U8(values) => Array::U8(values),
        }
    }

    fn read_from(&mut self, reader: &mut impl Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::U8(values) => reader.read_exact(values),
            Self::F32(values) => values.chunks_mut(CHUNK_VALUES).try_for_each(|chunk| {
                bytes.resize(4 * chunk.len(), 0);
                reader.read_exact(bytes)?;
                for (value, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
                Ok(())
            }),
            Self::Bf16(values) => values.chunks_mut(CHUNK_VALUES).try_for_each(|chunk| {
                bytes.resize(2 * chunk.len(), 0);
                reader.read_exact(bytes)?;
                for (value, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = bf16::from_le_bytes(*bytes);
                }
                Ok(())
            }),
        }
    }
}

/// Writes arrays one after another, as transformers and PEFT read them.
#[derive(Debug)]
pub struct ArrayWriter<'a> {
    path: &'a Path,
    writer: BufWriter<File>,
    /// Those not written yet, in order.
    headers: std::slice::Iter<'a, Header>,
    bytes: Vec<u8>,
}

impl<'a> ArrayWriter<'a> {
    /// Of a file that will have these arrays.
    pub fn create(path: &'a Path, headers: &'a [Header]) -> Result<Self> {
        let mut table = serde_json::Map::new();
        // transformers before 4.47 refuses a file without it.
        table.insert(
            "__metadata__".to_string(),
            serde_json::json!({ "format": "pt" }),
        );
        let mut offset = 0;
        for Header { name, dtype, shape } in headers {
            let end = offset + dtype.num_bytes(shape.iter().product());
            let entry = Entry {
                dtype: dtype.name().to_string(),
                shape: shape.clone(),
                data_offsets: [offset, end],
            };
            let entry = serde_json::to_value(entry).expect("strings and numbers always serialise");
            table.insert(name.clone(), entry);
            offset = end;
        }
        let mut table = serde_json::Value::Object(table).to_string().into_bytes();
        table.resize(table.len().next_multiple_of(8), b' ');
        let begin = || -> std::io::Result<BufWriter<File>> {
            let mut writer = BufWriter::with_capacity(4 * CHUNK_VALUES, File::create(path)?);
            writer.write_all(&(table.len() as u64).to_le_bytes())?;
            writer.write_all(&table)?;
            Ok(writer)
        };
        Ok(Self {
            path,
            writer: begin().map_err(TrainError::io(path))?,
            headers: headers.iter(),
            bytes: Vec::new(),
        })
    }

    /// The next array.
    ///
    /// # Panics
    /// If it is not the one that was announced.
    pub fn write(&mut self, values: Array<'_>) -> Result<()> {
        let header = self.headers.next().expect("as many as were announced");
        let announced = (header.dtype, header.shape.iter().product::<usize>());
        assert_eq!((values.dtype(), values.len()), announced, "{}", header.name);
        values
            .write_to(&mut self.writer, &mut self.bytes)
            .map_err(TrainError::io(self.path))
    }

    /// Syncs the file.
    ///
    /// # Panics
    /// If arrays are missing.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.headers.len(), 0, "arrays that were announced");
        self.writer
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(TrainError::io(self.path))
    }
}

/// Reads a file's arrays back, one after another in the order in which they were written.
#[derive(Debug)]
pub struct ArrayReader<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    header: BTreeMap<String, Entry>,
    offset: u64,
    bytes: Vec<u8>,
}

impl<'a> ArrayReader<'a> {
    pub fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(TrainError::io(path))?;
        let mut reader = BufReader::with_capacity(4 * CHUNK_VALUES, file);
        let header = read_header(path, &mut reader)?;
        Ok(Self {
            path,
            reader,
            header,
            offset: 0,
            bytes: Vec::new(),
        })
    }

    /// The next array, which must have this name, type and number of values.
    pub fn read(&mut self, name: &str, mut values: ArrayMut<'_>) -> Result<()> {
        let (dtype, end) = {
            let array = values.as_array();
            let dtype = array.dtype();
            (dtype.name(), self.offset + dtype.num_bytes(array.len()))
        };
        let start = self.offset;
        let entry = self
            .header
            .remove(name)
            .ok_or_else(|| self.bad(format!("no array {name}")))?;
        if entry.data_offsets != [start, end] || entry.dtype != dtype {
            let (found, found_dtype) = (entry.data_offsets, &entry.dtype);
            return Err(self.bad(format!(
                "{name} is {found_dtype} at {found:?}, expected {dtype} at {start}..{end}"
            )));
        }
        self.offset = end;
        values
            .read_from(&mut self.reader, &mut self.bytes)
            .map_err(TrainError::io(self.path))
    }

    /// Refuses arrays that nobody asked for.
    pub fn finish(self) -> Result<()> {
        match self.header.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.bad(format!("has an array {name} that is not expected"))),
        }
    }

    fn bad(&self, what: String) -> TrainError {
        TrainError::BadCheckpoint {
            path: self.path.to_path_buf(),
            what,
        }
    }
}

fn read_header(path: &Path, reader: &mut impl Read) -> Result<BTreeMap<String, Entry>> {
    let bad = |what: String| TrainError::BadCheckpoint {
        path: path.to_path_buf(),
        what,
    };
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
    let not_a_header = |error| bad(format!("not a safetensors header: {error}"));
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(not_a_header)?;
    header.remove("__metadata__");
    header
        .into_iter()
        .map(|(name, entry)| Ok((name, serde_json::from_value(entry).map_err(not_a_header)?)))
        .collect()
}

#[cfg(test)]
mod tests;
