//! From logs to files: reading attempts of one or several runs, and writing what was asked for.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use data::{
    append_log::read_log,
    preference::{PairOutcome, PairPolicy, RenderedPair, preference_pairs},
    prompt::{PromptFormat, PromptTemplate},
    pseudo_label::{VoteOutcome, VotePolicy, pseudo_label},
    question::Question,
    record::Attempt,
    select::{Policy, select},
};
use serde::Serialize;

use super::{
    FateCount, OutcomeCount, attempt_equation, fate_counts, hint_share, outcome_counts,
    question_equation, sum,
};
use crate::{collect::ATTEMPTS_FILE, error::ClientError, files};

/// What is to be written; at least the counts are always made.
#[derive(Debug, Clone)]
pub struct Outputs {
    pub policy: Policy,
    pub accepted: Option<PathBuf>,
    pub pairs: Option<PairsWanted>,
    pub labels: Option<(PathBuf, VotePolicy)>,
}

/// Preference pairs behind a prompt, as DPO trainers read them.
#[derive(Debug, Clone)]
pub struct PairsWanted {
    pub path: PathBuf,
    pub policy: PairPolicy,
    pub prompt: PromptTemplate,
    pub format: PromptFormat,
}

/// What was made, with counts that close.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Made {
    pub policy: Policy,
    pub num_accepted: u64,
    /// Hint rationales over accepted ones.
    pub hint_share: f64,
    pub outcomes: Vec<OutcomeCount>,
    pub attempts: Vec<FateCount>,
    pub accepted_path: Option<PathBuf>,
    pub pairs: Option<MadePairs>,
    pub labels: Option<MadeLabels>,
}

/// Preference pairs that were written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MadePairs {
    pub path: PathBuf,
    pub num_pairs: u64,
    /// Sums to the questions.
    pub outcomes: Vec<(PairOutcome, u64)>,
}

/// Labels that were written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MadeLabels {
    pub path: PathBuf,
    /// Labels that are the answer of the question file, which the votes did not see.
    pub num_like_gold: u64,
    /// Sums to the questions.
    pub outcomes: Vec<(VoteOutcome, u64)>,
}

/// Reads the logs (files, or folders of runs) and writes what is wanted. An attempt that is in
/// several logs counts once.
///
/// # Errors
/// Also where no attempt is one for the given questions: that is the wrong question file.
pub fn make(
    logs: &[PathBuf],
    questions: &[Question],
    outputs: &Outputs,
) -> Result<Made, ClientError> {
    let attempts = read(logs)?;
    refuse_other_questions(questions, &attempts)?;
    let selection = select(questions, &attempts, &outputs.policy);
    if let Some(path) = &outputs.accepted {
        files::write_atomic(path, &files::to_jsonl(&selection.accepted, path)?)?;
    }
    let pairs = outputs.pairs.as_ref();
    let pairs = pairs.map(|wanted| make_pairs(questions, &attempts, wanted));
    let labels = outputs.labels.as_ref();
    let labels = labels.map(|(path, policy)| make_labels(questions, &attempts, (path, policy)));
    Ok(Made {
        policy: outputs.policy.clone(),
        num_accepted: selection.accepted.len() as u64,
        hint_share: hint_share(&selection),
        outcomes: outcome_counts(&selection),
        attempts: fate_counts(&selection),
        accepted_path: outputs.accepted.clone(),
        pairs: pairs.transpose()?,
        labels: labels.transpose()?,
    })
}

/// Refuses to write over what is read: attempts cost hours and are there once.
///
/// # Errors
/// Where a file to be written is one of `logs`, or the question file, or is named twice.
pub fn refuse_overwriting(
    logs: &[PathBuf],
    questions: &Path,
    outputs: &Outputs,
) -> Result<(), ClientError> {
    // One file may have many names; what is not there yet has its own.
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut taken: HashSet<PathBuf> = logs.iter().map(|log| place(&log_file(log))).collect();
    taken.insert(place(questions));
    let pairs = outputs.pairs.as_ref().map(|it| &it.path);
    let labels = outputs.labels.as_ref().map(|(path, _)| path);
    for path in outputs.accepted.iter().chain(pairs).chain(labels) {
        if !taken.insert(place(path)) {
            return Err(ClientError::Usage(format!(
                "{} would be overwritten: it is read by this command, or named for two outputs. \
                 Choose another file",
                path.display()
            )));
        }
    }
    Ok(())
}

/// A folder of a run stands for its log.
fn log_file(log: &Path) -> PathBuf {
    if log.is_dir() {
        log.join(ATTEMPTS_FILE)
    } else {
        log.to_owned()
    }
}

