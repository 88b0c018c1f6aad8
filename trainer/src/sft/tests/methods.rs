//! Other methods and number formats than plain f32, through whole runs.

use model::config::LlamaConfig;
use model::load::TensorReader;

use super::*;
use crate::cli::method::MergeArgs;
use crate::config::SaveDtype;
use crate::lora::merge::merge;

const LORA: [&str; 10] = [
    "--method",
    "lora",
    "--lora-rank",
    "4",
    "--lora-dropout",
    "0.1",
    "--base",
    "int8",
    "--precision",
    "bf16",
];

const BF16_WEIGHTS: [&str; 4] = ["--precision", "bf16-weights", "--moments", "int8"];

const SMOOTHED: [&str; 4] = ["--label-smoothing", "0.1", "--moments", "bf16"];

/// In every format a run that was stopped in the middle goes on to the same bits: dropout, stochastic
/// rounding and quantised moments included.
#[test]
fn every_format_resumes_bit_for_bit() {
    let setup = Setup::new(StoredDtype::Bf16);
    let formats: [&[&str]; 3] = [&LORA, &BF16_WEIGHTS, &SMOOTHED];
    for (number, format) in formats.iter().enumerate() {
        let flags: Vec<&str> = SMALL.iter().chain(*format).copied().collect();
        let (whole, parts) = (format!("whole{number}"), format!("parts{number}"));
        Setup::run(&setup.args(&whole, &flags)).0.unwrap();
        let args = setup.args(&parts, &flags);
        // In the middle of the first epoch, then of the second.
        for looks in [2, 5] {
            let outcome = run(&args, &StopFlag::at_look(looks), &mut Progress::memory());
            assert_eq!(outcome.unwrap(), Outcome::Interrupted);
        }
        Setup::run(&args).0.unwrap();
        for file in [
            "epoch_3/model.safetensors",
            "epoch_3/trainer_state/optimizer.safetensors",
            "losses.csv",
        ] {
            let read = |out: &str| std::fs::read(setup.path(out).join(file)).unwrap();
            assert!(read(&whole) == read(&parts), "{format:?}: {file} differs");
        }
    }
}

/// An epoch's folder has the merged model, and below it the adapter, from which `merge` makes the same
/// model again.
#[test]
fn an_epochs_model_is_its_adapter_merged() {
    let setup = Setup::new(StoredDtype::F32);
    let lora = ["--method", "lora", "--lora-targets", "q_proj,v_proj"];
    let flags: Vec<&str> = SMALL.iter().chain(&lora).copied().collect();
    Setup::run(&setup.args("lora", &flags)).0.unwrap();
    let args = |out: &str| MergeArgs {
        model: setup.path("base"),
        adapter: setup.path("lora/epoch_3/adapter"),
        out: setup.path(out),
        save_dtype: Some(SaveDtype::F32),
    };
    merge(&args("merged")).unwrap();
    assert!(verify_folder(&setup.path("merged")).unwrap().is_some());
    let values = |out: &str| -> Vec<(String, Vec<f32>)> {
        let config = LlamaConfig::load(&setup.path(out)).unwrap();
        let reader = TensorReader::open(&setup.path(out), &config).unwrap();
        reader
            .map(|tensor| tensor.map(|(spec, values)| (spec.name, values)).unwrap())
            .collect()
    };
    let (saved, merged, base) = (values("lora/epoch_3"), values("merged"), values("base"));
    let mut num_changed = 0;
    for (((name, saved), (_, merged)), (_, base)) in saved.iter().zip(&merged).zip(&base) {
        let equal = saved.iter().zip(merged).all(|(a, b)| (a - b).abs() <= 1e-6);
        assert!(equal, "{name} differs");
        num_changed += usize::from(saved != base);
    }
    // Two projections of each of two layers.
    assert_eq!(num_changed, 4);
    let error = merge(&args("merged")).unwrap_err().to_string();
    assert!(error.contains("--out"), "{error}");
}

/// What an adapter folder may hold and this program does not compute is refused by name.
#[test]
fn foreign_adapters_are_refused_by_name() {
    let setup = Setup::new(StoredDtype::F32);
    let lora = ["--method", "lora", "--lora-targets", "q_proj"];
    let flags: Vec<&str> = SMALL.iter().chain(&lora).copied().collect();
    Setup::run(&setup.args("lora", &flags)).0.unwrap();
    let adapter = setup.path("lora/epoch_3/adapter");
    // As PEFT writes it: without a manifest, which would not fit the changed file.
    std::fs::remove_file(adapter.join("manifest.json")).unwrap();
    let path = adapter.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (field, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("alora_invocation_tokens", json!([1, 2])),
        ("target_modules", json!(["embed_tokens"])),
        ("target_modules", json!(["k_proj"])),
    ] {
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config[field] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        let args = MergeArgs {
            model: setup.path("base"),
            adapter: adapter.clone(),
            out: setup.path("merged"),
            save_dtype: None,
        };
        let error = merge(&args).unwrap_err().to_string();
        let named = error.contains(field) || error.contains("lora_A");
        assert!(named, "{field}: {error}");
        assert!(!setup.path("merged").exists());
    }
}

/// Flags that contradict each other are errors that name one.
#[test]
fn contradicting_flags_are_refused() {
    let setup = Setup::new(StoredDtype::F32);
    for (flags, named) in [
        (vec!["--lora-rank", "4"], "--lora-rank"),
        (
            vec!["--method", "lora", "--precision", "bf16-weights"],
            "--precision",
        ),
        (vec!["--method", "lora", "--lora-rank", "0"], "--lora-rank"),
        (
            vec!["--method", "lora", "--lora-dropout", "1"],
            "--lora-dropout",
        ),
        (vec!["--label-smoothing", "1"], "--label-smoothing"),
    ] {
        let error = Setup::run(&setup.args("out", &flags)).0.unwrap_err();
        assert!(error.to_string().contains(named), "{flags:?}: {error}");
    }
}
