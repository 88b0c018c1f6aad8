//! The answers themselves: how long they are, how many steps they need, which ones changed sides.

use std::collections::BTreeMap;

use super::{
    super::analysis::{Analysis, Example, Flips, MAX_STEPS, Output},
    parts::{escape, percent, table},
};
use crate::eval::EvalSummary;

/// Percentiles and what was cut, by model.
pub(super) fn lengths(tests: &[(&str, &EvalSummary)]) -> String {
    let row = |&(name, summary): &(&str, &EvalSummary)| {
        let (tokens, counts) = (summary.tokens, summary.counts);
        let mut row = vec![escape(name)];
        let percentiles = [tokens.median, tokens.p90, tokens.p99];
        row.extend(percentiles.map(|tokens| format!("{tokens:.0}")));
        row.extend([
            tokens.max.to_string(),
            summary.manifest.decoding.max_tokens.to_string(),
            counts.truncated.to_string(),
            percent(counts.truncated, counts.attempts),
        ]);
        row
    };
    let rows: Vec<Vec<String>> = tests.iter().map(row).collect();
    let head = [
        "tokens",
        "median",
        "90 %",
        "99 %",
        "longest",
        "limit",
        "cut",
        "cut, share",
    ];
    table(&head, &rows)
        + "<p>An answer that reaches the limit is cut and counts as truncated, whatever it \
           contains.</p>\n"
}

/// Accuracy by the number of steps of the gold solution.
pub(super) fn steps(analysis: &Analysis) -> String {
    let mut rows: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (index, model) in analysis.models.iter().enumerate() {
        for step in &model.steps {
            let row = rows.entry(step.steps).or_insert_with(|| {
                let more = if step.steps == MAX_STEPS {
                    " or more"
                } else {
                    ""
                };
                vec![format!("{}{more}", step.steps), step.questions.to_string()]
            });
            // A model that was not asked such a question leaves its place empty.
            row.resize(2 + index, "–".to_owned());
            row.push(format!(
                "{} ({} [{:.0}, {:.0}])",
                step.right,
                percent(step.right, step.questions),
                step.interval.low * 100.0,
                step.interval.high * 100.0
            ));
        }
    }
    let mut head = vec!["steps", "questions"];
    head.extend(analysis.models.iter().map(|model| model.name.as_str()));
    let rows: Vec<Vec<String>> = rows.into_values().collect();
    let without = analysis.models.iter().map(|it| it.num_without_steps).max();
    let note = match without {
        None | Some(0) => String::new(),
        Some(count) => format!(" {count} gold answers have no reasoning to count."),
    };
    table(&head, &rows)
        + &format!(
            "<p>Steps are the lines of the gold solution. Brackets hold 95 % Wilson \
             intervals.{note}</p>\n"
        )
}

/// A few questions that the last model changed, for better and for worse.
pub(super) fn flips(analysis: &Analysis) -> String {
    let (Some(before), Some(after)) = (analysis.models.first(), analysis.models.last()) else {
        return String::new();
    };
    let names = (before.name.as_str(), after.name.as_str());
    let (first, last) = (escape(names.0), escape(names.1));
    let fixed = format!("not right with {first}, right with {last}");
    let broken = format!("right with {first}, not right with {last}");
    kind(("Fixed", &fixed), names, &analysis.fixed)
        + &kind(("Broken", &broken), names, &analysis.broken)
}

fn kind((title, changed): (&str, &str), names: (&str, &str), flips: &Flips) -> String {
    let shown = match flips.examples.len() as u64 {
        0 => String::new(),
        shown if shown == flips.num_questions => " All of them:".to_owned(),
        shown => format!(" {shown} of them, chosen by a hash of their ids:"),
    };
    let mut html = format!(
        "<h3>{title}: {}</h3>\n<p>Questions that were {changed}.{shown}</p>\n",
        flips.num_questions
    );
    for one in &flips.examples {
        html += &example(names, one);
    }
    html
}

fn example((before, after): (&str, &str), example: &Example) -> String {
    format!(
        "<article class=\"example\">\n<p><b>Question</b> <code>{}</code></p>\n\
         <p class=\"text\">{}</p>\n<p>Gold answer: <b>{}</b></p>\n\
         <div class=\"pair\">{}{}</div>\n</article>\n",
        escape(&example.question_id),
        escape(&example.question),
        example.gold,
        output(before, &example.before),
        output(after, &example.after)
    )
}

fn output(name: &str, output: &Output) -> String {
    let value = output
        .value
        .map_or_else(|| "no number".to_owned(), |value| value.to_string());
    format!(
        "<div><p><b>{}</b>: {value}, {}, {} tokens</p><p class=\"text\">{}</p></div>\n",
        escape(name),
        output.verdict,
        output.num_tokens,
        escape(output.text.trim())
    )
}
