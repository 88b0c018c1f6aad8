use std::fs;

use data::{
    prompt::PromptFormat,
    record::{Decoding, PromptStamp, Source, WeightsStamp},
    select::{Outcome, Policy},
    stats::{PairedCounts, wilson},
};

use super::{
    plots::{EpochLoss, LossCurve},
    results::{EpochAccuracy, Inputs, PeakMemory, RESULTS_VERSION, Results, StageTime, Variant},
    *,
};
use crate::{
    bootstrap::{BootstrapSummary, OutcomeCount},
    compare::Comparison,
    eval::{Classes, EvalSummary, Work},
    manifest::{DatasetStamp, Manifest, ModelStamp, SOFTWARE, ServerStamp},
    sampling::Sampling,
};

fn manifest(checkpoint: &str) -> Manifest {
    Manifest {
        software: SOFTWARE.to_owned(),
        kind: "eval".to_owned(),
        dataset: DatasetStamp {
            path: "test.jsonl".to_owned(),
            sha256: "ab".repeat(32),
            selection_sha256: "cd".repeat(32),
            num_questions: 100,
        },
        prompt: PromptStamp {
            name: "basic".to_owned(),
            digest: "ef".repeat(32),
        },
        hint_prompt: None,
        prompt_format: PromptFormat::Plain,
        template: None,
        decoding: Decoding::greedy(64),
        resampling: None,
        seed: 0,
        rule: data::answer::Rule::Numeric,
        sampling: Sampling::only(1),
        iteration: 0,
        weights: WeightsStamp {
            version: 1,
            digest: "12".repeat(32),
            checkpoint: checkpoint.to_owned(),
        },
        model: ModelStamp {
            architecture: "LlamaForCausalLM".to_owned(),
            num_parameters: 1_500_000,
            dtype: "f32".to_owned(),
        },
        server: ServerStamp {
            version: "0.1.0".to_owned(),
        },
    }
}

fn summary(checkpoint: &str, right: u64) -> EvalSummary {
    let mut summary = crate::eval::summarize(manifest(checkpoint), &[], Work::default());
    summary.counts = Classes {
        questions: 100,
        right,
        wrong: 90 - right,
        no_answer: 4,
        truncated: 6,
    };
    summary.accuracy = right as f64 / 100.0;
    summary.interval = wilson(right, 100);
    summary
}

fn variant(name: &str, right: u64) -> Variant {
    Variant {
        name: name.to_owned(),
        train_file: "<accepted & more>.jsonl".to_owned(),
        train_sha256: "34".repeat(32),
        num_train_examples: 90,
        num_validation_examples: 10,
        losses: LossCurve {
            steps: vec![(0.5, 1.0), (1.0, 0.8)],
            epochs: vec![EpochLoss {
                epoch: 1,
                train_loss: 0.9,
                validation_loss: Some(0.95),
            }],
        },
        held_out: vec![EpochAccuracy {
            epoch: 1,
            summary: summary(name, right),
        }],
        chosen_epoch: 1,
        checkpoint: format!("{name}/epoch_1"),
        test: summary(name, right),
    }
}

fn bootstrap() -> BootstrapSummary {
    let outcome = |outcome, questions| OutcomeCount { outcome, questions };
    BootstrapSummary {
        manifest: manifest("base"),
        policy: Policy::sound(),
        num_questions: 200,
        num_accepted: 120,
        outcomes: vec![
            outcome(Outcome::AcceptedForward, 80),
            outcome(Outcome::AcceptedHint, 40),
            outcome(Outcome::Wrong, 80),
        ],
        forward: Classes {
            questions: 200,
            right: 80,
            wrong: 120,
            ..Classes::default()
        },
        hint: Classes {
            questions: 120,
            right: 40,
            wrong: 80,
            ..Classes::default()
        },
        hint_share: 1.0 / 3.0,
        accepted_path: "bootstrap/accepted.jsonl".into(),
        accepted_sha256: "9a".repeat(32),
        work: Work::default(),
    }
}

