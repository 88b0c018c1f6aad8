//! What it took and what it was made from.

use super::{
    super::results::Results,
    parts::{escape, table},
};
use crate::eval::{EvalSummary, short};

pub(super) fn costs(results: &Results) -> String {
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

pub(super) fn provenance(results: &Results) -> String {
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
