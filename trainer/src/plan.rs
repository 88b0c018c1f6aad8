//! `trainer plan` and `trainer sft --dry-run`: what the run would need and how long it would take,
//! before a weight is read.

use std::fmt::Write as _;

use serde::Serialize;

use crate::budget::Budget;
use crate::config::DeviceKind;

/// Everything that a plan tells; `--progress json` prints it as one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPlan {
    pub device: DeviceKind,
    /// Processes that train as one.
    pub num_ranks: usize,
    /// Of each rank's device.
    pub memory: Budget,
    /// Of each process with tokenizer and examples loaded, in the host's memory.
    pub program: usize,
    pub num_train_examples: usize,
    pub num_validation_examples: usize,
    pub num_dropped: usize,
    pub longest_example: usize,
    pub tokens_per_epoch: u64,
    pub label_tokens_per_epoch: u64,
    pub epochs: u32,
    pub steps: u64,
    pub largest_micro_batch_tokens: usize,
    /// Forward and backward of the whole run.
    pub flops: f64,
    /// The rate, of all ranks together, that times are worked out with, where one was given.
    pub tokens_per_s: Option<f64>,
}

/// Memory of a device and its bf16 peak, as its maker gives them.
struct Device {
    name: &'static str,
    memory_gib: f64,
    peak_tflops: f64,
}

/// NVIDIA's data sheets; dense bf16.
const DEVICES: [Device; 4] = [
    Device {
        name: "A100 40 GB",
        memory_gib: 40.0,
        peak_tflops: 312.0,
    },
    Device {
        name: "A100 80 GB",
        memory_gib: 80.0,
        peak_tflops: 312.0,
    },
    Device {
        name: "H100 80 GB",
        memory_gib: 80.0,
        peak_tflops: 989.0,
    },
    Device {
        name: "H200 141 GB",
        memory_gib: 131.0,
        peak_tflops: 989.0,
    },
];

/// Part of a device's memory that a run may count on: the rest is its context, cuBLAS and what the
/// allocator cannot use.
const USABLE: f64 = 0.94;

/// Part of a device's peak that times are worked out with; torchtune's best published run of a 3B model
/// on an A100 is at 0.57, its packed one without compilation at 0.44.
const ASSUMED_MFU: f64 = 0.4;

impl RunPlan {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let memory = &self.memory;
        let mut line = |label: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label:<26}{value}");
        };
        line("parameters", grouped(memory.num_parameters as u64));
        line("  trained", grouped(memory.num_trained as u64));
        line("memory: weights", bytes(memory.weights));
        line("  gradients", bytes(memory.gradients));
        line("  optimizer moments", bytes(memory.moments));
        line("  activations at peak", bytes(memory.activations));
        line(
            "  saving",
            format!("{} (not at the same time)", bytes(memory.saving)),
        );
        line("  program and examples", bytes(self.program));
        let label = match (self.device, self.num_ranks) {
            (DeviceKind::Cpu, 1) => "  peak",
            (DeviceKind::Cpu, _) => "  peak of each process",
            (DeviceKind::Cuda, 1) => "  peak on the GPU",
            (DeviceKind::Cuda, _) => "  peak on each GPU",
        };
        let peak = match self.device {
            DeviceKind::Cpu => memory.peak + self.program,
            DeviceKind::Cuda => memory.peak,
        };
        line(label, bytes(peak));
        line(
            "examples",
            format!(
                "{} to train on, {} held out, {} too long",
                self.num_train_examples, self.num_validation_examples, self.num_dropped
            ),
        );
        line("  longest", format!("{} tokens", self.longest_example));
        line(
            "tokens of an epoch",
            format!(
                "{} ({} with a label)",
                grouped(self.tokens_per_epoch),
                grouped(self.label_tokens_per_epoch)
            ),
        );
        line(
            "steps",
            format!("{} in {} epochs", grouped(self.steps), self.epochs),
        );
        line(
            "arithmetic",
            format!("{:.3e} floating-point operations", self.flops),
        );
        if let Some(rate) = self.tokens_per_s {
            let tokens = (self.tokens_per_epoch * u64::from(self.epochs)) as f64;
            line(
                "time",
                format!("{} at {rate} tokens/s", duration(tokens / rate)),
            );
        }
        text + &self.devices()
    }

    /// Whether the run would fit each device, one a rank, and how long it would take there at
    /// [`ASSUMED_MFU`].
    fn devices(&self) -> String {
        let mut text = format!(
            "states and activations beside a GPU's memory, and the arithmetic at {:.0} % of its bf16 \
             peak (an assumption, for planning){}:\n",
            100.0 * ASSUMED_MFU,
            match self.num_ranks {
                1 => String::new(),
                ranks => format!(", shared by {ranks} of them; without the sums between them"),
            }
        );
        for device in DEVICES {
            let usable = USABLE * device.memory_gib * GIB;
            let fits = if self.memory.peak as f64 <= usable {
                "fits"
            } else {
                "does not fit"
            };
            let rate = self.num_ranks as f64 * ASSUMED_MFU * device.peak_tflops * 1e12;
            let seconds = self.flops / rate;
            let _ = writeln!(text, "  {:<24}{fits}, {}", device.name, duration(seconds));
        }
        text
    }
}

const GIB: f64 = (1_u64 << 30) as f64;

fn bytes(count: usize) -> String {
    let count = count as f64;
    if count >= GIB {
        format!("{:.2} GiB", count / GIB)
    } else {
        format!("{:.1} MiB", count / f64::from(1 << 20))
    }
}

/// 1234567 as 1,234,567.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(bytes(3 << 30), "3.00 GiB");
        assert_eq!(duration(600.0), "10.0 min");
    }
}
