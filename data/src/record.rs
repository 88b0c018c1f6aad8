//! The records that go to disk: every attempt with its provenance, and the accepted rationales.
//!
//! An [`Attempt`] is one generation for one question; all are kept, right and wrong. The accepted
//! set ([`AcceptedRecord`]) is a filter over attempts (see [`crate::select`]). The fields of an
//! attempt are enough to know which data, weights, prompt, template, decoding and rule made it, and
//! to skip it on resume ([`Attempt::key`]).

use crate::{
    answer::{Extraction, Flag, Rule},
    digest::sha256_hex,
    leak::LeakReason,
    number::Number,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One generation for one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub dataset_sha256: String,
    pub question_id: String,
    /// Turn of the STaR loop, from 0.
    pub iteration: u32,
    pub source: Source,
    /// Which of several samples of the same prompt, from 0.
    pub sample: u32,
    pub weights: WeightsStamp,
    pub prompt: PromptStamp,
    /// `None` where the prompt went to the model as plain text.
    pub template: Option<TemplateStamp>,
    pub decoding: Decoding,
    pub seed: u64,
    pub text: String,
    /// Generated tokens, the one that ended the answer included.
    pub num_tokens: u32,
    pub finish_reason: FinishReason,
    pub rule: Rule,
    pub value: Option<Number>,
    pub gold: Number,
    pub verdict: Verdict,
    #[serde(default)]
    pub flags: Vec<Flag>,
    /// Only ever set on hint attempts.
    #[serde(default)]
    pub leaks: Vec<LeakReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Forward,
    Hint,
}

/// Which weights made an answer, as the server reports it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightsStamp {
    pub version: u64,
    pub digest: String,
    pub checkpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PromptStamp {
    pub name: String,
    pub digest: String,
}

/// The chat template and the date pinned in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TemplateStamp {
    pub name: String,
    pub digest: String,
    pub date: String,
}

/// Everything that decides how tokens are drawn, the seed apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// 0 is greedy.
    pub temperature: f32,
    pub top_p: f32,
    /// 0 is all.
    pub top_k: u32,
    pub max_tokens: u32,
    #[serde(default)]
    pub stop: Vec<String>,
}

impl Decoding {
    pub fn greedy(max_tokens: u32) -> Decoding {
        Decoding {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            max_tokens,
            stop: Vec::new(),
        }
    }

    /// SHA-256 over the settings, hexadecimal; equal settings have equal digests.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("plain numbers and texts always serialise");
        sha256_hex(&json)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-text token or a stop string.
    Stop,
    /// The token limit or the context was reached: the text is cut.
    Length,
    /// The request's time limit passed: the text is cut.
    TimeLimit,
}

impl FinishReason {
    pub fn is_cut(self) -> bool {
        self != FinishReason::Stop
    }
}

/// The four classes an attempt falls into; they sum to the attempts made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Right,
    Wrong,
    /// The text ended by itself and holds no number that the rule finds.
    NoAnswer,
    /// The text was cut, whatever it contains: a number in it may be a step's, not the answer.
    Truncated,
}

impl Verdict {
    pub const ALL: [Verdict; 4] = [
        Verdict::Right,
        Verdict::Wrong,
        Verdict::NoAnswer,
        Verdict::Truncated,
    ];

    /// Whether there was a whole text with an answer in it, right or wrong.
    pub fn is_judged(self) -> bool {
        matches!(self, Verdict::Right | Verdict::Wrong)
    }

    pub fn judge(extraction: &Extraction, finish_reason: FinishReason, gold: Number) -> Verdict {
        if finish_reason.is_cut() {
            Verdict::Truncated
        } else if extraction.is_right(gold) {
            Verdict::Right
        } else if extraction.found_by.is_some() {
            Verdict::Wrong
        } else {
            Verdict::NoAnswer
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Right => "right",
            Verdict::Wrong => "wrong",
            Verdict::NoAnswer => "no answer",
            Verdict::Truncated => "truncated",
        })
    }
}

/// What makes an attempt the same attempt: one with this key in the log is not made again.
///
/// The seed is part of it, text and outcome are not. Weights count by digest, not by version
/// number, which starts anew with every server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    pub dataset_sha256: String,
    pub question_id: String,
    pub iteration: u32,
    pub source: Source,
    pub sample: u32,
    pub weights_digest: String,
    pub prompt_digest: String,
    /// Empty where the prompt went to the model as plain text.
    pub template: String,
    pub decoding_digest: String,
    pub seed: u64,
}

impl Attempt {
    pub fn key(&self) -> AttemptKey {
        AttemptKey {
            dataset_sha256: self.dataset_sha256.clone(),
            question_id: self.question_id.clone(),
            iteration: self.iteration,
            source: self.source,
            sample: self.sample,
            weights_digest: self.weights.digest.clone(),
            prompt_digest: self.prompt.digest.clone(),
            template: self
                .template
                .as_ref()
                .map(TemplateStamp::key)
                .unwrap_or_default(),
            decoding_digest: self.decoding.digest(),
            seed: self.seed,
        }
    }
}

impl TemplateStamp {
    /// Digest and date in one text, the form that [`AttemptKey`] holds.
    pub fn key(&self) -> String {
        format!("{} {}", self.digest, self.date)
    }
}

/// A rationale that is fit to train on, in the reference report's format with optional fields after
/// it. Readers need the first three only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRecord {
    pub question: String,
    pub gold_answer: String,
    pub rationale: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_digest: Option<String>,
    /// Digest of the prompt that made the rationale; a hint prompt's for a hint attempt. Training
    /// always puts a forward prompt before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_digest: Option<String>,
}

#[cfg(test)]
pub(crate) mod tests;
