//! The settings that stand beside every result: enough to run it again, to refuse to mix two runs in
//! one folder, and to refuse to compare what cannot be compared.

use std::path::Path;

use data::{
    answer::Rule,
    prompt::PromptFormat,
    question::Question,
    record::{Decoding, PromptStamp, TemplateStamp, WeightsStamp},
};
use serde::{Deserialize, Serialize};

use crate::{
    connection::{ModelInfo, ServerInfo},
    dataset::{self, Keys},
    sampling::Sampling,
};

/// This software, as results name it.
pub const SOFTWARE: &str = concat!("star ", env!("CARGO_PKG_VERSION"));

/// Everything that can change a result, and what made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub software: String,
    /// `eval` or `bootstrap`.
    pub kind: String,
    pub dataset: DatasetStamp,
    pub prompt: PromptStamp,
    /// Bootstrapping only.
    pub hint_prompt: Option<PromptStamp>,
    pub prompt_format: PromptFormat,
    /// `None` where prompts go to the model as plain text.
    pub template: Option<TemplateStamp>,
    /// Of the first sample of each prompt.
    pub decoding: Decoding,
    /// Of further samples; bootstrapping only.
    pub resampling: Option<Decoding>,
    pub seed: u64,
    pub rule: Rule,
    #[serde(flatten)]
    pub sampling: Sampling,
    pub iteration: u32,
    pub weights: WeightsStamp,
    pub model: ModelStamp,
    pub server: ServerStamp,
}

/// Which questions were put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetStamp {
    pub path: String,
    /// Of the whole file.
    pub sha256: String,
    /// Of the ids and gold answers of the questions that were put, in order.
    pub selection_sha256: String,
    pub num_questions: u64,
    /// What its fields are called.
    #[serde(default, skip_serializing_if = "Keys::are_default")]
    pub keys: Keys,
}

impl DatasetStamp {
    /// The questions of the file, where it still lies there as it was.
    pub(crate) fn find_questions(&self) -> Option<Vec<Question>> {
        let set = dataset::read(Path::new(&self.path), &self.keys).ok()?;
        (set.sha256 == self.sha256).then_some(set.questions)
    }

    /// As a person tells two selections apart.
    fn selection(&self) -> String {
        format!(
            "{} questions, {}",
            self.num_questions, self.selection_sha256
        )
    }
}

/// The model behind the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStamp {
    pub architecture: String,
    pub num_parameters: u64,
    pub dtype: String,
}

impl From<&ModelInfo> for ModelStamp {
    fn from(model: &ModelInfo) -> Self {
        Self {
            architecture: model.architecture.clone(),
            num_parameters: model.num_parameters,
            dtype: model.dtype.clone(),
        }
    }
}

/// The server that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStamp {
    pub version: String,
}

impl From<&ServerInfo> for ServerStamp {
    fn from(server: &ServerInfo) -> Self {
        Self {
            version: server.version.clone(),
        }
    }
}

/// A setting that differs between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub field: &'static str,
    pub left: String,
    pub right: String,
}

impl Manifest {
    /// What differs of the settings that decide what is asked and how it is judged: two runs of
    /// different weights without such a difference may be compared.
    pub fn differences_in_method(&self, other: &Self) -> Vec<Difference> {
        differences(self.method(), other.method())
    }

    /// What differs of anything that makes a run the same run: none, and it may be continued.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let weights = |manifest: &Self| ("weights digest", manifest.weights.digest.clone());
        let mut left = self.method();
        let mut right = other.method();
        left.push(weights(self));
        right.push(weights(other));
        differences(left, right)
    }

    fn method(&self) -> Vec<(&'static str, String)> {
        let decoding = |decoding: &Decoding| {
            format!(
                "temperature {} top_p {} top_k {} max_tokens {} stop {:?}",
                decoding.temperature,
                decoding.top_p,
                decoding.top_k,
                decoding.max_tokens,
                decoding.stop
            )
        };
        let prompt = |prompt: &PromptStamp| format!("{} {}", prompt.name, prompt.digest);
        let none = || "none".to_owned();
        let sampling = self.sampling;
        vec![
            ("kind of run", self.kind.clone()),
            ("dataset", self.dataset.sha256.clone()),
            ("choice of questions", self.dataset.selection()),
            ("prompt", prompt(&self.prompt)),
            (
                "hint prompt",
                self.hint_prompt.as_ref().map_or_else(none, prompt),
            ),
            ("prompt format", self.prompt_format.as_str().to_owned()),
            (
                "chat template",
                self.template.as_ref().map_or_else(none, TemplateStamp::key),
            ),
            ("decoding", decoding(&self.decoding)),
            (
                "decoding of further samples",
                self.resampling.as_ref().map_or_else(none, decoding),
            ),
            ("seed", self.seed.to_string()),
            ("extraction rule", self.rule.to_string()),
            ("samples", sampling.samples.to_string()),
            ("extra samples", sampling.extra_samples.to_string()),
            ("forward samples", sampling.max_forward.to_string()),
            ("hint attempts", sampling.max_hints.to_string()),
            ("iteration", self.iteration.to_string()),
        ]
    }
}

fn differences(
    left: Vec<(&'static str, String)>,
    right: Vec<(&'static str, String)>,
) -> Vec<Difference> {
    left.into_iter()
        .zip(right)
        .filter(|(left, right)| left.1 != right.1)
        .map(|(left, right)| Difference {
            field: left.0,
            left: left.1,
            right: right.1,
        })
        .collect()
}
