//! The page of a few evaluations without an experiment around them.

use std::fmt::Write;

use super::{
    super::evaluations::Evaluations, accuracy_table, answers, classes, comparisons, document,
    parts, rules, warnings,
};
use crate::eval::SampleScores;
use parts::{escape, figure, section, warning};

/// The whole page.
pub(in crate::report) fn page(evaluations: &Evaluations) -> String {
    let tests = evaluations.tests();
    let mut body = String::from("<h1>Evaluations</h1>\n");
    for (name, summary) in &tests {
        let line = (escape(name), escape(&summary.headline()));
        let _ = writeln!(body, "<p class=\"lead\">{}: <b>{}</b></p>", line.0, line.1);
    }
    for (name, summary) in &tests {
        let texts = warnings::of_summary(name, summary);
        body.extend(texts.iter().map(|text| warning(text)));
    }
    let pictures = &evaluations.pictures;
    let mut add = |title: &str, content: String| body += &section(title, &content);
    add(
        "Accuracy",
        accuracy_table(&tests) + &figure(&pictures.accuracy),
    );
    for (title, lines) in [
        ("Several samples of each question", samples(&tests)),
        ("Loss of the gold solutions", losses(&tests)),
    ] {
        if !lines.is_empty() {
            add(title, parts::table(&["", ""], &lines));
        }
    }
    let refusals: String = evaluations
        .in_words
        .iter()
        .map(|text| warning(&escape(text)))
        .collect();
    if tests.len() > 1 {
        let table = match evaluations.comparisons.as_slice() {
            [] => String::new(),
            pairs => comparisons(pairs),
        };
        add("Is the difference real?", table + &refusals);
    }
    add("Where every answer went", classes(&tests));
    add(
        "Lengths of answers",
        answers::lengths(&tests) + &figure(&pictures.lengths),
    );
    if let Some(steps) = &pictures.steps {
        let analysis = &evaluations.analysis;
        let firsts = if samples(&tests).is_empty() {
            ""
        } else {
            "<p>Of several samples of a question the first counts, here and below.</p>\n"
        };
        let table = answers::steps(analysis) + firsts;
        add("Accuracy by reasoning steps", table + &figure(steps));
        if tests.len() > 1 {
            add("Fixed and broken questions", answers::flips(analysis));
        }
    }
    add("The same outputs under every rule", rules(&tests));
    add("Provenance", provenance(&tests));
    document("Evaluations", &body)
}

/// pass@k and majority vote.
fn samples(tests: &[super::Test<'_>]) -> Vec<Vec<String>> {
    let lines = tests.iter().flat_map(|(name, summary)| {
        let lines = summary.samples.iter().flat_map(SampleScores::text);
        lines.map(|line| vec![escape(name), escape(&line)])
    });
    lines.collect()
}

fn losses(tests: &[super::Test<'_>]) -> Vec<Vec<String>> {
    let row = |(name, summary): &super::Test<'_>| {
        let loss = summary.loss.as_ref()?;
        let prompt = &summary.manifest.prompt.name;
        let line = format!("{}; prompt {prompt}", loss.line());
        Some(vec![escape(name), escape(&line)])
    };
    tests.iter().filter_map(row).collect()
}

fn provenance(tests: &[super::Test<'_>]) -> String {
    let row = |(name, summary): &super::Test<'_>| {
        let manifest = &summary.manifest;
        let facts = format!(
            "{} questions of {}, prompt {}, rule {}, temperature {}, at most {} tokens, weights {}",
            manifest.dataset.num_questions,
            manifest.dataset.path,
            manifest.prompt.name,
            manifest.rule,
            manifest.decoding.temperature,
            manifest.decoding.max_tokens,
            manifest.weights.checkpoint,
        );
        vec![escape(name), escape(&facts)]
    };
    let rows: Vec<Vec<String>> = tests.iter().map(row).collect();
    parts::table(&["", ""], &rows)
}
