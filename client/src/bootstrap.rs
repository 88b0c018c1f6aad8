//! Bootstrapping: the forward prompt for every question; where its answer does not do, further
//! samples and then the hint prompt; what the filter accepts becomes training data.
//!
//! A question goes on as soon as its own answer is there: no barrier stands between forward and hint
//! attempts, so the server stays full. Every attempt is kept; the accepted set is a filter over them.

use std::path::{Path, PathBuf};

use data::{
    question::Question,
    record::{Attempt, Source},
    select::{Outcome, Policy, Selection, select},
};
use serde::{Deserialize, Serialize};

use crate::{
    collect::{AttemptStore, Plan, collect},
    error::ClientError,
    eval::{Classes, SUMMARY_FILE, Work},
    files,
    manifest::Manifest,
    sampling::Sampling,
    session::{Ask, Context, Method, Questions, Session},
};

/// The accepted rationales, in the reference report's format.
pub const ACCEPTED_FILE: &str = "accepted.jsonl";

/// Below this share of forward answers that end by themselves and hold a marked answer, the set
/// mostly measures the prompt; the user is told.
const LOW_EXTRACTION_RATE: f64 = 0.9;

/// Forward samples until one will do, then hint attempts until one will do.
struct BootstrapPlan {
    sampling: Sampling,
    policy: Policy,
}

impl Plan for BootstrapPlan {
    fn next(&self, question: &Question, attempts: &[Attempt]) -> Vec<Ask> {
        let missing = self.sampling.missing(attempts);
        if !missing.is_empty() {
            return missing;
        }
        // The filter itself says whether a question needs more, so the two cannot disagree.
        let is_settled = !select(std::slice::from_ref(question), attempts, &self.policy)
            .accepted
            .is_empty();
        let next_try = || self.sampling.next_try(attempts);
        (!is_settled).then(next_try).flatten().into_iter().collect()
    }
}

/// The result of a bootstrapping run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootstrapSummary {
    pub manifest: Manifest,
    pub policy: Policy,
    pub num_questions: u64,
    pub num_accepted: u64,
    /// Where every question went; sums to `num_questions`.
    pub outcomes: Vec<OutcomeCount>,
    pub forward: Classes,
    pub hint: Classes,
    /// Hint rationales over accepted ones.
    pub hint_share: f64,
    pub accepted_path: PathBuf,
    pub accepted_sha256: String,
    pub work: Work,
}

/// How many questions ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCount {
    pub outcome: Outcome,
    pub questions: u64,
}

/// Bootstraps with the weights that the server holds; writes manifest, attempts, accepted set and
/// summary to `out`. The same call goes on where an earlier one was stopped.
pub async fn bootstrap(
    context: &Context,
    method: Method,
    policy: Policy,
    questions: &Questions,
    out: &Path,
) -> Result<BootstrapSummary, ClientError> {
    let session = Session::open(&context.server, method, questions, "bootstrap").await?;
    let mut store = AttemptStore::open(out, session.manifest())?;
    let plan = BootstrapPlan {
        sampling: session.method().sampling,
        // A cap over the whole set must not stop a single question.
        policy: Policy {
            max_hint_share: 1.0,
            ..policy.clone()
        },
    };
    let labelled = ("bootstrap", &plan);
    let collected = collect(context, &session, questions, &mut store, labelled).await?;
    let attempts = store.all(&questions.list);
    let selection = select(&questions.list, &attempts, &policy);
    let accepted_path = out.join(ACCEPTED_FILE);
    let bytes = to_jsonl(&selection, &accepted_path)?;
    files::write_atomic(&accepted_path, &bytes)?;
    let of = |source: Source| {
        Classes::count(
            attempts
                .iter()
                .filter(move |attempt| attempt.source == source),
        )
    };
    let summary = BootstrapSummary {
        manifest: session.manifest().clone(),
        num_questions: questions.list.len() as u64,
        num_accepted: selection.accepted.len() as u64,
        outcomes: outcome_counts(&selection),
        forward: of(Source::Forward),
        hint: of(Source::Hint),
        hint_share: hint_share(&selection),
        accepted_sha256: files::sha256_hex(&bytes),
        accepted_path,
        policy,
        work: Work::from(collected),
    };
    files::write_json(&out.join(SUMMARY_FILE), &summary)?;
    Ok(summary)
}

