//! The files a run leaves for later: `metrics.jsonl` (one line per optimizer step) and `losses.csv`
//! (one line per epoch). After a resume they read as if the run had never been interrupted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// One optimizer step. A step that was skipped has no loss or no norm (JSON null).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepMetrics {
    pub step: u64,
    pub epoch: u32,
    /// NLL per label token over the whole accumulation window, in nats.
    pub loss: f64,
    pub lr: f64,
    /// Global norm of the averaged gradient before clipping.
    pub grad_norm: f64,
    pub tokens: u64,
    pub label_tokens: u64,
    pub tokens_per_s: f64,
}

/// One epoch. Perplexities are exp(sum of NLL / sum of label tokens).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochLosses {
    pub epoch: u32,
    pub train_loss: f64,
    pub validation_loss: Option<f64>,
}

const CSV_HEADER: &str = "epoch,train_loss,train_perplexity,validation_loss,validation_perplexity";

/// The two files, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    steps: LogFile,
    epochs: LogFile,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the files in `out` for a run that goes on after `last_step` and these epochs. Lines of
    /// an epoch that was interrupted and will be done again are dropped, as is a torn last line.
    pub fn open(out: &Path, last_step: u64, epochs: &[EpochLosses]) -> Result<Self> {
        let step_of = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            value.get("step")?.as_u64()
        };
        let steps = LogFile::open(out.join("metrics.jsonl"), |text| {
            let keep = |line: &&str| {
                let whole = line.strip_suffix('\n').and_then(step_of);
                whole.is_some_and(|step| step <= last_step)
            };
            text.split_inclusive('\n').filter(keep).collect()
        })?;
        let lines = epochs.iter().map(|losses| losses.csv_line());
        let csv: Vec<String> = std::iter::once(CSV_HEADER.to_string())
            .chain(lines)
            .collect();
        let epochs = LogFile::open(out.join("losses.csv"), |_| csv.join("\n") + "\n")?;
        Ok(Self { steps, epochs })
    }

    pub fn step(&mut self, metrics: &StepMetrics) -> Result<()> {
        let line = serde_json::to_string(metrics).expect("numbers always serialise");
        self.steps.append(&line)
    }

    pub fn epoch(&mut self, losses: EpochLosses) -> Result<()> {
        self.epochs.append(&losses.csv_line())
    }
}

impl EpochLosses {
    fn csv_line(self) -> String {
        let Self {
            epoch,
            train_loss,
            validation_loss,
        } = self;
        let validation = validation_loss
            .map_or_else(|| ",".to_string(), |loss| format!("{loss},{}", loss.exp()));
        format!("{epoch},{train_loss},{},{validation}", train_loss.exp())
    }
}

impl LogFile {
    /// Replaces the text of the file (none where there is no file yet) by `repair` of it, and opens
    /// for appending. The replacement is a rename, so that a crash here loses nothing.
    fn open(path: PathBuf, repair: impl FnOnce(&str) -> String) -> Result<Self> {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(TrainError::io(&path)(error)),
        };
        let repaired = repair(&String::from_utf8_lossy(&bytes));
        if repaired.as_bytes() != bytes {
            let beside = path.with_extension("tmp");
            std::fs::write(&beside, repaired).map_err(TrainError::io(&beside))?;
            std::fs::rename(&beside, &path).map_err(TrainError::io(&path))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        Ok(Self { path, file })
    }

    /// One write call per line, so that a reader never sees half of one on a local file system.
    fn append(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        self.file
            .write_all(line.as_bytes())
            .map_err(TrainError::io(&self.path))
    }
}

#[cfg(test)]
mod tests;