fn read(logs: &[PathBuf]) -> Result<Vec<Attempt>, ClientError> {
    let mut seen = HashSet::new();
    let mut attempts = Vec::new();
    for log in logs {
        let path = log_file(log);
        let records = read_log::<Attempt>(&path)?.records;
        attempts.extend(records.into_iter().filter(|it| seen.insert(it.key())));
    }
    Ok(attempts)
}

fn refuse_other_questions(questions: &[Question], attempts: &[Attempt]) -> Result<(), ClientError> {
    let known: HashSet<&str> = questions.iter().map(|it| it.id.as_str()).collect();
    let is_known = |attempt: &Attempt| known.contains(attempt.question_id.as_str());
    match attempts.first() {
        Some(first) if !attempts.iter().any(is_known) => Err(ClientError::Usage(format!(
            "--dataset: none of the {} attempts is for a question of this file; the first is for \
             question {}. Give the file that the attempts were made from",
            attempts.len(),
            first.question_id
        ))),
        _ => Ok(()),
    }
}

fn make_pairs(
    questions: &[Question],
    attempts: &[Attempt],
    wanted: &PairsWanted,
) -> Result<MadePairs, ClientError> {
    let set = preference_pairs(questions, attempts, &wanted.policy);
    let rendered: Result<Vec<RenderedPair>, _> = set
        .pairs
        .iter()
        .map(|pair| pair.render(&wanted.prompt, wanted.format))
        .collect();
    let bytes = files::to_jsonl(&rendered?, &wanted.path)?;
    files::write_atomic(&wanted.path, &bytes)?;
    let outcomes = set.outcomes.into_iter();
    Ok(MadePairs {
        path: wanted.path.clone(),
        num_pairs: set.pairs.len() as u64,
        outcomes: outcomes.map(|(it, count)| (it, count as u64)).collect(),
    })
}

fn make_labels(
    questions: &[Question],
    attempts: &[Attempt],
    (path, policy): (&Path, &VotePolicy),
) -> Result<MadeLabels, ClientError> {
    let made = pseudo_label(questions, attempts, policy);
    files::write_atomic(path, &files::to_jsonl(&made.labels, path)?)?;
    let outcomes = made.outcomes.into_iter();
    Ok(MadeLabels {
        path: path.to_owned(),
        num_like_gold: made.num_like_gold as u64,
        outcomes: outcomes.map(|(it, count)| (it, count as u64)).collect(),
    })
}

impl Made {
    /// The result as a person reads it.
    pub fn text(&self) -> String {
        let to = |path: &Path| format!(" -> {}", path.display());
        let mut lines = vec![
            format!("questions    {}", question_equation(&self.outcomes)),
            format!("attempts     {}", attempt_equation(&self.attempts)),
            format!(
                "accepted     {} records, {:.1} % of them after a hint{}",
                self.num_accepted,
                self.hint_share * 100.0,
                self.accepted_path.as_deref().map_or_else(String::new, to)
            ),
        ];
        if let Some(pairs) = &self.pairs {
            let parts = pairs.outcomes.iter();
            let parts = parts.map(|(outcome, count)| (*count, pair_outcome_name(*outcome)));
            lines.push(format!(
                "pairs        {} pairs{}; {}",
                pairs.num_pairs,
                to(&pairs.path),
                sum("questions", parts)
            ));
        }
        if let Some(labels) = &self.labels {
            let parts = labels.outcomes.iter();
            let parts = parts.map(|(outcome, count)| (*count, vote_outcome_name(*outcome)));
            lines.push(format!(
                "labels       {}{}; {} of them are the file's own answer",
                sum("questions", parts),
                to(&labels.path),
                labels.num_like_gold
            ));
        }
        lines.join("\n")
    }
}

fn pair_outcome_name(outcome: PairOutcome) -> &'static str {
    match outcome {
        PairOutcome::Paired => "paired",
        PairOutcome::NoneWrong => "never wrong",
        PairOutcome::NoneRight => "never right",
        PairOutcome::NoneUsable => "cut or doubtful only",
        PairOutcome::NotAttempted => "not attempted",
    }
}

fn vote_outcome_name(outcome: VoteOutcome) -> &'static str {
    match outcome {
        VoteOutcome::Labelled => "labelled",
        VoteOutcome::Tied => "tied",
        VoteOutcome::LowShare => "with too small a majority",
        VoteOutcome::TooFewVotes => "with too few votes",
        VoteOutcome::NotAttempted => "not attempted",
    }
}