fn to_jsonl(selection: &Selection, path: &Path) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    for record in &selection.accepted {
        serde_json::to_writer(&mut bytes, record).map_err(|cause| ClientError::BadFile {
            path: path.to_owned(),
            problem: format!("a record cannot be written as JSON: {cause}"),
        })?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn outcome_counts(selection: &Selection) -> Vec<OutcomeCount> {
    let count = |(&outcome, &questions)| OutcomeCount {
        outcome,
        questions: questions as u64,
    };
    selection.outcomes.iter().map(count).collect()
}

fn hint_share(selection: &Selection) -> f64 {
    let hints = selection
        .accepted
        .iter()
        .filter(|record| record.source == Some(Source::Hint))
        .count();
    hints as f64 / selection.accepted.len().max(1) as f64
}

/// An outcome in words.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AcceptedForward => "accepted (forward)",
        Outcome::AcceptedHint => "accepted (hint)",
        Outcome::HintShare => "over the hint share",
        Outcome::TooFewRight => "right too rarely",
        Outcome::Leaked => "leans on the hint",
        Outcome::FalseEquation => "false equation",
        Outcome::Fallback => "right without a marked answer",
        Outcome::Wrong => "wrong",
        Outcome::Truncated => "truncated",
        Outcome::NoAnswer => "no answer found",
        Outcome::NotAttempted => "not attempted",
    }
}

impl BootstrapSummary {
    /// `7473 questions = 2310 accepted (forward) + …`
    pub fn equation(&self) -> String {
        let parts = self
            .outcomes
            .iter()
            .map(|count| format!("{} {}", count.questions, outcome_name(count.outcome)));
        let parts: Vec<String> = parts.collect();
        format!("{} questions = {}", self.num_questions, parts.join(" + "))
    }

    /// Something the user should see before training on the set.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let usable = self.forward.right + self.forward.wrong;
        let rate = usable as f64 / self.forward.questions.max(1) as f64;
        if rate < LOW_EXTRACTION_RATE {
            warnings.push(format!(
                "only {:.1} % of forward answers ended by themselves with an answer that rule {} \
                 finds: this set measures the prompt and the token limit more than the model",
                rate * 100.0,
                self.manifest.rule
            ));
        }
        if self.num_accepted == 0 {
            warnings.push("nothing was accepted: there is nothing to train on".to_owned());
        }
        warnings
    }

    /// The result as a person reads it.
    pub fn text(&self) -> String {
        let classes = |classes: &Classes| {
            format!(
                "{} made = {} right + {} wrong + {} no answer + {} truncated",
                classes.questions,
                classes.right,
                classes.wrong,
                classes.no_answer,
                classes.truncated
            )
        };
        let mut lines = vec![
            format!("counts       {}", self.equation()),
            format!(
                "accepted     {} records, {:.1} % of them after a hint -> {}",
                self.num_accepted,
                self.hint_share * 100.0,
                self.accepted_path.display()
            ),
            format!("forward      {}", classes(&self.forward)),
            format!("hint         {}", classes(&self.hint)),
            format!(
                "work         {} attempts in {:.1} s, {:.0} tokens/s; {} from an earlier run; {} \
                 retries, {} resent",
                self.work.num_made,
                self.work.seconds,
                self.work.generated_tokens_per_second,
                self.work.num_resumed,
                self.work.num_retries,
                self.work.num_resent
            ),
        ];
        lines.extend(
            self.warnings()
                .into_iter()
                .map(|warning| format!("WARNING      {warning}")),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
