//! A page of a few evaluation folders: what `star report --from` shows.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    PLOTS_FOLDER, REPORT_FILE, accuracy,
    analysis::{Analysis, Evaluated, analyse},
    html, lengths, steps,
};
use crate::{
    collect::MANIFEST_FILE,
    compare::{Comparison, How, Outcome, Run, Strictness},
    error::ClientError,
    eval::{EvalSummary, SUMMARY_FILE},
    files,
    manifest::Manifest,
};

/// What is known of the folders, in their order.
#[derive(Debug)]
pub(super) struct Evaluations {
    names: Vec<String>,
    summaries: Vec<EvalSummary>,
    /// The first folder against each other one.
    pub(super) comparisons: Vec<Comparison>,
    /// Why some of them are missing, or what they say in words.
    pub(super) in_words: Vec<String>,
    pub(super) analysis: Analysis,
    pub(super) pictures: EvaluationPictures,
}

#[derive(Debug)]
pub(super) struct EvaluationPictures {
    pub(super) accuracy: String,
    pub(super) lengths: String,
    /// Only where the questions were found.
    pub(super) steps: Option<String>,
}

impl Evaluations {
    pub(super) fn tests(&self) -> Vec<(&str, &EvalSummary)> {
        self.names
            .iter()
            .map(String::as_str)
            .zip(&self.summaries)
            .collect()
    }
}

/// Writes page and plots of these evaluations to `out`. Gives the page's path.
pub fn render_evaluations(folders: &[PathBuf], out: &Path) -> Result<PathBuf, ClientError> {
    let plots = out.join(PLOTS_FOLDER);
    files::create_folder(&plots)?;
    let evaluations = read(folders, &plots)?;
    let page = out.join(REPORT_FILE);
    files::write_atomic(&page, html::evaluations::page(&evaluations).as_bytes())?;
    Ok(page)
}

fn read(folders: &[PathBuf], plots: &Path) -> Result<Evaluations, ClientError> {
    let names = names(folders);
    let summaries: Vec<EvalSummary> = folders
        .iter()
        .map(|folder| summary(folder))
        .collect::<Result<_, _>>()?;
    let runs: Vec<Run> = folders
        .iter()
        .map(|folder| Run::read(folder))
        .collect::<Result<_, _>>()?;
    let (comparisons, in_words) = compare(&runs, &names)?;
    let bars: Vec<_> = names
        .iter()
        .zip(&summaries)
        .map(|(name, summary)| summary.bar(name))
        .collect();
    let questions = summaries.first();
    let questions = questions.and_then(|it| it.manifest.dataset.find_questions());
    let models: Vec<Evaluated<'_>> = names
        .iter()
        .zip(&runs)
        .map(|(name, run)| Evaluated {
            name,
            attempts: run.attempts(),
        })
        .collect();
    let analysis = analyse(questions.as_deref().unwrap_or_default(), &models, &[]);
    let num_questions = summaries.iter().map(|it| it.manifest.dataset.num_questions);
    let num_questions = num_questions.max().unwrap_or(0);
    let pictures = EvaluationPictures {
        accuracy: accuracy(num_questions, &bars, plots)?,
        lengths: lengths(&analysis, plots)?,
        steps: questions
            .is_some()
            .then(|| steps(&analysis, plots))
            .transpose()?,
    };
    Ok(Evaluations {
        names,
        summaries,
        comparisons,
        in_words,
        analysis,
        pictures,
    })
}

/// The folders' own names where these differ, else their paths.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let own: Vec<String> = folders
        .iter()
        .map(|folder| {
            folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into()
        })
        .collect();
    let distinct: HashSet<&String> = own.iter().collect();
    if distinct.len() == own.len() {
        return own;
    }
    folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect()
}

/// The first folder against each other one; in words where that cannot be, or where there are
/// several samples of each question.
fn compare(runs: &[Run], names: &[String]) -> Result<(Vec<Comparison>, Vec<String>), ClientError> {
    let how = How {
        strictness: Strictness::Refuse,
        max_examples: 0,
    };
    let (mut comparisons, mut in_words) = (Vec::new(), Vec::new());
    let Some((first, others)) = runs.split_first() else {
        return Ok((comparisons, in_words));
    };
    for (other, name) in others.iter().zip(&names[1..]) {
        match first.against(other, how).map(|compared| compared.outcome) {
            Ok(Outcome::Single(comparison)) => comparisons.push(Comparison {
                first: names[0].clone(),
                second: name.clone(),
                ..comparison
            }),
            Ok(Outcome::Sampled(comparison)) => in_words.push(comparison.text()),
            Err(ClientError::OtherMethod(what)) => {
                let first = &names[0];
                in_words.push(format!(
                    "{first} and {name} cannot be compared: they differ in {what}"
                ));
            }
            Err(ClientError::NotComparable(why)) => {
                let first = &names[0];
                in_words.push(format!("{first} and {name} cannot be compared: {why}"));
            }
            Err(other) => return Err(other),
        }
    }
    Ok((comparisons, in_words))
}

/// The result of an evaluation; that of another kind of run is told by its manifest.
fn summary(folder: &Path) -> Result<EvalSummary, ClientError> {
    let path = folder.join(MANIFEST_FILE);
    let kind = files::require_json::<Manifest>(&path)?.kind;
    if kind != "eval" {
        let problem = format!("expected an evaluation, found kind {kind:?}");
        return Err(ClientError::BadFile { path, problem });
    }
    files::require_json(&folder.join(SUMMARY_FILE))
}

#[cfg(test)]
mod tests;
