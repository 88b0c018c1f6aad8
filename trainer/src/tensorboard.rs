//! TensorBoard event files: TFRecord framing and the few protobuf messages of scalar curves. What the
//! curves are is `metrics`' business.
//!
//! A record is length (u64, little endian), masked CRC-32C of those 8 bytes, data, masked CRC-32C of
//! the data (`tensorflow/core/lib/io/record_writer.h` describes it). Field numbers are those of
//! `tensorflow/core/util/event.proto` and `framework/summary.proto`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::{Result, TrainError};

/// The folder's only event file, open for appending.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

/// Values of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalars {
    pub step: u64,
    pub at: SystemTime,
    pub values: Vec<(&'static str, f64)>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    /// First event of a file: `brain.Event:2`.
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    /// TensorBoard keeps 32 bits.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Status 1 (START): a reader that has points from this step on forgets them.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SESSION_START: i32 = 1;

/// TensorBoard knows event files by this part of their name.
const NAME_PART: &str = ".tfevents.";

impl EventFile {
    /// Makes `dir` hold one event file with this history, in place of those of earlier processes: what
    /// they wrote of steps that will be done again is gone for every reader. A reader that is looking
    /// on is told to forget what it has.
    pub fn create(dir: &Path, history: &[Scalars]) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
        let now = SystemTime::now();
        let mut bytes = Vec::new();
        let begins = history.first().map_or(now, |first| first.at);
        let version = Event {
            file_version: Some("brain.Event:2".to_string()),
            ..Event::at(begins, 0)
        };
        let start = Event {
            session_log: Some(SessionLog {
                status: SESSION_START,
            }),
            ..Event::at(begins, 0)
        };
        for event in [version, start] {
            push_record(&mut bytes, &event.encode_to_vec());
        }
        for scalars in history {
            push_record(&mut bytes, &Event::of(scalars).encode_to_vec());
        }
        // Readers take files in the order of their names: of the time they were made.
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!(
            "events.out{NAME_PART}{:010}.{:09}.trainer.{}",
            since_1970.as_secs(),
            since_1970.subsec_nanos(),
            std::process::id()
        );
        let earlier = event_files(dir)?;
        let beside = dir.join("new-events.tmp");
        let path = dir.join(name);
        let mut file = File::create(&beside).map_err(TrainError::io(&beside))?;
        file.write_all(&bytes).map_err(TrainError::io(&beside))?;
        std::fs::rename(&beside, &path).map_err(TrainError::io(&path))?;
        for old in earlier.iter().filter(|old| **old != path) {
            std::fs::remove_file(old).map_err(TrainError::io(old))?;
        }
        Ok(Self { path, file })
    }

    /// Adds one event. One write call, so that a reader seldom sees half of one (and then waits).
    pub fn append(&mut self, scalars: &Scalars) -> Result<()> {
        let mut bytes = Vec::new();
        push_record(&mut bytes, &Event::of(scalars).encode_to_vec());
        self.file
            .write_all(&bytes)
            .map_err(TrainError::io(&self.path))
    }
}

impl Event {
    fn at(time: SystemTime, step: u64) -> Self {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            wall_time: since_1970.as_secs_f64(),
            step: step.cast_signed(),
            ..Self::default()
        }
    }

    fn of(scalars: &Scalars) -> Self {
        let value = |(tag, value): &(&str, f64)| SummaryValue {
            tag: (*tag).to_string(),
            simple_value: Some(*value as f32),
        };
        Self {
            summary: Some(Summary {
                value: scalars.values.iter().map(value).collect(),
            }),
            ..Self::at(scalars.at, scalars.step)
        }
    }
}

fn event_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let path = entry.map_err(TrainError::io(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(NAME_PART) {
            found.push(path);
        }
    }
    Ok(found)
}

fn push_record(bytes: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    bytes.extend(length);
    bytes.extend(masked_crc32c(&length).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked_crc32c(data).to_le_bytes());
}

/// The checksum as TFRecord stores it: turned and moved, so that a checksum of data that holds
/// checksums is no weaker.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli; RFC 3720, B.4), bit-reversed, a byte at a time.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8);
    !data.iter().fold(u32::MAX, step)
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82F6_3B78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests;
