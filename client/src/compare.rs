//! Two evaluations over the same questions, paired: exact McNemar and the difference's interval, or a
//! paired mean difference where there are several samples of each question. Runs that differ in more
//! than their weights are not compared unless the user insists.

mod runs;
mod text;

use std::collections::{BTreeMap, HashSet};

use data::{
    record::{Attempt, Verdict},
    stats::{
        Interval, PairedCounts,
        clustered::{SampleCounts, clustered_difference},
    },
};
use serde::{Deserialize, Serialize};

use crate::error::ClientError;

pub(crate) use runs::SIGNIFICANT;
pub use runs::{ComparedRuns, Example, Examples, How, Outcome, Run, Strictness};

/// The second run against the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub first: String,
    pub second: String,
    pub counts: PairedCounts,
    /// Second minus first, from -1 to 1.
    pub difference: f64,
    /// 95 %.
    pub interval: Interval,
    /// Exact McNemar, two-sided.
    pub p_value: f64,
}

/// [`Comparison`] for runs with several samples of each question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledComparison {
    pub first: String,
    pub second: String,
    pub num_questions: u64,
    /// Questions with a larger share of right samples in the second run.
    pub num_better: u64,
    pub num_worse: u64,
    /// Mean over questions of the second run's share minus the first's, from -1 to 1.
    pub difference: f64,
    /// Of the mean, each question one observation.
    pub standard_error: f64,
    /// 95 %.
    pub interval: Interval,
}

/// One question in both runs.
struct Pair<'a> {
    id: &'a str,
    first: Vec<&'a Attempt>,
    second: Vec<&'a Attempt>,
}

impl Pair<'_> {
    /// The second run's share of right samples minus the first's.
    fn difference(&self) -> f64 {
        sample_counts(&self.second).share() - sample_counts(&self.first).share()
    }
}

fn sample_counts(attempts: &[&Attempt]) -> SampleCounts {
    let right = attempts.iter().filter(|it| it.verdict == Verdict::Right);
    SampleCounts {
        num_right: right.count() as u64,
        num_samples: attempts.len() as u64,
    }
}

/// Pairs attempts by question, in the order of the ids. Both runs must hold the same questions.
fn pairs<'a>(
    (first, ours): (&str, &'a [Attempt]),
    (second, theirs): (&str, &'a [Attempt]),
) -> Result<Vec<Pair<'a>>, ClientError> {
    let mut by_id: BTreeMap<&str, Pair<'a>> = BTreeMap::new();
    for attempt in ours {
        by_id
            .entry(&attempt.question_id)
            .or_insert_with(|| Pair {
                id: &attempt.question_id,
                first: Vec::new(),
                second: Vec::new(),
            })
            .first
            .push(attempt);
    }
    let mut foreign = HashSet::new();
    for attempt in theirs {
        match by_id.get_mut(attempt.question_id.as_str()) {
            Some(pair) => pair.second.push(attempt),
            None => {
                foreign.insert(&attempt.question_id);
            }
        }
    }
    if let Some(alone) = by_id.values().find(|pair| pair.second.is_empty()) {
        let problem = format!("question {} is in {first} but not in {second}", alone.id);
        return Err(ClientError::NotComparable(problem));
    }
    if !foreign.is_empty() {
        let (ours, theirs) = (by_id.len(), by_id.len() + foreign.len());
        let problem = format!("{first} has {ours} questions, {second} has {theirs}");
        return Err(ClientError::NotComparable(problem));
    }
    Ok(by_id.into_values().collect())
}

impl SampledComparison {
    fn of_pairs((first, second): (&str, &str), pairs: &[Pair<'_>]) -> Self {
        let differences = pairs.iter().map(Pair::difference);
        let count = |sign: f64| differences.clone().filter(|it| it * sign > 0.0).count() as u64;
        let both = |pair: &Pair<'_>| (sample_counts(&pair.first), sample_counts(&pair.second));
        let counts: Vec<(SampleCounts, SampleCounts)> = pairs.iter().map(both).collect();
        let estimate = clustered_difference(&counts);
        let nothing = Interval {
            low: -1.0,
            high: 1.0,
        };
        Self {
            first: first.to_owned(),
            second: second.to_owned(),
            num_questions: pairs.len() as u64,
            num_better: count(1.0),
            num_worse: count(-1.0),
            difference: estimate.map_or(0.0, |it| it.mean),
            standard_error: estimate.map_or(0.0, |it| it.standard_error),
            interval: estimate.map_or(nothing, |it| it.interval),
        }
    }
}

impl Comparison {
    /// Pairs attempts by question: one each. Both runs must hold the same questions.
    pub fn of(first: (&str, &[Attempt]), second: (&str, &[Attempt])) -> Result<Self, ClientError> {
        let pairs = pairs(first, second)?;
        Ok(Self::of_pairs((first.0, second.0), &pairs))
    }

    fn of_pairs((first, second): (&str, &str), pairs: &[Pair<'_>]) -> Self {
        let right = |attempts: &[&Attempt]| attempts[0].verdict == Verdict::Right;
        let rights = pairs.iter().map(|it| (right(&it.first), right(&it.second)));
        let counts = PairedCounts::from_pairs(rights);
        Self {
            first: first.to_owned(),
            second: second.to_owned(),
            counts,
            difference: counts.difference(),
            interval: counts.difference_interval(),
            p_value: counts.mcnemar_exact(),
        }
    }
}

/// Four digits, or an exponent where that would be zero.
pub(crate) fn p_text(p: f64) -> String {
    if p >= 1e-3 {
        format!("{p:.4}")
    } else {
        format!("{p:.2e}")
    }
}

#[cfg(test)]
mod tests;
