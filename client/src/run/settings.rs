//! Every setting of an experiment that can change its numbers. The presets are in `presets`.

mod presets;

use clap::ValueEnum;
use data::{answer::Rule, select::Policy};
use serde::{Deserialize, Serialize};
use trainer::schedule::ScheduleKind;

use crate::{dataset::Keys, sampling::Sampling, session::FormatChoice};

/// Which epoch's checkpoint is put to the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ChooseEpoch {
    /// Most right answers on the held-out questions; of equals the earlier.
    BestOnHeldOut,
    Last,
}

/// What vanilla SFT learns of GSM8K's calculator annotations (`<<2*3=6>>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Solutions {
    #[value(name = "keep")]
    AsWritten,
    /// Nothing calculates for the model at test time, so the annotations are only noise there.
    #[value(name = "strip")]
    WithoutAnnotations,
}

/// What an iteration's fine-tuning starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// The untouched model, every time: Algorithm 1 of the paper (Zelikman et al. 2022).
    Base,
    /// The last iteration's checkpoint.
    Previous,
}

/// What an iteration's fine-tuning learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Rationales {
    /// Those of this iteration, as in the paper.
    ThisIteration,
    /// Those of all iterations so far, selected together.
    AllIterations,
}

/// When the test questions are put to the models of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestWhen {
    /// Once, to the iteration that the held-out questions chose.
    AtTheEnd,
    /// After each iteration, too: for a curve. Nothing is chosen by it.
    EachIteration,
}

/// What happens where training and evaluation put another prompt before the same question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptMismatch {
    Refuse,
    /// A warning: published settings do it.
    Allow,
}

/// The turns of the STaR loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoopSettings {
    /// At most so many turns of bootstrapping and fine-tuning.
    pub iterations: u32,
    /// The loop ends after so many iterations in a row without more right held-out answers.
    pub patience: u32,
    pub restart: Restart,
    pub rationales: Rationales,
    /// Optimizer steps of the first iteration; `None` is whole epochs over all rationales.
    pub first_steps: Option<u64>,
    /// Each iteration trains this many times as long as the one before.
    pub growth: f64,
    pub test_when: TestWhen,
}

/// Fine-tuning, of both kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuningSettings {
    pub epochs: u32,
    pub lr: f64,
    pub lr_schedule: ScheduleKind,
    pub warmup_steps: u64,
    pub batch_size: u32,
    pub max_length: u32,
    /// Share of the training examples whose loss is only watched.
    pub validation_fraction: f64,
    pub choose_epoch: ChooseEpoch,
    pub solutions: Solutions,
    /// More flags of `trainer sft`, such as those of LoRA, as they are.
    pub trainer_args: Vec<String>,
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
    pub prompt_mismatch: PromptMismatch,
    pub prompt_format: FormatChoice,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    pub rule: Rule,
    pub sampling: Sampling,
    /// Of every sample but a prompt's first, which is greedy.
    pub resample_temperature: f32,
    pub resample_top_p: f32,
    /// Which rationales become training data.
    pub policy: Policy,
    /// What the fields of the question files are called.
    #[serde(default, skip_serializing_if = "Keys::are_default")]
    pub keys: Keys,
    /// Only the first so many questions of the file.
    pub num_train: Option<usize>,
    pub num_test: Option<usize>,
    /// Share of the training questions held out before bootstrapping, by question.
    pub held_out_fraction: f64,
    /// At most so many of the held-out questions are put after each epoch.
    pub max_held_out: usize,
    pub star: LoopSettings,
    pub tuning: TuningSettings,
    pub seed: u64,
}

impl Settings {
    /// All settings in a paragraph, for people.
    pub fn text(&self) -> String {
        const WIDTH: usize = 100;
        let mut text = String::from("settings:");
        let mut width = text.len();
        for line in self.lines() {
            let line = line.replace(" = ", " ").replace('"', "");
            if width + line.len() + 2 > WIDTH {
                text.push_str("\n ");
                width = 1;
            }
            width += line.len() + 2;
            text.push(' ');
            text.push_str(&line);
            text.push(';');
        }
        text.pop();
        text
    }

    /// One `name = value` a line, for people; nested groups have dotted names.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        flatten("", &self.to_json(), &mut lines);
        lines
    }

    /// By way of text, in which a number is as short as the user wrote it: an f32 of 0.7 is no
    /// 0.699999988.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let text = serde_json::to_string(self).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn flatten(name: &str, value: &serde_json::Value, lines: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() {
                    field.clone()
                } else {
                    format!("{name}.{field}")
                };
                flatten(&name, value, lines);
            }
        }
        None => lines.push(format!("{name} = {value}")),
    }
}
