//! One optimizer step as it is logged.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize};

use super::Rates;
use crate::error::{Result, TrainError};
use crate::memory::Resident;
use crate::tensorboard::Scalars;

/// What the loop knows of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRecord {
    /// From 1.
    pub step: u64,
    pub epoch: u32,
    /// NLL per label token over the whole accumulation window, in nats.
    pub loss: f64,
    pub lr: f64,
    /// Global norm of the averaged gradient before clipping.
    pub grad_norm: f64,
    pub num_tokens: u64,
    pub num_label_tokens: u64,
    /// See [`crate::pack::MicroBatch::num_attention_pairs`].
    pub num_attention_pairs: u64,
    pub took: Duration,
    /// Why the update was left out, where it was.
    pub skipped: Option<String>,
}

/// One line of `metrics.jsonl`. A step that was skipped may have no loss or no norm (JSON null). What
/// earlier versions did not write is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    pub step: u64,
    pub epoch: u32,
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    pub lr: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    pub tokens: u64,
    pub label_tokens: u64,
    pub tokens_per_s: f64,
    #[serde(default)]
    pub label_tokens_per_s: Option<f64>,
    /// Wall time since the run began, time between an interruption and the resume not counted.
    #[serde(default)]
    pub seconds: f64,
    /// Model FLOPs by formula; see [`crate::throughput::ModelFlops`].
    #[serde(default)]
    pub tflops: Option<f64>,
    /// `tflops` over the machine's peak.
    #[serde(default)]
    pub mfu: Option<f64>,
    #[serde(default)]
    pub resident_bytes: Option<u64>,
    #[serde(default)]
    pub peak_resident_bytes: Option<u64>,
    /// Why the update was left out, where it was.
    #[serde(default)]
    pub skipped: Option<String>,
}

impl StepMetrics {
    /// What the clock and the machine decide: all else is the same in every run of the same settings.
    pub const MEASURED: [&str; 7] = [
        "tokens_per_s",
        "label_tokens_per_s",
        "seconds",
        "tflops",
        "mfu",
        "resident_bytes",
        "peak_resident_bytes",
    ];

    pub(super) const CSV_HEADER: &str = "step,epoch,loss,lr,grad_norm,tokens,label_tokens,\
        tokens_per_s,label_tokens_per_s,seconds,tflops,mfu,resident_bytes,peak_resident_bytes,skipped";

    pub(super) fn of(
        record: &StepRecord,
        seconds: f64,
        rates: Option<Rates>,
        memory: Option<Resident>,
    ) -> Self {
        let took_s = record.took.as_secs_f64().max(1e-9);
        let tflops = rates.map(|rates| {
            let flop = rates
                .flops
                .of_step(record.num_tokens, record.num_attention_pairs);
            flop / took_s / 1e12
        });
        Self {
            step: record.step,
            epoch: record.epoch,
            loss: record.loss,
            lr: record.lr,
            grad_norm: record.grad_norm,
            tokens: record.num_tokens,
            label_tokens: record.num_label_tokens,
            tokens_per_s: record.num_tokens as f64 / took_s,
            label_tokens_per_s: Some(record.num_label_tokens as f64 / took_s),
            seconds,
            tflops,
            mfu: tflops
                .zip(rates)
                .map(|(tflops, rates)| tflops / rates.peak_tflops),
            resident_bytes: memory.map(|memory| memory.now),
            peak_resident_bytes: memory.map(|memory| memory.peak),
            skipped: record.skipped.clone(),
        }
    }

    /// A line of `metrics.jsonl`; `None` for half of one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The whole lines of a `metrics.jsonl`.
    pub(crate) fn read_all(path: &Path) -> Result<Vec<Self>> {
        let bytes = std::fs::read(path).map_err(TrainError::io(path))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().filter_map(Self::parse).collect())
    }

    /// The same columns as the JSON keys, in their order; what is not there is empty.
    pub(super) fn csv_line(&self) -> String {
        let value = serde_json::to_value(self).expect("numbers always serialise");
        let cell = |key: &str| match &value[key] {
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        };
        let cells: Vec<String> = Self::CSV_HEADER.split(',').map(cell).collect();
        cells.join(",")
    }

    /// What TensorBoard is shown; numbers that are none are left out.
    pub(super) fn scalars(&self, at: SystemTime) -> Scalars {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let values = [
            ("train/loss", Some(self.loss)),
            ("train/lr", Some(self.lr)),
            ("train/grad_norm", Some(self.grad_norm)),
            ("train/tokens_per_s", Some(self.tokens_per_s)),
            ("train/label_tokens_per_s", self.label_tokens_per_s),
            ("train/tflops", self.tflops),
            ("train/mfu", self.mfu),
            (
                "train/skipped",
                Some(f64::from(u8::from(self.skipped.is_some()))),
            ),
            ("memory/resident_bytes", bytes(self.resident_bytes)),
            (
                "memory/peak_resident_bytes",
                bytes(self.peak_resident_bytes),
            ),
        ];
        let known = |(tag, value): (&'static str, Option<f64>)| Some((tag, value?));
        let finite = |(_, value): &(&str, f64)| value.is_finite();
        Scalars {
            step: self.step,
            at,
            values: values
                .into_iter()
                .filter_map(known)
                .filter(finite)
                .collect(),
        }
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
