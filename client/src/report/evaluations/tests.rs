//! Folders as `star eval` leaves them, side by side on one page.

use std::fs;

use data::{
    append_log::read_log,
    record::{Attempt, Verdict},
};

use super::{
    super::{analysis::tests as answers, tests::manifest},
    *,
};
use crate::{
    collect::{ATTEMPTS_FILE, MANIFEST_FILE},
    eval::{Work, summarize},
};

/// Ten questions, of which the first `right` are answered right.
fn folder(root: &Path, name: &str, right: u32, max_tokens: u32) -> PathBuf {
    let folder = root.join(name);
    fs::create_dir(&folder).unwrap();
    let lines = (0..10).map(|index| {
        let question = answers::question(index, 1 + index % 3);
        serde_json::json!({
            "id": question.id, "question": question.question, "answer": question.answer
        })
    });
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let dataset = root.join("test.jsonl");
    fs::write(&dataset, &text).unwrap();
    let mut manifest = manifest(name);
    manifest.dataset.num_questions = 10;
    manifest.dataset.path = dataset.display().to_string();
    manifest.dataset.sha256 = files::sha256_hex(text.as_bytes());
    manifest.decoding.max_tokens = max_tokens;
    let verdict = |index| {
        if index < right {
            Verdict::Right
        } else {
            Verdict::Truncated
        }
    };
    let attempts: Vec<Attempt> = (0..10)
        .map(|index| answers::attempt(index, verdict(index), 10 + index))
        .collect();
    let log: String = attempts
        .iter()
        .map(|attempt| serde_json::to_string(attempt).unwrap() + "\n")
        .collect();
    fs::write(folder.join(ATTEMPTS_FILE), log).unwrap();
    files::write_json(&folder.join(MANIFEST_FILE), &manifest).unwrap();
    let summary = summarize(manifest, &attempts, Work::default());
    files::write_json(&folder.join(SUMMARY_FILE), &summary).unwrap();
    folder
}

/// All folders are on the page, the others compared to the first one where that may be done.
#[test]
fn folders_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let folders = [
        folder(dir.path(), "base", 2, 64),
        folder(dir.path(), "<tuned>", 7, 64),
        folder(dir.path(), "longer", 8, 128),
    ];
    let out = dir.path().join("report");
    let html = fs::read_to_string(render_evaluations(&folders, &out).unwrap()).unwrap();
    for text in [
        "2/10 = 20.00 %",
        "base → ",
        "&lt;tuned&gt;</td><td>+50.00</td>",
        "longer cannot be compared: they differ in",
        "<h2>Accuracy by reasoning steps</h2>",
        "<h3>Fixed: 6</h3>",
        "base: <b>80.0 % of the answers were cut</b> at 64 tokens",
    ] {
        assert!(html.contains(text), "{text:?} is missing");
    }
    assert!(!html.contains("<tuned>"));
    assert_eq!(html.matches("<svg").count(), 3);
    assert!(out.join(PLOTS_FOLDER).join("answer_lengths.png").is_file());

    // The questions are gone: what needs them is absent, all else is there.
    fs::remove_file(dir.path().join("test.jsonl")).unwrap();
    let html = fs::read_to_string(render_evaluations(&folders[..1], &out).unwrap()).unwrap();
    assert!(!html.contains("reasoning steps") && !html.contains("Is the difference real?"));
    assert_eq!(html.matches("<svg").count(), 2);
}

/// A folder without a result is named.
#[test]
fn a_folder_without_a_summary_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let folders = [dir.path().join("nothing")];
    let error = render_evaluations(&folders, &dir.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
}

/// Several samples are answers, not questions, on page and plot; pass@k and the majority are there.
#[test]
fn samples_are_not_questions() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder(dir.path(), "sampled", 4, 64);
    let mut manifest = files::require_json::<Manifest>(&folder.join(MANIFEST_FILE)).unwrap();
    manifest.sampling = crate::sampling::Sampling::only(2);
    let mut attempts = read_log::<Attempt>(&folder.join(ATTEMPTS_FILE))
        .unwrap()
        .records;
    let second = |first: &Attempt| Attempt {
        sample: 1,
        ..first.clone()
    };
    attempts = attempts
        .iter()
        .flat_map(|it| [it.clone(), second(it)])
        .collect();
    let log: String = attempts
        .iter()
        .map(|attempt| serde_json::to_string(attempt).unwrap() + "\n")
        .collect();
    fs::write(folder.join(ATTEMPTS_FILE), log).unwrap();
    files::write_json(&folder.join(MANIFEST_FILE), &manifest).unwrap();
    let summary = summarize(manifest, &attempts, Work::default());
    files::write_json(&folder.join(SUMMARY_FILE), &summary).unwrap();
    let html = render_evaluations(&[folder], &dir.path().join("out")).unwrap();
    let html = fs::read_to_string(html).unwrap();
    for text in [
        "8/20 = 40.00 %",
        "Accuracy on 10 test questions",
        "pass@2 40.00 %",
        "the first counts",
    ] {
        assert!(html.contains(text), "{text:?} is missing");
    }
}
