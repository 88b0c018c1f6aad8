//! Every setting of an experiment that can change its numbers, and the presets.

use serde::{Deserialize, Serialize};

use crate::session::FormatChoice;

/// Which epoch's checkpoint is put to the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChooseEpoch {
    /// Most right answers on the held-out questions; of equals the earlier.
    BestOnHeldOut,
    Last,
}

/// What vanilla SFT learns of GSM8K's calculator annotations (`<<2*3=6>>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solutions {
    AsWritten,
    /// Nothing calculates for the model at test time, so the annotations are only noise there.
    WithoutAnnotations,
}

/// Which rationales become training data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptPolicy {
    /// Verified ones only.
    Sound,
    /// Whatever the hint prompt gave.
    Report,
}

/// The settings of an experiment. Stored in `state.json` and `results.json`; a run goes on only with
/// the settings it was started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub preset: String,
    /// Of the final tests and the evaluations after each epoch.
    pub eval_prompt: String,
    pub bootstrap_prompt: String,
    pub hint_prompt: String,
    /// Around the question in training examples.
    pub training_prompt: String,
    pub prompt_format: FormatChoice,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Name of the extraction rule.
    pub rule: String,
    pub policy: AcceptPolicy,
    pub solutions: Solutions,
    /// Only the first so many questions of the file.
    pub num_train: Option<usize>,
    pub num_test: Option<usize>,
    /// Share of the training questions held out before bootstrapping, by question.
    pub held_out_fraction: f64,
    /// At most so many of the held-out questions are put after each epoch.
    pub max_held_out: usize,
    pub forward_attempts: u32,
    pub hint_attempts: u32,
    /// Of every sample but a prompt's first, which is greedy.
    pub resample_temperature: f32,
    pub resample_top_p: f32,
    pub epochs: u32,
    pub lr: f64,
    pub batch_size: u32,
    pub max_length: u32,
    /// Share of the training examples whose loss is only watched.
    pub validation_fraction: f64,
    pub choose_epoch: ChooseEpoch,
    pub seed: u64,
}

impl Settings {
    /// The defaults of `star run`: one prompt for generation, training and test, verified
    /// rationales, room for whole answers; the report's optimizer settings.
    pub fn sound() -> Self {
        Self {
            preset: "sound".to_owned(),
            eval_prompt: "basic".to_owned(),
            bootstrap_prompt: "basic".to_owned(),
            hint_prompt: "hint".to_owned(),
            training_prompt: "basic".to_owned(),
            prompt_format: FormatChoice::Auto,
            max_tokens: 1024,
            rule: "numeric".to_owned(),
            policy: AcceptPolicy::Sound,
            solutions: Solutions::WithoutAnnotations,
            num_train: None,
            num_test: None,
            held_out_fraction: 0.03,
            max_held_out: 250,
            forward_attempts: 1,
            hint_attempts: 1,
            resample_temperature: 0.7,
            resample_top_p: 0.95,
            epochs: 4,
            lr: 1e-5,
            batch_size: 8,
            max_length: 1024,
            validation_fraction: 0.1,
            choose_epoch: ChooseEpoch::BestOnHeldOut,
            seed: 0,
        }
    }

    /// What the reference report did, word for word where it says so.
    pub fn report() -> Self {
        Self {
            preset: "report".to_owned(),
            eval_prompt: "marked".to_owned(),
            bootstrap_prompt: "basic-forward".to_owned(),
            training_prompt: "sft".to_owned(),
            max_tokens: 256,
            rule: "report".to_owned(),
            policy: AcceptPolicy::Report,
            solutions: Solutions::AsWritten,
            choose_epoch: ChooseEpoch::Last,
            ..Self::sound()
        }
    }

    /// `star demo`: a model of a million parameters on two cores in a few minutes. A small model that
    /// was just pre-trained takes a learning rate thirty times that of a 3B one.
    pub fn demo() -> Self {
        Self {
            preset: "demo".to_owned(),
            prompt_format: FormatChoice::Plain,
            // The longest demo solution has six steps; what is longer runs on without end.
            max_tokens: 256,
            // A third of what is there: enough for a clear result, in a third of the time.
            num_train: Some(1000),
            held_out_fraction: 0.1,
            max_held_out: 150,
            hint_attempts: 2,
            epochs: 3,
            lr: 3e-4,
            batch_size: 16,
            max_length: 512,
            ..Self::sound()
        }
    }
}
