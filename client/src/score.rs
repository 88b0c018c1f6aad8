//! Texts that are on disk, of whatever origin, judged under every rule side by side.

mod keys;
mod read;

use std::{collections::HashMap, path::Path};

use data::{
    answer::{Flag, Rule, extract_all},
    number::Number,
    stats::{
        Interval,
        clustered::{Estimate, SampleCounts, clustered_mean},
        wilson,
    },
};
use serde::{Deserialize, Serialize};

use crate::{collect::ATTEMPTS_FILE, error::ClientError};

pub use read::{Chosen, GoldSource, LookUp, OutputKeys};

/// A text to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What tells its question from others; `None` where the file does not say.
    pub question: Option<String>,
    pub knew: Knew,
    pub text: String,
    pub gold: Number,
    pub end: End,
}

/// What the prompt behind a text told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knew {
    Question,
    /// The answer, too: a hint attempt of bootstrapping, which says little of what the model can do.
    Answer,
}

/// How a text ended, as its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Whole,
    /// By a limit: never right, whatever it contains.
    Cut,
    /// The file does not say. It is judged as if it were whole.
    Untold,
}

/// What all rules make of a file's texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreSummary {
    pub file: String,
    pub num_outputs: u64,
    /// `None` where the file does not say which question an output answers.
    pub num_questions: Option<u64>,
    /// `None` where the file does not say which texts were cut.
    pub num_cut: Option<u64>,
    /// Outputs whose prompt told the answer.
    #[serde(default)]
    pub num_hints: u64,
    /// Some questions have more outputs than others.
    #[serde(default)]
    pub uneven: bool,
    /// The rule that was asked for comes first.
    pub rules: Vec<RuleCounts>,
}

/// What one rule makes of them: right, wrong, missing and the cut ones sum to all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RuleCounts {
    pub rule: Rule,
    pub right: u64,
    pub wrong: u64,
    /// The rule finds no answer in so many whole texts.
    pub missing: u64,
    /// Right of all; where questions have several outputs, the mean over questions of each one's
    /// share, which is another number where some have more outputs than others.
    pub share: f64,
    /// 95 %: Wilson's, or clustered by question where some have several outputs.
    pub interval: Interval,
    /// Answers that no marker pointed at.
    pub fallback: u64,
    /// Answers of texts whose markers name different numbers.
    pub conflicting: u64,
}

/// Reads and judges a file, or the attempts in a run's folder; `first` is the rule that is shown first.
pub fn score_file(
    path: &Path,
    keys: &OutputKeys,
    first: Option<Rule>,
) -> Result<ScoreSummary, ClientError> {
    let log = path.join(ATTEMPTS_FILE);
    let path = if path.is_dir() { &log } else { path };
    Ok(judge(path, &read::read(path, keys)?, first))
}

fn judge(path: &Path, outputs: &[Output], first: Option<Rule>) -> ScoreSummary {
    let total = outputs.len() as u64;
    let questions = Questions::of(outputs);
    let num_questions = questions.as_ref().map(|it| it.num_outputs.len() as u64);
    let mut rules: Vec<RuleCounts> = Rule::ALL.map(RuleCounts::none).to_vec();
    let mut rights = Rule::ALL.map(|_| vec![false; outputs.len()]);
    for (index, output) in outputs.iter().enumerate() {
        if output.end == End::Cut {
            continue;
        }
        for (rule, extraction) in extract_all(&output.text).iter().enumerate() {
            let counts = &mut rules[rule];
            let found = extraction.found_by.is_some();
            let right = extraction.is_right(output.gold);
            rights[rule][index] = right;
            counts.right += u64::from(right);
            counts.wrong += u64::from(found && !right);
            counts.missing += u64::from(!found && !right);
            counts.fallback += u64::from(extraction.has_flag(Flag::Fallback));
            counts.conflicting += u64::from(extraction.has_flag(Flag::ConflictingMarkers));
        }
    }
    for (counts, rights) in rules.iter_mut().zip(&rights) {
        let several = questions.as_ref().filter(|_| num_questions < Some(total));
        (counts.share, counts.interval) = if let Some(mean) = several.and_then(|it| it.mean(rights))
        {
            (mean.mean, mean.interval)
        } else {
            let share = counts.right as f64 / total.max(1) as f64;
            (share, wilson(counts.right, total))
        };
    }
    // Stable: the others stay in their order.
    rules.sort_by_key(|counts| Some(counts.rule) != first);
    let count = |end: End| outputs.iter().filter(|output| output.end == end).count() as u64;
    ScoreSummary {
        file: path.display().to_string(),
        num_outputs: total,
        num_questions,
        num_hints: outputs.iter().filter(|it| it.knew == Knew::Answer).count() as u64,
        uneven: questions.is_some_and(|it| it.are_uneven()),
        num_cut: (count(End::Untold) == 0).then(|| count(End::Cut)),
        rules,
    }
}

