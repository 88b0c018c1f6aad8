//! A JSONL file that survives being killed: one writer, whole lines only.
//!
//! | What happens | What is on disk afterwards |
//! |---|---|
//! | `kill -9` between two appends | every appended line |
//! | `kill -9` or power loss within an append | a torn last line; [`AppendLog::open`] moves it to `<log>.torn` |
//! | disk full | the line is taken back, the append is an error, the log stays whole and usable |
//! | power loss | what the last fsync covered (see [`FlushPolicy`]), and perhaps more |
//! | a second writer | refused while the first lives: an advisory lock on `<log>.lock` |
//!
//! Append is not atomic on network file systems, so one file has one writer; the lock holds where
//! the file system supports `flock` (Lustre: mounted with `-o flock`). Readers need no lock: they
//! take lines that end in a newline only.

mod lock;
mod read;
mod repair;

pub use lock::Lock;
pub use read::{LogContents, read_log};
pub use repair::TornTail;

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum LogError {
    #[error("{operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is being written by another process ({holder}); wait for it or stop it",
        path.display()
    )]
    Locked { path: PathBuf, holder: String },
    #[error("cannot append {num_bytes} bytes to {}: {source}; the log was taken back to its last whole line", path.display())]
    Append {
        path: PathBuf,
        num_bytes: usize,
        source: io::Error,
    },
    #[error("cannot append to {}: an earlier failed append could not be taken back; open the log again", path.display())]
    Broken { path: PathBuf },
    #[error("{}, line {line}: {source}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        source: serde_json::Error,
    },
    #[error("cannot write this record as JSON: {0}")]
    Json(serde_json::Error),
}

/// When appended lines are forced to disk. They reach the operating system at once in any case, so
/// only a crash of the whole machine can lose those in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    pub max_lines: usize,
    /// Checked at each append: an idle log is not flushed by a clock.
    pub max_age: Duration,
}

impl Default for FlushPolicy {
    /// A generation takes far longer than an fsync; five seconds of work is what a crash may cost.
    fn default() -> FlushPolicy {
        FlushPolicy {
            max_lines: 256,
            max_age: Duration::from_secs(5),
        }
    }
}

/// What the log needs of a file; the tests put a failing disk behind it.
trait Disk: Write + std::fmt::Debug + Send {
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The one writer of a log file.
#[derive(Debug)]
pub struct AppendLog {
    path: PathBuf,
    tail: Tail,
    /// Held until the log is dropped.
    _lock: lock::Lock,
    repaired: Option<TornTail>,
}

impl AppendLog {
    /// Opens or creates a log: takes its lock, then repairs a torn last line.
    pub fn open(path: &Path, policy: FlushPolicy) -> Result<AppendLog, LogError> {
        let lock = lock::Lock::take(path)?;
        let repaired = repair::repair(path)?;
        let open = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = open().map_err(io_error("cannot open", path))?;
        let tail = Tail::new(Box::new(file), len, policy);
        Ok(AppendLog {
            path: path.to_owned(),
            tail,
            _lock: lock,
            repaired,
        })
    }

    /// Opens a log and reads what it holds: what resuming needs.
    pub fn open_and_read<T: DeserializeOwned>(
        path: &Path,
        policy: FlushPolicy,
    ) -> Result<(AppendLog, Vec<T>), LogError> {
        let log = AppendLog::open(path, policy)?;
        let contents = read_log(path)?;
        Ok((log, contents.records))
    }

    /// The torn last line that opening found, if any.
    pub fn repaired(&self) -> Option<&TornTail> {
        self.repaired.as_ref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record as one line. After [`LogError::Append`] the log is as it was before the
    /// call. An error from the flush that may follow leaves the line in the log: it was written, but
    /// the disk did not confirm it.
    pub fn append<T: Serialize>(&mut self, record: &T) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(record).map_err(LogError::Json)?;
        line.push(b'\n');
        self.tail
            .append(&line, Instant::now())
            .map_err(|failure| failure.at(&self.path))
    }

    /// Forces everything appended so far to disk.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.tail
            .flush(Instant::now())
            .map_err(|failure| failure.at(&self.path))
    }

    /// Flushes and gives up the lock. Dropping does the same but cannot report an error.
    pub fn close(mut self) -> Result<(), LogError> {
        self.flush()
    }
}

impl Drop for AppendLog {
    fn drop(&mut self) {
        // The error has no one to go to here; `close` is for those who want it.
        let _ = self.tail.flush(Instant::now());
    }
}

/// The end of the file, where lines are added.
#[derive(Debug)]
struct Tail {
    disk: Box<dyn Disk>,
    /// Length of the file up to its last whole line.
    good_len: u64,
    policy: FlushPolicy,
    num_unflushed: usize,
    last_flush: Option<Instant>,
    is_broken: bool,
}

#[derive(Debug)]
enum Failure {
    Append { num_bytes: usize, source: io::Error },
    Broken,
    Flush(io::Error),
}

impl Tail {
    fn new(disk: Box<dyn Disk>, good_len: u64, policy: FlushPolicy) -> Tail {
        Tail {
            disk,
            good_len,
            policy,
            num_unflushed: 0,
            last_flush: None,
            is_broken: false,
        }
    }

    fn append(&mut self, line: &[u8], now: Instant) -> Result<(), Failure> {
        if self.is_broken {
            return Err(Failure::Broken);
        }
        if let Err(source) = self.disk.write_all(line) {
            // A full disk takes a part of the line before it refuses the rest.
            self.is_broken = self.disk.truncate(self.good_len).is_err();
            return Err(Failure::Append {
                num_bytes: line.len(),
                source,
            });
        }
        self.good_len += line.len() as u64;
        self.num_unflushed += 1;
        let last_flush = *self.last_flush.get_or_insert(now);
        let is_old = now.saturating_duration_since(last_flush) >= self.policy.max_age;
        if is_old || self.num_unflushed >= self.policy.max_lines {
            self.flush(now)?;
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> Result<(), Failure> {
        if self.num_unflushed > 0 {
            self.disk.sync().map_err(Failure::Flush)?;
            self.num_unflushed = 0;
        }
        self.last_flush = Some(now);
        Ok(())
    }
}

impl Failure {
    fn at(self, path: &Path) -> LogError {
        let path = path.to_owned();
        match self {
            Failure::Append { num_bytes, source } => LogError::Append {
                path,
                num_bytes,
                source,
            },
            Failure::Broken => LogError::Broken { path },
            Failure::Flush(source) => LogError::Io {
                operation: "cannot flush",
                path,
                source,
            },
        }
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> LogError + use<> {
    let path = path.to_owned();
    move |source| LogError::Io {
        operation,
        path: path.clone(),
        source,
    }
}

/// `<log>` with something after its whole name: `attempts.jsonl` gives `attempts.jsonl.lock`.
fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
