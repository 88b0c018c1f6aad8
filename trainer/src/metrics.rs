//! The files a run leaves for later: `metrics.jsonl` and `steps.csv` (one line per optimizer step),
//! `losses.csv` (one line per epoch), the same for TensorBoard, and the plots. After a resume they
//! read as if the run had never been interrupted.

mod step;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

pub use self::step::{StepMetrics, StepRecord};
use crate::error::{Result, TrainError};
use crate::memory;
use crate::plots;
use crate::tensorboard::{EventFile, Scalars};
use crate::throughput::ModelFlops;

/// One epoch. Perplexities are exp(sum of NLL / sum of label tokens).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochLosses {
    pub epoch: u32,
    pub train_loss: f64,
    pub validation_loss: Option<f64>,
}

const CSV_HEADER: &str = "epoch,train_loss,train_perplexity,validation_loss,validation_perplexity";

/// What rates are worked out from.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub flops: ModelFlops,
    pub peak_tflops: f64,
}

/// The files, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    out: PathBuf,
    steps: LogFile,
    steps_csv: LogFile,
    epochs: LogFile,
    events: EventFile,
    /// Those before a resume, too.
    history: Vec<EpochLosses>,
    rates: Option<Rates>,
    last_step: u64,
    opened: Instant,
    /// Of earlier processes of this run, up to where it goes on.
    earlier_s: f64,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the files in `out` for a run that goes on after `last_step` and these epochs. Lines of
    /// steps that will be done again are dropped, as is a torn last line.
    pub fn open(out: &Path, last_step: u64, epochs: &[EpochLosses]) -> Result<Self> {
        let jsonl = out.join("metrics.jsonl");
        let steps = LogFile::open(jsonl.clone(), |text| {
            let keep = |line: &&str| {
                let whole = line.strip_suffix('\n').and_then(StepMetrics::parse);
                whole.is_some_and(|metrics| metrics.step <= last_step)
            };
            text.split_inclusive('\n').filter(keep).collect()
        })?;
        let kept = StepMetrics::read_all(&jsonl)?;
        let steps_csv = LogFile::open(out.join("steps.csv"), |_| {
            let lines = kept.iter().map(StepMetrics::csv_line);
            joined(StepMetrics::CSV_HEADER, lines)
        })?;
        let lines = epochs.iter().map(|losses| losses.csv_line());
        let csv = joined(CSV_HEADER, lines);
        let epochs_csv = LogFile::open(out.join("losses.csv"), |_| csv)?;
        let earlier_s = kept.last().map_or(0.0, |last| last.seconds);
        let began = SystemTime::now() - Duration::from_secs_f64(earlier_s.max(0.0));
        let events = EventFile::create(&out.join("tensorboard"), &curves(&kept, epochs, began))?;
        Ok(Self {
            out: out.to_path_buf(),
            steps,
            steps_csv,
            epochs: epochs_csv,
            events,
            history: epochs.to_vec(),
            rates: None,
            last_step,
            opened: Instant::now(),
            earlier_s,
        })
    }

    /// With these the lines have FLOP/s and MFU.
    #[must_use]
    pub fn with_rates(self, rates: Rates) -> Self {
        Self {
            rates: Some(rates),
            ..self
        }
    }

    /// Works out rates and memory, writes the step everywhere and returns what was written.
    pub fn step(&mut self, record: &StepRecord) -> Result<StepMetrics> {
        let seconds = self.earlier_s + self.opened.elapsed().as_secs_f64();
        let metrics = StepMetrics::of(record, seconds, self.rates, memory::resident());
        let line = serde_json::to_string(&metrics).expect("numbers always serialise");
        self.steps.append(&line)?;
        self.steps_csv.append(&metrics.csv_line())?;
        self.events.append(&metrics.scalars(SystemTime::now()))?;
        self.last_step = metrics.step;
        Ok(metrics)
    }

    pub fn epoch(&mut self, losses: EpochLosses) -> Result<()> {
        self.epochs.append(&losses.csv_line())?;
        self.history.push(losses);
        let scalars = losses.scalars(self.last_step, SystemTime::now());
        self.events.append(&scalars)
    }

    /// Draws everything so far.
    pub fn plot(&self) -> Result<()> {
        plots::write(&self.out, &self.history)
    }
}

fn joined(header: &str, lines: impl Iterator<Item = String>) -> String {
    let mut text = format!("{header}\n");
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// What TensorBoard is shown of a run so far; epochs stand at their last step.
fn curves(steps: &[StepMetrics], epochs: &[EpochLosses], began: SystemTime) -> Vec<Scalars> {
    let mut curves = Vec::new();
    for (index, metrics) in steps.iter().enumerate() {
        let at = began + Duration::from_secs_f64(metrics.seconds.max(0.0));
        curves.push(metrics.scalars(at));
        let is_last = steps
            .get(index + 1)
            .is_none_or(|next| next.epoch > metrics.epoch);
        let done = epochs.iter().find(|losses| losses.epoch == metrics.epoch);
        if let Some(losses) = done.filter(|_| is_last) {
            curves.push(losses.scalars(metrics.step, at));
        }
    }
    curves
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

    fn scalars(self, step: u64, at: SystemTime) -> Scalars {
        let mut values = vec![
            ("epoch/train_loss", self.train_loss),
            ("epoch/train_perplexity", self.train_loss.exp()),
        ];
        if let Some(loss) = self.validation_loss {
            values.push(("validation/loss", loss));
            values.push(("validation/perplexity", loss.exp()));
        }
        Scalars { step, at, values }
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
