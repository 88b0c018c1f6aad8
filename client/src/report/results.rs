//! `results.json`: every count, setting and time of an experiment. The page and the plots are made
//! from it alone, so they can be made again at any time.

use serde::{Deserialize, Serialize};

use super::{
    analysis::Analysis,
    plots::{AccuracyBar, LossCurve},
};
use crate::{bootstrap::BootstrapSummary, compare::Comparison, eval::EvalSummary};

/// Raised when a field changes its meaning.
pub const RESULTS_VERSION: u32 = 1;

/// Everything a reader may ask about an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub version: u32,
    pub software: String,
    /// RFC 3339, UTC.
    pub finished_at: String,
    /// As the run was asked for: every setting, resolved.
    pub settings: serde_json::Value,
    pub inputs: Inputs,
    /// The untouched model on the test questions.
    pub zero_shot: EvalSummary,
    pub bootstrap: BootstrapSummary,
    /// The untouched model on the held-out questions: epoch 0 of both fine-tunings.
    pub base_on_held_out: EvalSummary,
    /// Every turn of the STaR loop, in order; `bootstrap` and `star` are those of the chosen one.
    #[serde(default)]
    pub iterations: Vec<Iteration>,
    pub star: Variant,
    pub vanilla: Variant,
    /// Paired, on the test questions.
    pub comparisons: Vec<Comparison>,
    /// What the answers say beyond right and wrong; absent in results of before it was there.
    #[serde(default)]
    pub analysis: Option<Analysis>,
    pub stages: Vec<StageTime>,
    pub memory: PeakMemory,
}

/// The files an experiment was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    pub model: String,
    pub train: String,
    pub train_sha256: String,
    pub test: String,
    pub test_sha256: String,
    /// Training questions used for bootstrapping and fine-tuning.
    pub num_fit: u64,
    /// Training questions held out before bootstrapping, for the choice of the epoch.
    pub num_held_out: u64,
    pub num_test: u64,
}

/// One turn of the STaR loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// From 1.
    pub iteration: u32,
    pub bootstrap: BootstrapSummary,
    /// Rationales that were trained on, those of earlier iterations included where they are kept.
    pub num_train_examples: u64,
    pub chosen_epoch: u32,
    /// The chosen epoch on the held-out questions.
    pub held_out: EvalSummary,
    /// The chosen epoch on the test questions, where that was asked for after each iteration.
    #[serde(default)]
    pub test: Option<EvalSummary>,
}

/// One fine-tuning and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// `STaR SFT` or `vanilla SFT`.
    pub name: String,
    pub train_file: String,
    pub train_sha256: String,
    pub num_train_examples: u64,
    pub num_validation_examples: u64,
    pub losses: LossCurve,
    /// Accuracy on the held-out questions after each epoch.
    pub held_out: Vec<EpochAccuracy>,
    /// The epoch whose checkpoint was put to the test.
    pub chosen_epoch: u32,
    pub checkpoint: String,
    pub test: EvalSummary,
}

/// Accuracy after an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochAccuracy {
    pub epoch: u32,
    pub summary: EvalSummary,
}

/// How long a stage took, over all invocations that were not killed within it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    pub stage: String,
    pub seconds: f64,
}

/// High-water marks of resident memory, in bytes; 0 where unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeakMemory {
    /// This process: the client, and the server where it runs in it.
    pub client_bytes: u64,
    pub trainer_bytes: u64,
}

impl PeakMemory {
    /// Both at once, at most.
    pub fn total_bytes(self) -> u64 {
        self.client_bytes + self.trainer_bytes
    }
}

impl Results {
    /// The three models on the test questions, in the order of the page.
    pub fn tests(&self) -> [(&str, &EvalSummary); 3] {
        [
            ("zero-shot", &self.zero_shot),
            (&self.vanilla.name, &self.vanilla.test),
            (&self.star.name, &self.star.test),
        ]
    }

    /// Their accuracies.
    pub fn bars(&self) -> Vec<AccuracyBar> {
        let bar = |(name, summary): (&str, &EvalSummary)| summary.bar(name);
        self.tests().map(bar).to_vec()
    }

    /// Wall time of all stages.
    pub fn total_seconds(&self) -> f64 {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }
}
