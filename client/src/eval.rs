//! Evaluation: every question once, judged by every rule side by side, with intervals and counts
//! that close. A cut answer is its own class, whatever it contains.

use std::path::Path;

use data::{
    answer::{Rule, extract_all},
    question::Question,
    record::{Attempt, Verdict},
    stats::{Interval, percentile, wilson},
};
use serde::{Deserialize, Serialize};

use crate::{
    collect::{AttemptStore, Collected, Plan, collect},
    error::ClientError,
    files,
    manifest::Manifest,
    report::plots::AccuracyBar,
    sampling::Sampling,
    session::{Ask, Context, Method, Questions, Session},
};

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
    /// Right answers over questions, under the manifest's rule.
    pub accuracy: f64,
    /// Wilson's 95 % interval.
    pub interval: Interval,
    /// All rules over the same outputs.
    pub rules: Vec<RuleScore>,
    /// Outputs that the manifest's rule finds an answer in, cut ones included, over questions.
    pub extraction_rate: f64,
    pub truncation_rate: f64,
    pub tokens: TokenCounts,
    pub work: Work,
}

/// Where every question went; the four classes sum to `questions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    pub questions: u64,
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
    let collected = collect(context, session, questions, &mut store, plan).await?;
    let attempts = store.all(&questions.list);
    let summary = summarize(session.manifest().clone(), &attempts, Work::from(collected));
    files::write_json(&out.join(SUMMARY_FILE), &summary)?;
    Ok(summary)
}

/// Judges attempts, one per question.
pub fn summarize(manifest: Manifest, attempts: &[Attempt], work: Work) -> EvalSummary {
    let counts = Classes::count(attempts);
    let share = |part: u64| part as f64 / counts.questions.max(1) as f64;
    let rules = score_rules(attempts);
    let found = rules
        .iter()
        .find(|score| score.rule == manifest.rule)
        .map_or(0, |it| it.found);
    EvalSummary {
        accuracy: share(counts.right),
        interval: wilson(counts.right, counts.questions),
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
            classes.questions += 1;
            match attempt.verdict {
                Verdict::Right => classes.right += 1,
                Verdict::Wrong => classes.wrong += 1,
                Verdict::NoAnswer => classes.no_answer += 1,
                Verdict::Truncated => classes.truncated += 1,
            }
        }
        classes
    }

    /// The counts as the sum that they are.
    pub fn equation(&self) -> String {
        let Self {
            questions,
            right,
            wrong,
            no_answer,
            truncated,
        } = self;
        format!(
            "{questions} questions = {right} right + {wrong} wrong + {no_answer} no answer found + \
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

impl EvalSummary {
    /// `k/n = 31.2 % [27.3, 35.4]`
    pub fn headline(&self) -> String {
        format!(
            "{}/{} = {:.2} % [{:.2}, {:.2}]",
            self.counts.right,
            self.counts.questions,
            self.accuracy * 100.0,
            self.interval.low * 100.0,
            self.interval.high * 100.0
        )
    }

    /// As a bar of the accuracy chart.
    pub fn bar(&self, label: &str) -> AccuracyBar {
        AccuracyBar {
            label: label.to_owned(),
            num_right: self.counts.right,
            num_questions: self.counts.questions,
            low: self.interval.low,
            high: self.interval.high,
        }
    }

    /// The result as a person reads it.
    pub fn text(&self) -> String {
        let manifest = &self.manifest;
        let questions = self.counts.questions.max(1) as f64;
        let percent = |count: u64| count as f64 * 100.0 / questions;
        let mut lines = vec![
            format!(
                "accuracy     {}  (95 % Wilson; rule {}, prompt {}, {})",
                self.headline(),
                manifest.rule,
                manifest.prompt.name,
                manifest.prompt_format.as_str()
            ),
            format!("counts       {}", self.counts.equation()),
            format!(
                "extraction   {:.2} % of outputs hold an answer; truncation {:.2} % (limit {} tokens)",
                self.extraction_rate * 100.0,
                self.truncation_rate * 100.0,
                manifest.decoding.max_tokens
            ),
            format!(
                "tokens       median {:.0}, p90 {:.0}, p95 {:.0}, p99 {:.0}, max {}",
                self.tokens.median,
                self.tokens.p90,
                self.tokens.p95,
                self.tokens.p99,
                self.tokens.max
            ),
            format!(
                "weights      {} (version {}, {})",
                manifest.weights.checkpoint,
                manifest.weights.version,
                short(&manifest.weights.digest)
            ),
            format!(
                "work         {} answers in {:.1} s, {:.0} tokens/s; {} from an earlier run; {} \
                 retries, {} resent",
                self.work.num_made,
                self.work.seconds,
                self.work.generated_tokens_per_second,
                self.work.num_resumed,
                self.work.num_retries,
                self.work.num_resent
            ),
            "rules side by side     right            right, cut ones too   answer found".to_owned(),
        ];
        for score in &self.rules {
            lines.push(format!(
                "  {:<12} {:>6} ({:>6.2} %)      {:>6} ({:>6.2} %)     {:>6} ({:>6.2} %)",
                score.rule.name(),
                score.right,
                percent(score.right),
                score.right_with_cut,
                percent(score.right_with_cut),
                score.found,
                percent(score.found)
            ));
        }
        lines.join("\n")
    }
}

/// The first characters of a digest, for people.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests;
