use clap::Parser;

use super::*;
use crate::cli::args::{Arguments, Command};

fn args(dir: &Path, more: &[&str]) -> PretrainArgs {
    let path = |name: &str| dir.join(name).display().to_string();
    let (text, out) = (path("text.jsonl"), path("out"));
    let fixed = ["trainer", "pretrain", "--text", &text, "--out", &out];
    match Arguments::try_parse_from(fixed.iter().chain(more))
        .unwrap()
        .command
    {
        Command::Pretrain(args) => *args,
        _ => panic!("asked for pretrain"),
    }
}

fn write_text(dir: &Path) {
    let lines: String = (0..60)
        .map(|n| {
            format!(
                "{{\"text\":\"Tom has {n} pens and {} apples.\\n#### {n}\"}}\n",
                n % 7
            )
        })
        .collect();
    std::fs::write(dir.join("text.jsonl"), lines).unwrap();
}

const TINY: [&str; 14] = [
    "--hidden-size",
    "16",
    "--num-heads",
    "2",
    "--num-kv-heads",
    "1",
    "--num-layers",
    "2",
    "--intermediate-size",
    "32",
    "--batch-tokens",
    "300",
    "--save-dtype",
    "bf16",
];

/// From text to a model folder that loads, with a tokenizer of its own, a falling loss, and the
/// schedule run to its end; then on from that model.
#[test]
fn makes_a_model_folder() {
    let dir = tempfile::tempdir().unwrap();
    write_text(dir.path());
    let more = [
        &TINY[..],
        &[
            "--vocab-size",
            "300",
            "--epochs",
            "6",
            "--warmup-steps",
            "2",
        ],
    ]
    .concat();
    let mut progress = Progress::memory();
    let stop = StopFlag::default();
    let outcome = run(&args(dir.path(), &more), &stop, &mut progress).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    let losses: Vec<f64> = progress
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::Step { loss, .. } => Some(*loss),
            _ => None,
        })
        .collect();
    assert!(losses.last().unwrap() < &(losses[0] - 0.5), "{losses:?}");
    let model = dir.path().join("out/model");
    let folder = ModelFolder::open(&model).unwrap();
    assert_eq!(folder.generation.eos_token_ids.len(), 1);
    let tokenizer = ModelTokenizer::load(&model).unwrap();
    assert!(tokenizer.bos_id().is_some());
    Weights::load(&model, &folder.config, candle_core::DType::F32).unwrap();

    // The same command does not train over it.
    let error = run(&args(dir.path(), &more), &stop, &mut progress).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("a folder without a model") && error.contains("--init-from"),
        "{error}"
    );

    let from = model.display().to_string();
    let more = [
        "--init-from",
        from.as_str(),
        "--epochs",
        "1",
        "--lr",
        "1e-3",
    ];
    let mut again = args(dir.path(), &more);
    again.out = dir.path().join("second");
    run(&again, &stop, &mut progress).unwrap();
    let on = ModelFolder::open(&dir.path().join("second/model")).unwrap();
    assert_eq!(on.config.architecture_difference(&folder.config), None);
}

/// A document longer than the maximum becomes pieces that overlap by one token, so that every token
/// but the first is a label exactly once; held-out documents are not trained on.
#[test]
fn long_documents_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    write_text(dir.path());
    let args = args(
        dir.path(),
        &[
            "--vocab-size",
            "300",
            "--max-length",
            "8",
            "--eval-fraction",
            "0.5",
        ],
    );
    let documents: Vec<String> = vec!["1234567890123".to_string(), "12".to_string()];
    let source = tokenizer_folder(&args, &documents).unwrap();
    let tokenizer = ModelTokenizer::load(&source).unwrap();
    let (examples, validation) = tokenise(&documents, &tokenizer, (&args, 1024)).unwrap();
    let labels: usize = examples
        .iter()
        .chain(validation.iter())
        .map(|e| e.num_labels())
        .sum();
    // Documents of 13 and 2 digits, each with BOS and EOS.
    assert_eq!(labels, 14 + 3);
    let longest = examples
        .iter()
        .chain(validation.iter())
        .map(|e| e.ids.len())
        .max();
    assert_eq!(longest, Some(8));
    assert!(!examples.is_empty());
    assert!(!validation.is_empty());

    // The model's context is a limit, too, and a single document is trained on, not held out.
    let one = &documents[..1];
    let (examples, validation) = tokenise(one, &tokenizer, (&args, 4)).unwrap();
    assert_eq!(examples.iter().map(|e| e.ids.len()).max(), Some(5));
    assert!(validation.is_empty());
}
