//! The page: one file, no script, no link, readable in print. Text from outside (paths, names,
//! questions) is escaped.

mod parts;

use std::fmt::Write;

use parts::{escape, figure, section, table};

use super::{
    Pictures,
    results::{Results, Variant},
};
use crate::{
    bootstrap::outcome_name,
    compare::{Comparison, p_text},
    eval::{EvalSummary, short},
};

const STYLE: &str = include_str!("html/style.css");

/// The whole page.
pub fn page(results: &Results, pictures: &Pictures) -> String {
    let mut html = String::new();
    let mut add = |part: &str| html.push_str(part);
    add("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    add("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    add("<title>STaR experiment</title>\n<style>\n");
    add(STYLE);
    add("</style>\n</head>\n<body>\n<main>\n");
    add(&headline(results));
    add(&section(
        "Accuracy",
        &(accuracy_table(results) + &figure(&pictures.accuracy)),
    ));
    add(&section(
        "Is the difference real?",
        &comparisons(&results.comparisons),
    ));
    add(&section("Where every question went", &classes(results)));
    add(&section("Bootstrapping", &bootstrap(results)));
    for (variant, picture) in [
        (&results.star, &pictures.star_loss),
        (&results.vanilla, &pictures.vanilla_loss),
    ] {
        add(&section(
            &variant.name,
            &(fine_tuning(results, variant) + &figure(picture)),
        ));
    }
    add(&section(
        "The same outputs under every rule",
        &rules(results),
    ));
    add(&section("Time and memory", &costs(results)));
    add(&section("Provenance", &provenance(results)));
    add("</main>\n</body>\n</html>\n");
    html
}

fn headline(results: &Results) -> String {
    let star = &results.star.test;
    let mut text = format!(
        "<h1>STaR experiment</h1>\n<p class=\"lead\">Zero-shot <b>{:.1} %</b>, vanilla SFT \
         <b>{:.1} %</b>, STaR SFT <b>{:.1} %</b> of {} test questions",
        results.zero_shot.accuracy * 100.0,
        results.vanilla.test.accuracy * 100.0,
        star.accuracy * 100.0,
        star.counts.questions
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

fn accuracy_table(results: &Results) -> String {
    let row = |name: &str, summary: &EvalSummary| {
        vec![
            escape(name),
            format!("{}/{}", summary.counts.right, summary.counts.questions),
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
            "95 % Wilson",
            "answer found",
            "cut",
            "tokens p50 / p99",
        ],
        &[
            row("zero-shot", &results.zero_shot),
            row(&results.vanilla.name, &results.vanilla.test),
            row(&results.star.name, &results.star.test),
        ],
    )
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

fn classes(results: &Results) -> String {
    let row = |name: &str, summary: &EvalSummary| {
        let counts = summary.counts;
        let mut row = vec![escape(name)];
        let numbers = [
            counts.questions,
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
            "questions =",
            "right +",
            "wrong +",
            "no answer found +",
            "truncated",
        ],
        &[
            row("zero-shot", &results.zero_shot),
            row(&results.vanilla.name, &results.vanilla.test),
            row(&results.star.name, &results.star.test),
        ],
    )
}

fn bootstrap(results: &Results) -> String {
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
        "<p>{} rationales accepted, {:.1} % of them written after a hint. Forward attempts: {} \
         made, {} right; hint attempts: {} made, {} right.</p>",
        summary.num_accepted,
        summary.hint_share * 100.0,
        summary.forward.questions,
        summary.forward.right,
        summary.hint.questions,
        summary.hint.right
    );
    for warning in summary.warnings() {
        let _ = writeln!(html, "<p class=\"warning\">{}</p>", escape(&warning));
    }
    html
}

fn fine_tuning(results: &Results, variant: &Variant) -> String {
    let base = &results.base_on_held_out;
    let accuracy = |summary: &EvalSummary| {
        let share = format!("{:.2} %", summary.accuracy * 100.0);
        format!(
            "{share} ({}/{})",
            summary.counts.right, summary.counts.questions
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

fn rules(results: &Results) -> String {
    let tests = [
        &results.zero_shot,
        &results.vanilla.test,
        &results.star.test,
    ];
    let rows: Vec<Vec<String>> = results
        .zero_shot
        .rules
        .iter()
        .map(|score| {
            let of = |summary: &EvalSummary| {
                let found = summary.rules.iter().find(|other| other.rule == score.rule);
                let right = found.map_or(0, |found| found.right);
                let share = right as f64 * 100.0 / summary.counts.questions.max(1) as f64;
                format!("{right} ({share:.2} %)")
            };
            let mut row = vec![score.rule.to_string()];
            row.extend(tests.iter().map(|summary| of(summary)));
            row
        })
        .collect();
    table(
        &[
            "rule",
            "zero-shot",
            &results.vanilla.name,
            &results.star.name,
        ],
        &rows,
    ) + "<p>The rule named in the provenance decides everywhere else on this page.</p>\n"
}

fn costs(results: &Results) -> String {
    let mut rows: Vec<Vec<String>> = results
        .stages
        .iter()
        .map(|stage| vec![escape(&stage.stage), format!("{:.1} s", stage.seconds)])
        .collect();
    rows.push(vec![
        "all".to_owned(),
        format!("{:.1} s", results.total_seconds()),
    ]);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    table(&["stage", "wall time"], &rows)
        + &format!(
            "<p>Peak resident memory: {:.0} MiB in this process, {:.0} MiB in the trainer.</p>\n",
            mib(results.memory.client_bytes),
            mib(results.memory.trainer_bytes)
        )
}

fn provenance(results: &Results) -> String {
    let manifest = &results.zero_shot.manifest;
    let weights = |summary: &EvalSummary| {
        let weights = &summary.manifest.weights;
        format!("{} ({})", weights.checkpoint, short(&weights.digest))
    };
    let template = manifest.template.as_ref().map_or_else(
        || "none (plain text)".to_owned(),
        |template| format!("{}, date {}", template.name, template.date),
    );
    let file = |path: &str, sha256: &str, count: u64| {
        format!("{path}, {count} questions, sha256 {}", short(sha256))
    };
    let inputs = &results.inputs;
    let facts = [
        ("software", results.software.clone()),
        ("finished", results.finished_at.clone()),
        (
            "model",
            format!(
                "{}, {} parameters",
                inputs.model, manifest.model.num_parameters
            ),
        ),
        (
            "test file",
            file(&inputs.test, &inputs.test_sha256, inputs.num_test),
        ),
        (
            "training file",
            file(&inputs.train, &inputs.train_sha256, inputs.num_fit),
        ),
        (
            "held out of it",
            format!("{} questions, before bootstrapping", inputs.num_held_out),
        ),
        (
            "prompt",
            format!(
                "{} ({})",
                manifest.prompt.name,
                short(&manifest.prompt.digest)
            ),
        ),
        ("chat template", template),
        ("rule", manifest.rule.to_string()),
        (
            "decoding",
            format!(
                "temperature {}, at most {} tokens",
                manifest.decoding.temperature, manifest.decoding.max_tokens
            ),
        ),
        ("zero-shot weights", weights(&results.zero_shot)),
        ("vanilla weights", weights(&results.vanilla.test)),
        ("STaR weights", weights(&results.star.test)),
    ];
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), escape(&value)])
        .collect();
    let settings = serde_json::to_string_pretty(&results.settings).unwrap_or_default();
    table(&["", ""], &rows)
        + &format!(
            "<details><summary>All settings</summary><pre>{}</pre></details>\n<p>Every attempt, \
             right or wrong, is in the <code>attempts.jsonl</code> files beside this page; every \
             number of this page is in <code>results.json</code>.</p>\n",
            escape(&settings)
        )
}
