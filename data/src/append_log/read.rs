//! Reading a log, also while it is being written.

use super::{LogError, io_error};
use serde::de::DeserializeOwned;
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogContents<T> {
    pub records: Vec<T>,
    /// Bytes after the last newline: a line that is being written, or was when its writer died.
    pub num_torn_bytes: usize,
}

/// Reads all whole lines. A line that ends in a newline and is not a record is an error with file
/// and line number, not something to step over.
pub fn read_log<T: DeserializeOwned>(path: &Path) -> Result<LogContents<T>, LogError> {
    let file = File::open(path).map_err(io_error("cannot open", path))?;
    let mut reader = BufReader::new(file);
    let mut contents = LogContents {
        records: Vec::new(),
        num_torn_bytes: 0,
    };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        reader
            .read_until(b'\n', &mut line)
            .map_err(io_error("cannot read", path))?;
        if line.last() != Some(&b'\n') {
            contents.num_torn_bytes = line.len();
            break;
        }
        let record = serde_json::from_slice(&line);
        let path = path.to_owned();
        contents
            .records
            .push(record.map_err(|source| LogError::Line {
                path,
                line: number,
                source,
            })?);
    }
    Ok(contents)
}
