//! One writer: an advisory lock on a file beside the one that is written.
//!
//! The lock file stays when the writer is gone (removing it would race with the next one); the lock
//! itself ends with the process, however it ends.

use super::{LogError, io_error, sidecar};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::Path,
};

/// The right to write a file, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// The open file is the lock.
    _file: File,
}

impl Lock {
    /// Locks `<file>.lock`.
    ///
    /// # Errors
    /// [`LogError::Locked`] while another holds it.
    pub fn take(file: &Path) -> Result<Lock, LogError> {
        let path = sidecar(file, ".lock");
        let fail = |operation| io_error(operation, &path);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail("cannot open the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LogError::Locked {
                    path: file.to_owned(),
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => return Err(fail("cannot lock")(source)),
        }
        lock.set_len(0)
            .map_err(fail("cannot write the lock file"))?;
        let line = format!("process {} on {}\n", std::process::id(), host_name());
        lock.write_all(line.as_bytes())
            .map_err(fail("cannot write the lock file"))?;
        Ok(Lock { _file: lock })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(256).read_to_string(&mut text);
    let text = text.trim();
    if text.is_empty() {
        "unknown".to_owned()
    } else {
        text.to_owned()
    }
}

/// For people only, so "unknown" is good enough where it cannot be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "unknown host".to_owned()
    } else {
        name.to_owned()
    }
}
