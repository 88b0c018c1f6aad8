//! Where the questions and the attempts of bootstrapping went.

use std::fmt::Write;

use data::leak::LeakReason;

use super::{
    super::{analysis::HintAnalysis, results::Results},
    parts::{escape, percent, table, warning},
};
use crate::{eval::Classes, select::outcome_name};

pub(super) fn bootstrap(results: &Results) -> String {
    let summary = &results.bootstrap;
    let rows: Vec<Vec<String>> = summary
        .outcomes
        .iter()
        .map(|count| {
            vec![
                outcome_name(count.outcome).to_owned(),
                count.questions.to_string(),
            ]
        })
        .chain([vec![
            "all questions".to_owned(),
            summary.num_questions.to_string(),
        ]])
        .collect();
    let mut html = table(&["outcome", "questions"], &rows);
    let _ = writeln!(
        html,
        "<p>{} rationales accepted, {:.1} % of them written after a hint.</p>",
        summary.num_accepted,
        summary.hint_share * 100.0,
    );
    html += &attempts(summary.forward, summary.hint);
    let hints = results.analysis.as_ref().and_then(|it| it.hints.as_ref());
    html += &hints.map(leaks).unwrap_or_default();
    for text in summary.warnings() {
        html += &warning(&escape(&text));
    }
    html
}

fn attempts(forward: Classes, hint: Classes) -> String {
    let rows: Vec<Vec<String>> = [("forward", forward), ("after a hint", hint)]
        .into_iter()
        .map(|(name, classes)| {
            let mut row = vec![name.to_owned()];
            let numbers = [
                classes.attempts,
                classes.right,
                classes.wrong,
                classes.no_answer,
                classes.truncated,
            ];
            row.extend(numbers.map(|number| number.to_string()));
            row
        })
        .collect();
    let head = [
        "",
        "attempts =",
        "right +",
        "wrong +",
        "no answer found +",
        "truncated",
    ];
    table(&head, &rows)
}

fn leaks(hints: &HintAnalysis) -> String {
    let rows: Vec<Vec<String>> = hints
        .reasons
        .iter()
        .map(|count| {
            vec![
                reason_name(count.reason).to_owned(),
                count.attempts.to_string(),
                count.right.to_string(),
            ]
        })
        .collect();
    let text = format!(
        "<p>{} of the {} right rationales after a hint ({}) show that they lean on it.</p>\n",
        hints.right_and_leaking,
        hints.right,
        percent(hints.right_and_leaking, hints.right)
    );
    if rows.is_empty() {
        return text;
    }
    text + &table(&["sign of a leak", "attempts", "right ones"], &rows)
        + "<p>An attempt with several signs is in several rows.</p>\n"
}

fn reason_name(reason: LeakReason) -> &'static str {
    match reason {
        LeakReason::KnownAnswer => "“the correct (given, known, provided) answer”",
        LeakReason::AsGiven => "“as given”",
        LeakReason::WeKnow => "“we know the answer”",
        LeakReason::SinceTheAnswer => "“since the answer is”",
        LeakReason::TheHint => "“the hint”",
        LeakReason::FalseEquation => "a false equation",
        LeakReason::Underived => "the answer comes without a calculation",
    }
}
