use std::fs;

use data::{
    leak::LeakReason,
    prompt::PromptFormat,
    record::{Decoding, PromptStamp, Source, Verdict, WeightsStamp},
    select::{AttemptFate, Outcome, Policy},
    stats::{PairedCounts, wilson},
};

use super::{
    analysis::{Evaluated, analyse, tests as answers},
    plots::{EpochLoss, LossCurve},
    results::{
        EpochAccuracy, Inputs, Iteration, PeakMemory, RESULTS_VERSION, Results, StageTime, Variant,
    },
    *,
};
use crate::{
    bootstrap::BootstrapSummary,
    compare::Comparison,
    eval::{Classes, EvalSummary, Work},
    manifest::{DatasetStamp, Manifest, ModelStamp, SOFTWARE, ServerStamp},
    sampling::Sampling,
    select::{FateCount, OutcomeCount},
};

pub(super) fn manifest(checkpoint: &str) -> Manifest {
    Manifest {
        software: SOFTWARE.to_owned(),
        kind: "eval".to_owned(),
        dataset: DatasetStamp {
            path: "test.jsonl".to_owned(),
            sha256: "ab".repeat(32),
            selection_sha256: "cd".repeat(32),
            num_questions: 100,
            keys: crate::dataset::Keys::default(),
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
        attempts: 100,
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
        attempts: vec![FateCount {
            fate: AttemptFate::Kept,
            attempts: 120,
        }],
        forward: Classes {
            attempts: 200,
            right: 80,
            wrong: 120,
            ..Classes::default()
        },
        hint: Classes {
            attempts: 120,
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
        analysis: None,
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

/// Results with everything in them: two iterations, the second one chosen, and answers.
fn full_results() -> Results {
    let mut results = results();
    let iteration = |number: u32, right: u64| Iteration {
        iteration: number,
        bootstrap: BootstrapSummary {
            accepted_path: format!("bootstrap/{number}/accepted.jsonl").into(),
            ..bootstrap()
        },
        num_train_examples: 90,
        chosen_epoch: 1,
        held_out: summary("star", right),
        test: (number == 2).then(|| summary("star", right)),
    };
    results.iterations = vec![iteration(1, 30), iteration(2, 50)];
    results.bootstrap.accepted_path = "bootstrap/2/accepted.jsonl".into();
    let questions: Vec<_> = (0..8)
        .map(|index| answers::question(index, index))
        .collect();
    let attempts = |right: std::ops::Range<u32>| -> Vec<data::record::Attempt> {
        let verdict = |index| {
            if right.contains(&index) {
                Verdict::Right
            } else {
                Verdict::Truncated
            }
        };
        let attempt = |index| answers::attempt(index, verdict(index), 10 * index);
        (0..8).map(attempt).collect()
    };
    let (before, after) = (attempts(0..3), attempts(1..7));
    let hints = [answers::hint(0, Verdict::Right, &[LeakReason::TheHint])];
    let models = [("zero-shot", &before[..]), ("STaR SFT", &after)];
    let models = models.map(|(name, attempts)| Evaluated { name, attempts });
    results.analysis = Some(analyse(&questions, &models, &hints));
    results
}

fn page_of(results: &Results) -> String {
    let dir = tempfile::tempdir().unwrap();
    files::write_json(&dir.path().join(RESULTS_FILE), results).unwrap();
    fs::read_to_string(render(dir.path()).unwrap()).unwrap()
}

/// Iterations, lengths, steps and examples have their sections and pictures where their data are
/// there, with what comes from outside escaped.
#[test]
fn a_full_page_shows_iterations_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    files::write_json(&dir.path().join(RESULTS_FILE), &full_results()).unwrap();
    let html = fs::read_to_string(render(dir.path()).unwrap()).unwrap();
    for name in ["iterations", "answer_lengths", "accuracy_by_steps"] {
        let path = dir.path().join(PLOTS_FOLDER).join(format!("{name}.png"));
        assert!(fs::metadata(&path).unwrap().len() > 1000, "{name} is empty");
    }
    assert_eq!(html.matches("<svg").count(), 6);
    for text in [
        "<h2>Iterations</h2>",
        "2 <b>(chosen)</b>",
        "<h2>Accuracy by reasoning steps</h2>",
        "<h3>Fixed: 4</h3>",
        "<h3>Broken: 1</h3>",
        "What is &lt;3&gt;?",
        "&lt;i&gt;truncated&lt;/i&gt; 0",
        "<td>“the hint”</td><td>1</td><td>1</td>",
        "1 of the 1 right rationales after a hint (100.0 %)",
        "1 gold answers have no reasoning to count",
    ] {
        assert!(html.contains(text), "{text:?} is missing");
    }
    assert!(!html.contains("1 <b>(chosen)</b>") && !html.contains("<i>truncated"));
    // Results of before there were iterations and an analysis are read all the same.
    let mut old = serde_json::to_value(results()).unwrap();
    let fields = old.as_object_mut().unwrap();
    fields.remove("iterations");
    fields.remove("analysis");
    assert_eq!(serde_json::from_value::<Results>(old).unwrap(), results());
}

/// A model below the untouched one stands on top of the page, with the test that says whether it is
/// chance; so do cut answers, outputs without an answer and counts that do not close.
#[test]
fn what_must_not_be_overlooked_is_on_top() {
    let top = |results: &Results| {
        let html = page_of(results);
        let end = html.find("<section>").unwrap();
        html[html.find("<h1>").unwrap()..end].to_owned()
    };
    let mut good = results();
    for summary in [
        &mut good.zero_shot,
        &mut good.star.test,
        &mut good.vanilla.test,
    ] {
        summary.truncation_rate = 0.02;
        summary.extraction_rate = 0.9;
    }
    assert!(!top(&good).contains("warning"), "{}", top(&good));

    let mut worse = good.clone();
    worse.star.test.accuracy = 0.2;
    worse.star.test.counts.right = 20;
    worse.star.test.counts.wrong = 70;
    worse.comparisons[0].p_value = 1e-4;
    let text = top(&worse);
    for part in [
        "<b>STaR SFT is below the untouched model</b>: 20/100 (20.0 %) against 25/100 (25.0 %)",
        "p = 1.00e-4. Fine-tuning made the model worse",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    worse.comparisons[0].p_value = 0.3;
    assert!(top(&worse).contains("may be chance: exact McNemar p = 0.3000"));
    worse.comparisons.clear();
    assert!(top(&worse).contains("were not compared"));

    let mut cut = good.clone();
    cut.vanilla.test.truncation_rate = 0.06;
    cut.zero_shot.extraction_rate = 0.5;
    cut.bootstrap.outcomes[0].questions += 1;
    cut.star.test.counts.attempts += 1;
    let text = top(&cut);
    for part in [
        "vanilla SFT: <b>6.0 % of the answers were cut</b> at 64 tokens",
        "zero-shot: <b>rule numeric finds an answer in only 50.0 % of the outputs</b>",
        "the counts of bootstrapping do not close",
        "STaR SFT: the counts do not close: 101 questions",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert_eq!(text.matches("class=\"warning\"").count(), 4);
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
            "Lengths of answers",
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
    assert!(error.contains("--from"), "{error}");
}
