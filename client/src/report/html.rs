//! The page: one file, no script, no link, readable in print. Text from outside (paths, names,
//! questions) is escaped.

mod answers;
mod bootstrap;
pub(super) mod evaluations;
pub(super) mod iterations;
mod parts;
mod provenance;
mod warnings;

use std::fmt::Write;

use parts::{escape, figure, section, table};

use super::{
    Pictures,
    results::{Results, Variant},
};
use crate::{
    compare::{Comparison, p_text},
    eval::EvalSummary,
};

/// A model's name and its result.
pub(super) type Test<'a> = (&'a str, &'a EvalSummary);

const STYLE: &str = include_str!("html/style.css");

/// The whole page.
pub fn page(results: &Results, pictures: &Pictures) -> String {
    let mut body = headline(results) + &warnings::warnings(results);
    for (title, content) in sections(results, pictures) {
        body += &section(&title, &content);
    }
    document("STaR experiment", &body)
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escape(title)
    )
}

/// Titles and contents in the order of the page; what has no data has no section.
fn sections(results: &Results, pictures: &Pictures) -> Vec<(String, String)> {
    let tests = results.tests();
    let picture = |svg: &Option<String>| svg.as_deref().map(figure).unwrap_or_default();
    let mut sections = Vec::new();
    let mut add = |title: &str, content: String| sections.push((title.to_owned(), content));
    add(
        "Accuracy",
        accuracy_table(&tests) + &figure(&pictures.accuracy),
    );
    add("Is the difference real?", comparisons(&results.comparisons));
    add("Where every question went", classes(&tests));
    if !results.iterations.is_empty() {
        let table = iterations::iterations(results);
        add("Iterations", table + &picture(&pictures.iterations));
    }
    add("Bootstrapping", bootstrap::bootstrap(results));
    for (variant, svg) in [
        (&results.star, &pictures.star_loss),
        (&results.vanilla, &pictures.vanilla_loss),
    ] {
        add(&variant.name, fine_tuning(results, variant) + &figure(svg));
    }
    add(
        "Lengths of answers",
        answers::lengths(&tests) + &picture(&pictures.lengths),
    );
    if let Some(analysis) = &results.analysis {
        let table = answers::steps(analysis);
        add(
            "Accuracy by reasoning steps",
            table + &picture(&pictures.steps),
        );
        add("Fixed and broken questions", answers::flips(analysis));
    }
    add("The same outputs under every rule", rules(&tests));
    add("Time and memory", provenance::costs(results));
    add("Provenance", provenance::provenance(results));
    sections
}

fn headline(results: &Results) -> String {
    let star = &results.star.test;
    let mut text = format!(
        "<h1>STaR experiment</h1>\n<p class=\"lead\">Zero-shot <b>{:.1} %</b>, vanilla SFT \
         <b>{:.1} %</b>, STaR SFT <b>{:.1} %</b> of {} test questions",
        results.zero_shot.accuracy * 100.0,
        results.vanilla.test.accuracy * 100.0,
        star.accuracy * 100.0,
        star.counts.attempts
    );
    if let Some(comparison) = results.comparisons.first() {
        let _ = write!(
            text,
            "; {} against {}: {:+.1} points, exact McNemar p = {}",
            escape(&comparison.second),
            escape(&comparison.first),
            comparison.difference * 100.0,
            p_text(comparison.p_value)
        );
    }
    text.push_str(".</p>\n");
    text
}

fn accuracy_table(tests: &[Test<'_>]) -> String {
    let row = |&(name, summary): &Test<'_>| {
        vec![
            escape(name),
            format!("{}/{}", summary.counts.right, summary.counts.attempts),
            format!("{:.2} %", summary.accuracy * 100.0),
            format!(
                "{:.2} – {:.2} %",
                summary.interval.low * 100.0,
                summary.interval.high * 100.0
            ),
            format!("{:.2} %", summary.extraction_rate * 100.0),
            format!("{:.2} %", summary.truncation_rate * 100.0),
            format!("{:.0} / {:.0}", summary.tokens.median, summary.tokens.p99),
        ]
    };
    table(
        &[
            "",
            "right",
            "accuracy",
            "95 %",
            "answer found",
            "cut",
            "tokens p50 / p99",
        ],
        &tests.iter().map(row).collect::<Vec<_>>(),
    ) + "<p>Intervals are Wilson's; clustered by question where there are several answers to \
         each.</p>\n"
}