/// Which outputs answer the same question.
struct Questions {
    /// Of each output, its question's place.
    place: Vec<usize>,
    /// Of each question.
    num_outputs: Vec<u64>,
}

impl Questions {
    /// `None` where an output does not tell.
    fn of(outputs: &[Output]) -> Option<Self> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut num_outputs = Vec::new();
        let place = outputs.iter().map(|output| {
            let place = *places
                .entry(output.question.as_deref()?)
                .or_insert_with(|| {
                    num_outputs.push(0);
                    num_outputs.len() - 1
                });
            num_outputs[place] += 1;
            Some(place)
        });
        let place = place.collect::<Option<Vec<usize>>>()?;
        Some(Self { place, num_outputs })
    }

    fn are_uneven(&self) -> bool {
        self.num_outputs.windows(2).any(|pair| pair[0] != pair[1])
    }

    /// The mean over questions; `None` for no questions.
    fn mean(&self, rights: &[bool]) -> Option<Estimate> {
        let counts = |&num_samples| SampleCounts {
            num_right: 0,
            num_samples,
        };
        let mut counts: Vec<SampleCounts> = self.num_outputs.iter().map(counts).collect();
        for (place, right) in self.place.iter().zip(rights) {
            counts[*place].num_right += u64::from(*right);
        }
        clustered_mean(&counts)
    }
}

impl RuleCounts {
    fn none(rule: Rule) -> Self {
        Self {
            rule,
            right: 0,
            wrong: 0,
            missing: 0,
            share: 0.0,
            interval: wilson(0, 0),
            fallback: 0,
            conflicting: 0,
        }
    }
}

impl ScoreSummary {
    /// The table for people.
    pub fn text(&self) -> String {
        let total = self.num_outputs;
        let cut = match self.num_cut {
            Some(cut) => format!("{cut} of them cut"),
            None => "which were cut is not told (--finish-key)".to_owned(),
        };
        let (questions, interval) = match self.num_questions {
            Some(count) if count < total => (format!(" to {count} questions"), "95 % clustered"),
            Some(_) => (String::new(), "95 % Wilson"),
            None => (
                ", each taken as the only one of its question (--id-key)".to_owned(),
                "95 % Wilson",
            ),
        };
        let mut lines = vec![
            format!("{}: {total} outputs{questions}, {cut}", self.file),
            format!(
                "{:<12} {:>18}  {:>16}  {:>7} {:>8} {:>9} {:>12}",
                "rule", "right", interval, "wrong", "missing", "fallback", "conflicting"
            ),
        ];
        for counts in &self.rules {
            let right = format!("{}/{total} {:.2} %", counts.right, counts.share * 100.0);
            let Interval { low, high } = counts.interval;
            let interval = format!("[{:.2}, {:.2}]", low * 100.0, high * 100.0);
            lines.push(format!(
                "{:<12} {right:>18}  {interval:>16}  {:>7} {:>8} {:>9} {:>12}",
                counts.rule.name(),
                counts.wrong,
                counts.missing,
                counts.fallback,
                counts.conflicting
            ));
        }
        if self.uneven {
            lines.push(
                "shares and intervals are over questions, each of the same weight: some have more \
                 outputs than others"
                    .to_owned(),
            );
        }
        if self.num_hints > 0 {
            lines.push(format!(
                "{} of the outputs are answers to a prompt that told the answer: --where \
                 source=forward leaves them out",
                self.num_hints
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
