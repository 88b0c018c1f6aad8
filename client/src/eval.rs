//! Evaluation: every question once, or several times, judged by every rule side by side, with
//! intervals and counts that close. A cut answer is its own class, whatever it contains.

mod samples;
mod text;

use std::{collections::HashSet, path::Path};

use data::{
    answer::{Rule, extract_all},
    append_log::read_log,
    question::Question,
    record::{Attempt, Verdict},
    stats::{Interval, percentile, wilson},
};
use serde::{Deserialize, Serialize};

use crate::{
    collect::{AttemptStore, Collected, Plan},
    error::ClientError,
    files,
    loss::{Examples, LossMethod, LossSummary, measure},
    manifest::Manifest,
    preflight::collect_after_look,
    sampling::Sampling,
    session::{Ask, Context, Method, Questions, Session},
};

pub use samples::{Majority, PassAt, SampleScores};

/// The result of an evaluation, beside its attempts.
pub const SUMMARY_FILE: &str = "summary.json";

/// The samples that the method asks for, and no more.
struct SamplesPlan(Sampling);

impl Plan for SamplesPlan {
    fn next(&self, _question: &Question, attempts: &[Attempt]) -> Vec<Ask> {
        self.0.missing(attempts)
    }
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    pub manifest: Manifest,
    pub counts: Classes,
    /// Right answers over answers, under the manifest's rule. With several samples this is the mean
    /// over questions of each one's share.
    pub accuracy: f64,
    /// 95 %: Wilson's, or clustered by question where there are several samples.
    pub interval: Interval,
    /// Only where there are several samples of each question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SampleScores>,
    /// Only where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossSummary>,
    /// All rules over the same outputs.
    pub rules: Vec<RuleScore>,
    /// Outputs that the manifest's rule finds an answer in, cut ones included, over outputs.
    pub extraction_rate: f64,
    pub truncation_rate: f64,
    pub tokens: TokenCounts,
    pub work: Work,
}

/// Where every answer went; the four classes sum to their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// As many as questions only where each was asked once. The alias is in older summaries.
    #[serde(alias = "questions")]
    pub attempts: u64,
    pub right: u64,
    pub wrong: u64,
    pub no_answer: u64,
    pub truncated: u64,
}

/// What one rule makes of the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleScore {
    pub rule: Rule,
    /// Right among the outputs that were not cut.
    pub right: u64,
    /// Right also where the output was cut: what an evaluator that ignores truncation reports.
    pub right_with_cut: u64,
    /// Outputs it finds an answer in.
    pub found: u64,
}

/// Lengths of the generated answers, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenCounts {
    pub total: u64,
    pub median: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: u64,
}

/// What it took. Only this invocation's work is timed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    pub num_made: u64,
    /// Taken from the log of an earlier, interrupted invocation.
    pub num_resumed: u64,
    pub seconds: f64,
    pub generated_tokens_per_second: f64,
    pub num_retries: u64,
    pub num_resent: u64,
}

impl From<Collected> for Work {
    fn from(collected: Collected) -> Self {
        let seconds = collected.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 {
            collected.num_generated_tokens as f64 / seconds
        } else {
            0.0
        };
        Self {
            num_made: collected.num_made,
            num_resumed: collected.num_resumed,
            seconds,
            generated_tokens_per_second: rate,
            num_retries: collected.counts.num_retries,
            num_resent: collected.counts.num_resent,
        }
    }
}

/// Evaluates the weights that the server holds and writes manifest, attempts and summary to `out`.
/// The same call goes on where an earlier one was stopped.
pub async fn evaluate(
    context: &Context,
    method: Method,
    questions: &Questions,
    out: &Path,
    label: &str,
) -> Result<EvalSummary, ClientError> {
    let session = Session::open(&context.server, method, questions, "eval").await?;
    evaluate_session(context, &session, questions, out, label).await
}

/// [`evaluate`] for a session that is open already: its weights are known, and no others answer.
pub async fn evaluate_session(
    context: &Context,
    session: &Session,
    questions: &Questions,
    out: &Path,
    label: &str,
) -> Result<EvalSummary, ClientError> {
    let mut store = AttemptStore::open(out, session.manifest())?;
    let plan = (label, &SamplesPlan(session.method().sampling));
    let collected = collect_after_look(context, session, questions, &mut store, plan).await?;
    let attempts = store.all(&questions.list);
    let path = out.join(SUMMARY_FILE);
    let summary = EvalSummary {
        loss: earlier_loss(&path, session.manifest()),
        ..summarize(session.manifest().clone(), &attempts, Work::from(collected))
    };
    files::write_json(&path, &summary)?;
    Ok(summary)
}