fn comparisons(comparisons: &[Comparison]) -> String {
    let rows: Vec<Vec<String>> = comparisons
        .iter()
        .map(|comparison| {
            vec![
                format!(
                    "{} → {}",
                    escape(&comparison.first),
                    escape(&comparison.second)
                ),
                format!("{:+.2}", comparison.difference * 100.0),
                format!(
                    "{:+.2} – {:+.2}",
                    comparison.interval.low * 100.0,
                    comparison.interval.high * 100.0
                ),
                p_text(comparison.p_value),
                comparison.counts.only_second.to_string(),
                comparison.counts.only_first.to_string(),
                comparison.counts.both_right.to_string(),
                comparison.counts.both_wrong.to_string(),
            ]
        })
        .collect();
    let head = [
        "paired",
        "points",
        "95 %",
        "McNemar p",
        "gained",
        "lost",
        "both right",
        "neither right",
    ];
    table(&head, &rows)
        + "<p>Same questions, same prompt, same rule, same token limit. Intervals of single \
           accuracies may overlap where the paired difference is certain.</p>\n"
}

fn classes(tests: &[Test<'_>]) -> String {
    let row = |&(name, summary): &Test<'_>| {
        let counts = summary.counts;
        let mut row = vec![escape(name)];
        let numbers = [
            counts.attempts,
            counts.right,
            counts.wrong,
            counts.no_answer,
            counts.truncated,
        ];
        row.extend(numbers.iter().map(u64::to_string));
        row
    };
    table(
        &[
            "",
            "answers =",
            "right +",
            "wrong +",
            "no answer found +",
            "truncated",
        ],
        &tests.iter().map(row).collect::<Vec<_>>(),
    )
}

fn fine_tuning(results: &Results, variant: &Variant) -> String {
    let base = &results.base_on_held_out;
    let accuracy = |summary: &EvalSummary| {
        let share = format!("{:.2} %", summary.accuracy * 100.0);
        format!(
            "{share} ({}/{})",
            summary.counts.right, summary.counts.attempts
        )
    };
    let loss = |loss: Option<f64>| loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.4}"));
    let mut rows = vec![vec![
        "0".to_owned(),
        "–".to_owned(),
        "–".to_owned(),
        accuracy(base),
    ]];
    for epoch in &variant.losses.epochs {
        let held_out = variant
            .held_out
            .iter()
            .find(|each| each.epoch == epoch.epoch);
        rows.push(vec![
            epoch.epoch.to_string(),
            loss(Some(epoch.train_loss)),
            loss(epoch.validation_loss),
            held_out.map_or_else(|| "–".to_owned(), |each| accuracy(&each.summary)),
        ]);
    }
    let mut html = format!(
        "<p>{} training and {} validation examples; epoch {} was put to the test.</p>\n",
        variant.num_train_examples, variant.num_validation_examples, variant.chosen_epoch
    );
    html += &table(
        &[
            "epoch",
            "training loss",
            "validation loss",
            "right on held-out",
        ],
        &rows,
    );
    html
}

fn rules(tests: &[Test<'_>]) -> String {
    let Some((_, first)) = tests.first() else {
        return String::new();
    };
    let rows: Vec<Vec<String>> = first
        .rules
        .iter()
        .map(|score| {
            let of = |(_, summary): &Test<'_>| {
                let found = summary.rules.iter().find(|other| other.rule == score.rule);
                let right = found.map_or(0, |found| found.right);
                let share = right as f64 * 100.0 / summary.counts.attempts.max(1) as f64;
                format!("{right} ({share:.2} %)")
            };
            let mut row = vec![score.rule.to_string()];
            row.extend(tests.iter().map(of));
            row
        })
        .collect();
    let mut head = vec!["rule"];
    head.extend(tests.iter().map(|(name, _)| *name));
    table(&head, &rows)
        + "<p>The rule named in the provenance decides everywhere else on this page.</p>\n"
}