fn results() -> Results {
    let counts = PairedCounts {
        both_right: 20,
        only_first: 5,
        only_second: 30,
        both_wrong: 45,
    };
    let comparison = Comparison {
        first: "zero-shot".to_owned(),
        second: "STaR SFT".to_owned(),
        counts,
        difference: counts.difference(),
        interval: counts.difference_interval(),
        p_value: counts.mcnemar_exact(),
    };
    Results {
        version: RESULTS_VERSION,
        software: SOFTWARE.to_owned(),
        finished_at: "2026-01-02T03:04:05Z".to_owned(),
        settings: serde_json::json!({"epochs": 2, "note": "a < b"}),
        inputs: Inputs {
            model: "models/<base>".to_owned(),
            train: "train.jsonl".to_owned(),
            train_sha256: "56".repeat(32),
            test: "test.jsonl".to_owned(),
            test_sha256: "78".repeat(32),
            num_fit: 200,
            num_held_out: 20,
            num_test: 100,
        },
        zero_shot: summary("base", 25),
        bootstrap: bootstrap(),
        base_on_held_out: summary("base", 24),
        star: variant("STaR SFT", 50),
        iterations: Vec::new(),
        vanilla: variant("vanilla SFT", 40),
        comparisons: vec![comparison],
        stages: vec![StageTime {
            stage: "zero-shot".to_owned(),
            seconds: 3.5,
        }],
        memory: PeakMemory {
            client_bytes: 300 << 20,
            trainer_bytes: 200 << 20,
        },
    }
}

/// A report renders from its results alone: page, three PNGs, three SVGs; rendering again changes
/// nothing.
#[test]
fn a_report_renders_from_results_alone() {
    let dir = tempfile::tempdir().unwrap();
    files::write_json(&dir.path().join(RESULTS_FILE), &results()).unwrap();
    let page = render(dir.path()).unwrap();
    let html = fs::read_to_string(&page).unwrap();
    for name in ["sft_star_loss", "sft_vanilla_loss", "accuracy_comparison"] {
        for end in ["png", "svg"] {
            let path = dir.path().join(PLOTS_FOLDER).join(format!("{name}.{end}"));
            assert!(
                fs::metadata(&path).unwrap().len() > 1000,
                "{} is empty",
                path.display()
            );
        }
    }
    render(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&page).unwrap(), html);
}

/// The page has its sections in this order, three pictures inside, and nothing from outside.
#[test]
fn the_page_is_self_contained() {
    let dir = tempfile::tempdir().unwrap();
    files::write_json(&dir.path().join(RESULTS_FILE), &results()).unwrap();
    let html = fs::read_to_string(render(dir.path()).unwrap()).unwrap();
    let headings: Vec<&str> = html
        .split("<h2>")
        .skip(1)
        .map(|rest| rest.split("</h2>").next().unwrap())
        .collect();
    expect_test::expect![[r#"
        [
            "Accuracy",
            "Is the difference real?",
            "Where every question went",
            "Bootstrapping",
            "STaR SFT",
            "vanilla SFT",
            "The same outputs under every rule",
            "Time and memory",
            "Provenance",
        ]
    "#]]
    .assert_debug_eq(&headings);
    assert_eq!(html.matches("<svg").count(), 3);
    for outside in ["<script", "<link", "src=", "href=\"http"] {
        assert!(
            !html.contains(outside),
            "{outside} in a self-contained page"
        );
    }
    for text in [
        "50/100",
        "25/100",
        "models/&lt;base&gt;",
        "a &lt; b",
        "accepted (forward)",
    ] {
        assert!(html.contains(text), "{text:?} is missing");
    }
    assert!(
        !html.contains("models/<base>"),
        "text from outside is not escaped"
    );
}

/// Results survive the file unchanged, so a report can be made again years later.
#[test]
fn results_round_trip() {
    let text = serde_json::to_string(&results()).unwrap();
    let back: Results = serde_json::from_str(&text).unwrap();
    assert_eq!(back, results());
    assert_eq!(back.bars().len(), 3);
    // Named in the file as the record format names it.
    assert!(
        serde_json::to_string(&Source::Hint)
            .unwrap()
            .contains("hint")
    );
}

/// A folder without results is an error that names the file.
#[test]
fn a_folder_without_results_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = render(dir.path()).unwrap_err().to_string();
    assert!(error.contains(RESULTS_FILE), "{error}");
}
