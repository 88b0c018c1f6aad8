//! The turns of the STaR loop, one row each.

use std::collections::BTreeSet;

use data::{select::Outcome, stats::wilson};

use super::{
    super::{
        plots::{ShareCurve, SharePoint},
        results::{Iteration, Results},
    },
    parts::{percent, table},
};
use crate::{bootstrap::BootstrapSummary, eval::EvalSummary, select::outcome_name};

/// The curves over the models: what model `n` did in bootstrapping is part of iteration `n + 1`.
pub(in crate::report) fn curves(results: &Results) -> Vec<ShareCurve> {
    let iterations = &results.iterations;
    let bootstraps = || {
        iterations
            .iter()
            .map(|it| (it.iteration.saturating_sub(1), &it.bootstrap))
    };
    let forward = bootstraps()
        .map(|(model, it)| point(model, it.forward.right, it.forward.attempts))
        .collect();
    let accepted = bootstraps()
        .map(|(model, it)| point(model, num_accepted_questions(it), it.num_questions))
        .collect();
    let tested = |model: u32, summary: &EvalSummary| SharePoint {
        model,
        share: summary.accuracy,
        low: summary.interval.low,
        high: summary.interval.high,
    };
    let held_out = [tested(0, &results.base_on_held_out)]
        .into_iter()
        .chain(
            iterations
                .iter()
                .map(|it| tested(it.iteration, &it.held_out)),
        )
        .collect();
    let mut curves = vec![
        ShareCurve {
            name: "held-out questions right",
            points: held_out,
        },
        ShareCurve {
            name: "training: forward attempts right",
            points: forward,
        },
        ShareCurve {
            name: "training: questions accepted",
            points: accepted,
        },
    ];
    let tests: Vec<SharePoint> = iterations
        .iter()
        .filter_map(|it| Some(tested(it.iteration, it.test.as_ref()?)))
        .collect();
    if !tests.is_empty() {
        let points = [tested(0, &results.zero_shot)].into_iter().chain(tests);
        curves.push(ShareCurve {
            name: "test questions right",
            points: points.collect(),
        });
    }
    curves
}

fn point(model: u32, right: u64, questions: u64) -> SharePoint {
    let interval = wilson(right.min(questions), questions);
    SharePoint {
        model,
        share: right as f64 / questions.max(1) as f64,
        low: interval.low,
        high: interval.high,
    }
}

fn num_accepted_questions(summary: &BootstrapSummary) -> u64 {
    let is_accepted =
        |outcome: Outcome| matches!(outcome, Outcome::AcceptedForward | Outcome::AcceptedHint);
    summary
        .outcomes
        .iter()
        .filter(|count| is_accepted(count.outcome))
        .map(|count| count.questions)
        .sum()
}

/// Bootstrapping of each iteration, as a sum, and what came of it.
pub(super) fn iterations(results: &Results) -> String {
    let outcomes: BTreeSet<Outcome> = results
        .iterations
        .iter()
        .flat_map(|it| it.bootstrap.outcomes.iter().map(|count| count.outcome))
        .collect();
    let last = outcomes.len().saturating_sub(1);
    let mut head = vec!["iteration".to_owned(), "questions =".to_owned()];
    head.extend(outcomes.iter().enumerate().map(|(index, &outcome)| {
        let plus = if index == last { "" } else { " +" };
        format!("{}{plus}", outcome_name(outcome))
    }));
    let more = [
        "hint share",
        "trained on",
        "epoch",
        "right on held-out",
        "right on test",
    ];
    head.extend(more.map(str::to_owned));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = results
        .iterations
        .iter()
        .map(|iteration| row(results, iteration, &outcomes))
        .collect();
    table(&head, &rows)
        + "<p>The model of the marked iteration is the STaR model of this page; it was chosen on \
           the held-out questions. A hint share is that of the accepted rationales. Bands in the \
           picture are 95 % Wilson intervals; they take several attempts at one question for \
           independent.</p>\n"
}

fn row(results: &Results, iteration: &Iteration, outcomes: &BTreeSet<Outcome>) -> Vec<String> {
    let bootstrap = &iteration.bootstrap;
    let is_chosen = (&bootstrap.accepted_path, &bootstrap.accepted_sha256)
        == (
            &results.bootstrap.accepted_path,
            &results.bootstrap.accepted_sha256,
        );
    let mark = if is_chosen { " <b>(chosen)</b>" } else { "" };
    let count = |outcome: Outcome| {
        let found = bootstrap.outcomes.iter().find(|it| it.outcome == outcome);
        found.map_or(0, |it| it.questions).to_string()
    };
    let mut row = vec![
        format!("{}{mark}", iteration.iteration),
        bootstrap.num_questions.to_string(),
    ];
    row.extend(outcomes.iter().map(|&outcome| count(outcome)));
    row.extend([
        format!("{:.1} %", bootstrap.hint_share * 100.0),
        iteration.num_train_examples.to_string(),
        iteration.chosen_epoch.to_string(),
        share(&iteration.held_out),
        iteration
            .test
            .as_ref()
            .map_or_else(|| "–".to_owned(), share),
    ]);
    row
}

/// The intervals are in the picture.
fn share(summary: &EvalSummary) -> String {
    let counts = summary.counts;
    let percent = percent(counts.right, counts.attempts);
    format!("{}/{} ({percent})", counts.right, counts.attempts)
}
