//! Bootstrapping: the forward prompt for every question; where its answer does not do, further
//! samples and then the hint prompt; what the filter accepts becomes training data.
//!
//! A question goes on as soon as its own answer is there: no barrier stands between forward and hint
//! attempts, so the server stays full. Every attempt is kept; the accepted set is a filter over them.

use std::path::{Path, PathBuf};

use data::{
    question::Question,
    record::{Attempt, Source},
    select::{Outcome, Policy, select},
};
use serde::{Deserialize, Serialize};

use crate::{
    collect::{AttemptStore, Plan},
    error::ClientError,
    eval::{Classes, SUMMARY_FILE, Work},
    files,
    manifest::Manifest,
    preflight::{MIN_USABLE, can_use, collect_after_look},
    sampling::Sampling,
    select::{
        FateCount, OutcomeCount, attempt_equation, fate_counts, hint_share, outcome_counts,
        question_equation,
    },
    session::{Ask, Context, Method, Questions, Session},
};

/// The accepted rationales, in the reference report's format.
pub const ACCEPTED_FILE: &str = "accepted.jsonl";

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
        let selection = select(std::slice::from_ref(question), attempts, &self.policy);
        let is_settled = !selection.accepted.is_empty();
        // A question that was right, if too rarely, is not given away.
        let hints_help = !selection.outcomes.contains_key(&Outcome::TooFewRight);
        let next_try = self.sampling.next_try(attempts);
        next_try
            .filter(|ask| !is_settled && (ask.source == Source::Forward || hints_help))
            .into_iter()
            .collect()
    }

    fn can_use(&self, attempt: &Attempt) -> bool {
        can_use(attempt, self.policy.fallback)
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
    /// Where every attempt went; sums to the attempts.
    #[serde(default)]
    pub attempts: Vec<FateCount>,
    pub forward: Classes,
    pub hint: Classes,
    /// Hint rationales over accepted ones.
    pub hint_share: f64,
    pub accepted_path: PathBuf,
    pub accepted_sha256: String,
    pub work: Work,
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
    let collected = collect_after_look(context, &session, questions, &mut store, labelled).await?;
    let attempts = store.all(&questions.list);
    let selection = select(&questions.list, &attempts, &policy);
    let accepted_path = out.join(ACCEPTED_FILE);
    let bytes = files::to_jsonl(&selection.accepted, &accepted_path)?;
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
        attempts: fate_counts(&selection),
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

impl BootstrapSummary {
    /// `7473 questions = 2310 accepted (forward) + …`
    pub fn equation(&self) -> String {
        question_equation(&self.outcomes)
    }

    /// Something the user should see before training on the set.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let usable = self.forward.right + self.forward.wrong;
        let rate = usable as f64 / self.forward.attempts.max(1) as f64;
        if rate < MIN_USABLE {
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
                classes.attempts,
                classes.right,
                classes.wrong,
                classes.no_answer,
                classes.truncated
            )
        };
        let mut lines = vec![
            format!("questions    {}", self.equation()),
            format!("attempts     {}", attempt_equation(&self.attempts)),
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
