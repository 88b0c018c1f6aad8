//! Two folders of evaluations: what may be compared, what came out, and questions to look at.

use std::{collections::HashMap, path::Path};

use data::{
    number::Number,
    record::{Attempt, Verdict},
};
use serde::Serialize;

use super::{Comparison, Pair, SampledComparison, pairs};
use crate::{
    collect::{ATTEMPTS_FILE, MANIFEST_FILE},
    error::ClientError,
    eval::read_attempts,
    files,
    manifest::{Difference, Manifest},
};

/// A difference with a smaller p-value is called significant.
pub(crate) const SIGNIFICANT: f64 = 0.05;
/// Of an output, so many characters are shown.
const MAX_END_CHARS: usize = 160;

/// A finished evaluation on disk.
#[derive(Debug)]
pub struct Run {
    name: String,
    manifest: Manifest,
    attempts: Vec<Attempt>,
}

/// Whether differing settings stop a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Refuse,
    Force,
}

/// How runs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    pub strictness: Strictness,
    /// Questions of each kind that are shown.
    pub max_examples: usize,
}

/// The second run against the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedRuns {
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The second run is below the first.
    pub worse: bool,
    /// p < 0.05, or an interval without 0 where there are several samples.
    pub significant: bool,
    /// Settings that differ; none unless the comparison was forced.
    pub differences: Vec<Difference>,
    /// Right more often in the second run.
    pub fixed: Examples,
    /// Right more often in the first run.
    pub broken: Examples,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// One answer to each question.
    Single(Comparison),
    Sampled(SampledComparison),
}

/// Questions to look at: those with the largest difference, in the order of the question file where
/// it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examples {
    pub total: u64,
    pub shown: Vec<Example>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    pub question_id: String,
    /// `None` where the question file is not where the manifest says, or is another.
    pub question: Option<String>,
    pub gold: Number,
    pub first: ExampleOutput,
    pub second: ExampleOutput,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExampleOutput {
    pub verdict: Verdict,
    /// In one line.
    pub end_of_text: String,
}

impl Run {
    /// Reads the folder of a finished evaluation.
    pub fn read(folder: &Path) -> Result<Self, ClientError> {
        let path = folder.join(MANIFEST_FILE);
        let manifest: Manifest = files::require_json(&path)?;
        let bad = |problem: String| ClientError::BadFile {
            path: path.clone(),
            problem,
        };
        if manifest.kind != "eval" {
            let kind = &manifest.kind;
            return Err(bad(format!("expected an evaluation, found kind {kind:?}")));
        }
        let attempts = read_attempts(&folder.join(ATTEMPTS_FILE))?;
        let expected = manifest.dataset.num_questions * u64::from(manifest.sampling.samples);
        if attempts.len() as u64 != expected {
            let found = attempts.len();
            return Err(bad(format!(
                "the evaluation is not finished: {found} of {expected} answers are there. The \
                 command that it was started with goes on with it"
            )));
        }
        Ok(Self {
            name: folder.display().to_string(),
            manifest,
            attempts,
        })
    }

    /// All of its answers, each once.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// This run, the untouched model's, against another.
    pub fn against(&self, other: &Self, how: How) -> Result<ComparedRuns, ClientError> {
        let differences = self.manifest.differences_in_method(&other.manifest);
        if how.strictness == Strictness::Refuse && !differences.is_empty() {
            return Err(refusal(&differences));
        }
        let (first, second) = (self.name.as_str(), other.name.as_str());
        let mut pairs = pairs((first, &self.attempts), (second, &other.attempts))?;
        let samples = |run: &Self| run.manifest.sampling.samples;
        let outcome = if samples(self).max(samples(other)) > 1 {
            Outcome::Sampled(SampledComparison::of_pairs((first, second), &pairs))
        } else {
            Outcome::Single(Comparison::of_pairs((first, second), &pairs))
        };
        let questions = self.questions().or_else(|| other.questions());
        let questions = questions.unwrap_or_default();
        let place = |pair: &Pair<'_>| questions.get(pair.id).map(|(place, _)| *place);
        pairs.sort_by_key(place);
        let examples = |sign: f64| {
            // Stable, so that equal differences stay in the order of the questions.
            let mut found: Vec<&Pair<'_>> = pairs
                .iter()
                .filter(|it| it.difference() * sign > 0.0)
                .collect();
            found.sort_by(|left, right| {
                right.difference().abs().total_cmp(&left.difference().abs())
            });
            let shown = found.iter().take(how.max_examples);
            let text = |pair: &Pair<'_>| questions.get(pair.id).map(|(_, text)| text.clone());
            Examples {
                total: found.len() as u64,
                shown: shown.map(|pair| example(pair, text(pair))).collect(),
            }
        };
        Ok(ComparedRuns {
            worse: outcome.difference() < 0.0,
            significant: outcome.is_significant(),
            fixed: examples(1.0),
            broken: examples(-1.0),
            differences,
            outcome,
        })
    }

    /// Place and text by id, from the very file that was asked.
    fn questions(&self) -> Option<HashMap<String, (usize, String)>> {
        let list = self.manifest.dataset.find_questions()?;
        let list = list.into_iter().enumerate();
        let by_id = list.map(|(place, it)| (it.id, (place, it.question)));
        Some(by_id.collect())
    }
}

impl Outcome {
    pub fn names(&self) -> (&str, &str) {
        match self {
            Self::Single(it) => (&it.first, &it.second),
            Self::Sampled(it) => (&it.first, &it.second),
        }
    }

    /// Second minus first, from -1 to 1.
    pub fn difference(&self) -> f64 {
        match self {
            Self::Single(it) => it.difference,
            Self::Sampled(it) => it.difference,
        }
    }

    fn is_significant(&self) -> bool {
        match self {
            Self::Single(it) => it.p_value < SIGNIFICANT,
            Self::Sampled(it) => it.interval.low > 0.0 || it.interval.high < 0.0,
        }
    }
}

fn refusal(differences: &[Difference]) -> ClientError {
    let told = |it: &Difference| format!("{} ({} against {})", it.field, it.left, it.right);
    let all: Vec<String> = differences.iter().map(told).collect();
    ClientError::OtherMethod(all.join("; "))
}

/// A sample that is right where the run was right more often, one that is not from the other.
fn example(pair: &Pair<'_>, question: Option<String>) -> Example {
    let is_fixed = pair.difference() > 0.0;
    let output = |attempts: &[&Attempt], wants_right: bool| {
        let fits = |it: &&&Attempt| (it.verdict == Verdict::Right) == wants_right;
        let of_kind = attempts.iter().filter(fits);
        let attempt = of_kind.min_by_key(|attempt| attempt.sample);
        let attempt = attempt.unwrap_or(&attempts[0]);
        ExampleOutput {
            verdict: attempt.verdict,
            end_of_text: end_of(&attempt.text),
        }
    };
    Example {
        question_id: pair.id.to_owned(),
        question,
        gold: pair.first[0].gold,
        first: output(&pair.first, !is_fixed),
        second: output(&pair.second, is_fixed),
    }
}

/// The end of a text, in one line.
fn end_of(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let num_chars = line.chars().count();
    if num_chars <= MAX_END_CHARS {
        return line;
    }
    let end = line.chars().skip(num_chars - MAX_END_CHARS);
    std::iter::once('…').chain(end).collect()
}
