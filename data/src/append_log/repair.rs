//! Putting a log right that a crash left with half a line at its end.

use super::{LogError, io_error, sidecar};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// A last line without its newline, taken off the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub num_bytes: u64,
    /// Where the bytes were added, for whoever wants to look at them.
    pub kept_at: PathBuf,
}

/// Cuts a log back to its last newline. The bytes after it are kept aside first, so that a crash in
/// between loses nothing.
pub(super) fn repair(path: &Path) -> Result<Option<TornTail>, LogError> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("cannot open", path)(error)),
    };
    let len = file
        .metadata()
        .map_err(io_error("cannot read", path))?
        .len();
    let good_len = whole_lines_len(&mut file, len).map_err(io_error("cannot read", path))?;
    if good_len == len {
        return Ok(None);
    }
    let kept_at = sidecar(path, ".torn");
    keep_aside(&mut file, good_len, &kept_at)
        .map_err(io_error("cannot keep the torn last line in", &kept_at))?;
    file.set_len(good_len)
        .and_then(|()| file.sync_all())
        .map_err(io_error("cannot repair", path))?;
    Ok(Some(TornTail {
        num_bytes: len - good_len,
        kept_at,
    }))
}

/// Length of the file up to and including its last newline, found from the end in blocks.
fn whole_lines_len(file: &mut File, len: u64) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 64 * 1024;
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn keep_aside(file: &mut File, from: u64, kept_at: &Path) -> io::Result<()> {
    let mut kept = OpenOptions::new().append(true).create(true).open(kept_at)?;
    file.seek(SeekFrom::Start(from))?;
    io::copy(file, &mut kept)?;
    kept.write_all(b"\n")?;
    kept.sync_all()
}
