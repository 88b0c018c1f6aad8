//! What a reader must not overlook, on top of the page: a model that became worse, numbers that
//! measure the token limit or the extraction rule, counts that do not close.

use super::{
    super::results::Results,
    parts::{escape, percent, warning},
};
use crate::{
    compare::{SIGNIFICANT, p_text},
    eval::{Classes, EvalSummary},
    preflight::{MAX_CUT, MIN_USABLE},
};

pub(super) fn warnings(results: &Results) -> String {
    let tests = results.tests();
    let mut texts: Vec<String> = Vec::new();
    for (name, summary) in [tests[2], tests[1]] {
        texts.extend(worse(results, name, summary));
    }
    for (name, summary) in tests {
        texts.extend(of_summary(name, summary));
    }
    texts.extend(open_counts(results));
    texts.iter().map(|text| warning(text)).collect()
}

/// Below the untouched model.
fn worse(results: &Results, name: &str, tuned: &EvalSummary) -> Option<String> {
    let base = &results.zero_shot;
    if tuned.accuracy >= base.accuracy {
        return None;
    }
    let comparison = results
        .comparisons
        .iter()
        .find(|it| it.first == "zero-shot" && it.second == name);
    let certainty = match comparison.map(|comparison| comparison.p_value) {
        Some(p) if p < SIGNIFICANT => {
            let p = p_text(p);
            format!("This is no accident: exact McNemar p = {p}. Fine-tuning made the model worse.")
        }
        Some(p) => format!(
            "The difference may be chance: exact McNemar p = {}.",
            p_text(p)
        ),
        None => "The two were not compared question by question.".to_owned(),
    };
    Some(format!(
        "<b>{} is below the untouched model</b>: {}/{} ({}) against {}/{} ({}). {certainty}",
        escape(name),
        tuned.counts.right,
        tuned.counts.attempts,
        percent(tuned.counts.right, tuned.counts.attempts),
        base.counts.right,
        base.counts.attempts,
        percent(base.counts.right, base.counts.attempts),
    ))
}

/// Something other than the model's reasoning decides this accuracy.
pub(super) fn of_summary(name: &str, summary: &EvalSummary) -> Vec<String> {
    let name = escape(name);
    let mut texts = Vec::new();
    if summary.truncation_rate > MAX_CUT {
        texts.push(format!(
            "{name}: <b>{:.1} % of the answers were cut</b> at {} tokens and count as not right. \
             A higher limit may change the accuracy.",
            summary.truncation_rate * 100.0,
            summary.manifest.decoding.max_tokens
        ));
    }
    if summary.extraction_rate < MIN_USABLE {
        texts.push(format!(
            "{name}: <b>rule {} finds an answer in only {:.1} % of the outputs</b>. The accuracy \
             says more about the prompt's format than about reasoning; see the other rules.",
            summary.manifest.rule,
            summary.extraction_rate * 100.0
        ));
    }
    if !closes(summary.counts) {
        texts.push(format!(
            "{name}: the counts do not close: {}.",
            summary.counts.equation("questions")
        ));
    }
    texts
}

fn closes(counts: Classes) -> bool {
    counts.right + counts.wrong + counts.no_answer + counts.truncated == counts.attempts
}

fn open_counts(results: &Results) -> Vec<String> {
    let of_iterations = results.iterations.iter().map(|it| &it.bootstrap);
    [&results.bootstrap]
        .into_iter()
        .chain(of_iterations)
        .filter(|summary| {
            let questions: u64 = summary.outcomes.iter().map(|it| it.questions).sum();
            questions != summary.num_questions || !closes(summary.forward) || !closes(summary.hint)
        })
        .map(|summary| {
            format!(
                "the counts of bootstrapping do not close: {}.",
                summary.equation()
            )
        })
        .collect()
}
