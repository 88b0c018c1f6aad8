//! What several samples of each question tell: the mean over questions with an error clustered by
//! question, pass@k and the majority vote.

use data::{
    number::Number,
    record::{Attempt, Verdict},
    stats::{
        Interval,
        clustered::{SampleCounts, clustered_mean},
        samples::{majority, majority_chance, num_leading, pass_at_k},
        wilson,
    },
};
use serde::{Deserialize, Serialize};

/// How [`Majority::num_right`] breaks ties; it is printed beside the number.
const TIE_RULE: &str = "first seen";

/// What several samples of each question tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleScores {
    /// Of each question.
    pub samples: u32,
    pub num_questions: u64,
    /// Of the mean over questions, each question one observation: its samples are not independent.
    pub standard_error: f64,
    /// For 1, 2, 4, … and the number of samples.
    pub pass_at: Vec<PassAt>,
    pub majority: Majority,
}

/// Chance that one of `k` samples is right: the unbiased estimate, mean over questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PassAt {
    pub k: u32,
    pub share: f64,
}

/// The most frequent answer of each question. Samples without an answer and samples that were cut
/// have no vote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Majority {
    pub tie_rule: String,
    /// Questions whose most frequent answer is right; of equally frequent ones the first seen counts.
    pub num_right: u64,
    pub share: f64,
    /// Wilson's, over questions.
    pub interval: Interval,
    /// Expected share where ties are broken at random.
    pub share_with_random_ties: f64,
    /// Questions with several most frequent answers.
    pub num_tied: u64,
    /// Questions without one vote.
    pub num_without_vote: u64,
}

/// The samples of one question.
struct Asked {
    counts: SampleCounts,
    gold: Number,
    /// In the order of the samples.
    votes: Vec<Option<Number>>,
}

impl SampleScores {
    /// Scores attempts in which those of one question stand together, with the 95 % interval of
    /// their accuracy.
    pub(super) fn of(samples: u32, attempts: &[Attempt]) -> (Self, Interval) {
        let same_question = |left: &Attempt, right: &Attempt| left.question_id == right.question_id;
        let asked: Vec<Asked> = attempts.chunk_by(same_question).map(Asked::of).collect();
        let counts: Vec<SampleCounts> = asked.iter().map(|it| it.counts).collect();
        let accuracy = clustered_mean(&counts);
        let scores = Self {
            samples,
            num_questions: asked.len() as u64,
            standard_error: accuracy.map_or(0.0, |it| it.standard_error),
            pass_at: pass_at(samples, &asked),
            majority: Majority::of(&asked),
        };
        let interval = accuracy.map_or_else(|| wilson(0, 0), |it| it.interval);
        (scores, interval)
    }

    /// The lines for people.
    pub(crate) fn text(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let pass = |pass: &PassAt| format!("pass@{} {}", pass.k, percent(pass.share));
        let pass: Vec<String> = self.pass_at.iter().map(pass).collect();
        let majority = &self.majority;
        vec![
            format!(
                "samples      {} of each of {} questions; standard error {:.2} points, clustered by \
                 question",
                self.samples,
                self.num_questions,
                self.standard_error * 100.0
            ),
            format!("pass@k       {}", pass.join(", ")),
            format!(
                "maj@{:<8} {}/{} = {} [{:.2}, {:.2}] (tie rule: {}); {} expected where ties are \
                 broken at random",
                self.samples,
                majority.num_right,
                self.num_questions,
                percent(majority.share),
                majority.interval.low * 100.0,
                majority.interval.high * 100.0,
                majority.tie_rule,
                percent(majority.share_with_random_ties)
            ),
            format!(
                "votes        {} questions tied, {} without a vote; cut answers and those without a \
                 number do not vote",
                majority.num_tied, majority.num_without_vote
            ),
        ]
    }
}

impl Asked {
    /// Samples come back in any order; the vote is over them in theirs.
    fn of(attempts: &[Attempt]) -> Self {
        let mut attempts: Vec<&Attempt> = attempts.iter().collect();
        attempts.sort_by_key(|attempt| attempt.sample);
        let is_right = |attempt: &&&Attempt| attempt.verdict == Verdict::Right;
        Self {
            counts: SampleCounts {
                num_right: attempts.iter().filter(is_right).count() as u64,
                num_samples: attempts.len() as u64,
            },
            gold: attempts[0].gold,
            votes: attempts
                .iter()
                .map(|attempt| attempt.value.filter(|_| !attempt.finish_reason.is_cut()))
                .collect(),
        }
    }
}

fn pass_at(samples: u32, asked: &[Asked]) -> Vec<PassAt> {
    let powers = (0..).map(|power| 1_u32 << power);
    let powers = powers.take_while(|power| *power < samples);
    powers
        .chain([samples])
        .map(|k| {
            let chances = asked.iter().map(|it| {
                let SampleCounts {
                    num_right,
                    num_samples,
                } = it.counts;
                pass_at_k(num_samples, num_right, u64::from(k)).expect("k samples were made")
            });
            PassAt {
                k,
                share: chances.sum::<f64>() / asked.len().max(1) as f64,
            }
        })
        .collect()
}

impl Majority {
    fn of(asked: &[Asked]) -> Self {
        let count = |what: &dyn Fn(&Asked) -> bool| asked.iter().filter(|it| what(it)).count();
        let total = asked.len() as u64;
        let num_right = count(&|it| majority(&it.votes) == Some(it.gold)) as u64;
        let chances = asked.iter().map(|it| majority_chance(&it.votes, it.gold));
        Self {
            tie_rule: TIE_RULE.to_owned(),
            num_right,
            share: num_right as f64 / total.max(1) as f64,
            interval: wilson(num_right, total),
            share_with_random_ties: chances.sum::<f64>() / total.max(1) as f64,
            num_tied: count(&|it| num_leading(&it.votes) > 1) as u64,
            num_without_vote: count(&|it| num_leading(&it.votes) == 0) as u64,
        }
    }
}

#[cfg(test)]
mod tests;