/// A loss that an earlier invocation measured under the same weights stays in the result. A summary
/// that cannot be read is made again, without one.
fn earlier_loss(path: &Path, manifest: &Manifest) -> Option<LossSummary> {
    let earlier = files::read_json::<EvalSummary>(path).ok()??;
    earlier
        .loss
        .filter(|loss| loss.weights.digest == manifest.weights.digest)
}

/// Measures the loss of the gold solutions under the same weights and adds it to the summary on disk.
pub async fn add_loss(
    context: &Context,
    summary: EvalSummary,
    (method, solutions): (&LossMethod, &Examples),
    out: &Path,
) -> Result<EvalSummary, ClientError> {
    let loss = measure(context, method, solutions).await?;
    let weights = &summary.manifest.weights;
    if loss.weights.digest != weights.digest {
        return Err(ClientError::WeightsChanged {
            expected: weights.checkpoint.clone(),
            found: loss.weights.checkpoint,
        });
    }
    let summary = EvalSummary {
        loss: Some(loss),
        ..summary
    };
    files::write_json(&out.join(SUMMARY_FILE), &summary)?;
    Ok(summary)
}

/// Judges attempts; those of one question stand together.
pub fn summarize(manifest: Manifest, attempts: &[Attempt], work: Work) -> EvalSummary {
    let (samples, interval) = match manifest.sampling.samples {
        0 | 1 => (None, None),
        samples => {
            let (scores, interval) = SampleScores::of(samples, attempts);
            (Some(scores), Some(interval))
        }
    };
    let counts = Classes::count(attempts);
    let share = |part: u64| part as f64 / counts.attempts.max(1) as f64;
    let rules = score_rules(attempts);
    let found = rules
        .iter()
        .find(|score| score.rule == manifest.rule)
        .map_or(0, |it| it.found);
    EvalSummary {
        accuracy: share(counts.right),
        interval: interval.unwrap_or_else(|| wilson(counts.right, counts.attempts)),
        samples,
        loss: None,
        extraction_rate: share(found),
        truncation_rate: share(counts.truncated),
        rules,
        tokens: TokenCounts::of(attempts),
        counts,
        manifest,
        work,
    }
}

impl Classes {
    /// Counts the verdicts.
    pub fn count<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Self {
        let mut classes = Self::default();
        for attempt in attempts {
            classes.attempts += 1;
            match attempt.verdict {
                Verdict::Right => classes.right += 1,
                Verdict::Wrong => classes.wrong += 1,
                Verdict::NoAnswer => classes.no_answer += 1,
                Verdict::Truncated => classes.truncated += 1,
            }
        }
        classes
    }

    /// The counts as the sum that they are; `what` was counted.
    pub fn equation(&self, what: &str) -> String {
        let Self {
            attempts,
            right,
            wrong,
            no_answer,
            truncated,
        } = self;
        format!(
            "{attempts} {what} = {right} right + {wrong} wrong + {no_answer} no answer found + \
             {truncated} truncated"
        )
    }
}

fn score_rules(attempts: &[Attempt]) -> Vec<RuleScore> {
    let mut scores = Rule::ALL.map(|rule| RuleScore {
        rule,
        right: 0,
        right_with_cut: 0,
        found: 0,
    });
    for attempt in attempts {
        for (score, extraction) in scores.iter_mut().zip(extract_all(&attempt.text)) {
            let right = extraction.is_right(attempt.gold);
            score.found += u64::from(extraction.found_by.is_some());
            score.right_with_cut += u64::from(right);
            score.right += u64::from(right && !attempt.finish_reason.is_cut());
        }
    }
    scores.to_vec()
}

impl TokenCounts {
    fn of(attempts: &[Attempt]) -> Self {
        let lengths: Vec<f64> = attempts
            .iter()
            .map(|attempt| f64::from(attempt.num_tokens))
            .collect();
        let at = |percent: f64| percentile(&lengths, percent).unwrap_or(0.0);
        Self {
            total: attempts
                .iter()
                .map(|attempt| u64::from(attempt.num_tokens))
                .sum(),
            median: at(50.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            max: attempts
                .iter()
                .map(|attempt| u64::from(attempt.num_tokens))
                .max()
                .unwrap_or(0),
        }
    }
}

/// The attempts of a log, each once: one that was logged twice is one attempt.
pub(crate) fn read_attempts(path: &Path) -> Result<Vec<Attempt>, ClientError> {
    let mut attempts = read_log::<Attempt>(path)?.records;
    let mut keys = HashSet::new();
    attempts.retain(|attempt| keys.insert(attempt.key()));
    Ok(attempts)
}

/// The first characters of a digest, for people.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests;
