//! Whole runs on a GPU; on the software one where there is no other.

use cuda_emulator::Provided;
use half::bf16;
use model::config::LlamaConfig;
use model::load::TensorReader;
use model::weights::{TensorSpec, Weights};

use super::group::{run_as, run_as_until};
use super::stops::steps_in;
use super::*;
use crate::config::SaveDtype;
use crate::lora::peft::AdapterFolder;
use crate::testing::write_gpu_model_folder;

/// A model that the GPU's kernels take, or `None` and a loud line.
fn setup() -> Option<Setup> {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return None;
    }
    let setup = Setup::new(StoredDtype::Bf16);
    write_gpu_model_folder(&setup.path("base"), StoredDtype::Bf16);
    // Few and short: a software GPU takes its time.
    let line = |n: u32| json!({ "prompt": "Tom has", "completion": format!(" {n} pens") });
    let lines: String = (0..7).map(|n| line(n).to_string() + "\n").collect();
    std::fs::write(setup.path("train.jsonl"), lines).unwrap();
    Some(setup)
}

const FEW: [&str; 16] = [
    "--device",
    "cuda",
    "--epochs",
    "2",
    "--lr",
    "1e-2",
    "--batch-size",
    "3",
    "--validation-fraction",
    "0.1",
    "--seed",
    "5",
    "--max-length",
    "24",
    "--max-tokens-per-micro-batch",
    "24",
];

const LORA: [&str; 6] = [
    "--method",
    "lora",
    "--lora-rank",
    "8",
    "--lora-dropout",
    "0.1",
];

const INT8_BASE: [&str; 2] = ["--base", "int8"];

const BF16_WEIGHTS: [&str; 4] = ["--precision", "bf16-weights", "--moments", "int8"];

/// A run that was stopped in the middle of an epoch goes on to the bits of one that was not, in every
/// format, and its folders are models like any other.
#[test]
fn a_run_on_a_gpu_resumes_bit_for_bit() {
    let Some(setup) = setup() else { return };
    let int8_base = [&LORA[..], &INT8_BASE].concat();
    let formats: [&[&str]; 4] = [&[], &LORA, &int8_base, &BF16_WEIGHTS];
    for (number, format) in formats.iter().enumerate() {
        let flags: Vec<&str> = FEW.iter().chain(*format).copied().collect();
        let (whole, parts) = (format!("whole{number}"), format!("parts{number}"));
        let (outcome, events) = Setup::run(&setup.args(&whole, &flags));
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        let losses: Vec<f64> = events.iter().filter_map(epoch_loss).collect();
        assert!(losses[1] < losses[0], "{format:?}: {losses:?}");
        let args = setup.args(&parts, &flags);
        let outcome = run(&args, &StopFlag::at_look(1), &mut Progress::memory());
        assert_eq!(outcome.unwrap(), Outcome::Interrupted);
        Setup::run(&args).0.unwrap();
        assert_same_files(&setup, (&whole, &parts), format);
        let folder = ModelFolder::open(&setup.path(&whole).join("epoch_2")).unwrap();
        let dtype = candle_core::DType::F32;
        Weights::load(&setup.path(&whole).join("epoch_2"), &folder.config, dtype).unwrap();
    }
}

/// All tensors of a model folder.
fn values_of(dir: &Path) -> Vec<(TensorSpec, Vec<f32>)> {
    let config = LlamaConfig::load(dir).unwrap();
    let reader = TensorReader::open(dir, &config).unwrap();
    reader.map(Result::unwrap).collect()
}

/// Rows of 8 bits with a scale each, widened to bf16.
fn rounded_by_rows(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.chunks(width).flat_map(|row| {
        let scale = row.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
        let inverse = 1.0 / scale;
        let round = move |x: &f32| (x * inverse).round_ties_even() * scale;
        row.iter().map(move |x| bf16::from_f32(round(x)).to_f32())
    });
    rows.collect()
}

/// Over a base in 8 bits an epoch's model is what was trained: the widened base, and the adapter that lies
/// below it.
#[test]
fn an_epochs_model_is_the_int8_base_and_its_adapter() {
    let Some(setup) = setup() else { return };
    let flags = [&FEW[..], &LORA, &INT8_BASE].concat();
    Setup::run(&setup.args("out", &flags)).0.unwrap();
    let (base, saved) = (
        values_of(&setup.path("base")),
        values_of(&setup.path("out/epoch_2")),
    );
    let adapter = setup.path("out/epoch_2/adapter");
    let mut adapters = AdapterFolder::read(&adapter).unwrap();
    let mut num_adapted = 0;
    for ((spec, base), (_, saved)) in base.iter().zip(&saved) {
        if !adapters.has_target(&spec.name) {
            assert!(base == saved, "{} differs", spec.name);
            continue;
        }
        num_adapted += 1;
        let (a, b) = adapters.take(&spec.name, &adapter).unwrap();
        let added = (b.matmul(&a).unwrap() * adapters.scale).unwrap();
        let added: Vec<f32> = added.flatten_all().unwrap().to_vec1().unwrap();
        assert!(added.iter().any(|x| x.abs() > 1e-3), "{}", spec.name);
        let frozen = rounded_by_rows(base, spec.shape[1]);
        assert!(frozen != *base, "{} is not in 8 bits", spec.name);
        for ((saved, frozen), added) in saved.iter().zip(&frozen).zip(&added) {
            let expected = frozen + added;
            // Saved in bf16.
            let limit = expected.abs() / 256.0 + 1e-6;
            assert!((saved - expected).abs() <= limit, "{}", spec.name);
        }
    }
    assert_eq!(num_adapted, 14);
    adapters.finish(&adapter).unwrap();
}

/// Two ranks, here both on the first GPU, train as one: the losses and the weights of one process up to
/// the order of sums, the same bits on both, and also when they stop and go on.
#[test]
fn ranks_on_gpus_are_one_run() {
    let Some(setup) = setup() else { return };
    for (number, format) in [&[][..], &LORA].into_iter().enumerate() {
        let args_of = |out: &str| {
            let flags = [&FEW, format].concat();
            let mut args = setup.args(&format!("{out}{number}"), &flags);
            args.common.device.gpu = Some(0);
            // Three examples a step, each of which nearly fills one.
            args.common.max_tokens_per_micro_batch = 6;
            args.save_dtype = Some(SaveDtype::F32);
            args
        };
        Setup::run(&args_of("one")).0.unwrap();
        for outcome in run_as(2, &args_of("two")) {
            assert_eq!(outcome.unwrap(), Outcome::Finished);
        }
        let parts = args_of("parts");
        for outcome in run_as_until(2, &parts, || StopFlag::at_look(1)) {
            assert_eq!(outcome.unwrap(), Outcome::Interrupted);
        }
        // Alone it would deal micro-batches and add gradients in another way.
        let alone = Setup::run(&parts).0.unwrap_err().to_string();
        assert!(alone.contains("num_lanes"), "{alone}");
        for outcome in run_as(2, &parts) {
            assert_eq!(outcome.unwrap(), Outcome::Finished);
        }

        let [one, two, parts] = ["one", "two", "parts"].map(|out| format!("{out}{number}"));
        assert_same_files(&setup, (&two, &parts), format);
        let steps = steps_in(&setup, &two);
        assert_eq!(steps, steps_in(&setup, &format!("{two}/ranks/1")));
        check_near(&setup, (&one, &two), &steps);
    }
}

/// Gradients differ by the order of f32 sums alone (see `gpu::tests::group`), but AdamW divides by their
/// size: where an entry is next to nothing its update may be any, up to the learning rate of 1e-2. Few are:
/// the weights are equal to a thousandth of that. A step's loss moves by what it does to it when few weights
/// are rounded to the other of two neighbours in bf16.
fn check_near(setup: &Setup, (one, two): (&str, &str), steps: &[serde_json::Value]) {
    let losses = |steps: &[serde_json::Value]| -> Vec<f64> {
        steps
            .iter()
            .map(|step| step["loss"].as_f64().unwrap())
            .collect()
    };
    let (expected, found) = (losses(&steps_in(setup, one)), losses(steps));
    assert_eq!(expected.len(), found.len());
    // Each rank had something to do.
    assert!(
        steps.iter().all(|step| step["tokens"].as_u64() > Some(6)),
        "{steps:?}"
    );
    for (expected, found) in expected.iter().zip(&found) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
    }
    let weights = |out: &str| -> Vec<f32> {
        let folder = setup.path(out).join("epoch_2");
        let config = ModelFolder::open(&folder).unwrap().config;
        let weights = Weights::load(&folder, &config, candle_core::DType::F32).unwrap();
        let flat = weights
            .named()
            .into_iter()
            .flat_map(|(_, weight)| weight.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        flat.collect()
    };
    let (expected, found) = (weights(one), weights(two));
    let pairs = found.iter().zip(&expected);
    let squares: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let rms = (squares / expected.len() as f64).sqrt();
    assert!(rms < 1e-5, "{rms}");
}

fn epoch_loss(event: &Event) -> Option<f64> {
    match event {
        Event::EpochEnd { train_loss, .. } => Some(*train_loss),
        _ => None,
    }
}

/// What two runs of two epochs left behind is the same to the bit.
fn assert_same_files(setup: &Setup, (one, other): (&str, &str), format: &[&str]) {
    for file in [
        "epoch_2/model.safetensors",
        "epoch_2/trainer_state/optimizer.safetensors",
        "epoch_2/trainer_state/state.json",
        "losses.csv",
    ] {
        let read = |out: &str| std::fs::read(setup.path(out).join(file)).unwrap();
        assert!(read(one) == read(other), "{format:?}: {file} differs");
    }
}

/// A run goes on on the device that it began on: sums have another order on the other one.
#[test]
fn the_device_is_a_setting() {
    let Some(setup) = setup() else { return };
    let flags = [&FEW[..], &LORA].concat();
    Setup::run(&setup.args("out", &flags)).0.unwrap();
    let on_cpu = [&FEW[2..], &LORA, &["--precision", "bf16"]].concat();
    let error = Setup::run(&setup.args("out", &on_cpu)).0.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("device = \"cuda\""), "{error}");
}

/// What a GPU does not compute is refused by name, before a weight is read.
#[test]
fn what_a_gpu_lacks_is_refused() {
    let Some(setup) = setup() else { return };
    for (more, named) in [
        (vec!["--precision", "f32"], "--precision"),
        (
            vec!["--method", "lora", "--base", "f32"],
            "--base = f32: expected bf16 or int8",
        ),
        (vec!["--method", "lora", "--lora-rank", "12"], "--lora-rank"),
    ] {
        let flags: Vec<&str> = FEW.iter().copied().chain(more).collect();
        let error = Setup::run(&setup.args("out", &flags)).0.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
    let mut args = setup.args("out", &FEW[2..]);
    args.common.device.gpu = Some(1);
    let error = Setup::run(&args).0.unwrap_err().to_string();
    assert!(error.contains("--gpu"), "{error}");
}

/// The plan of a run on a GPU is what its memory will hold: 16 bytes a weight with f32 masters and
/// moments, two more for the copy that products read.
#[test]
fn a_plan_counts_the_gpus_memory() {
    let setup = Setup::new(StoredDtype::Bf16);
    let flags = [&FEW[..12], &["--prompt", "sft"]].concat();
    let args = setup.args("out", &flags);
    let plan = run_plan(&prepare(&args).unwrap(), 1, None);
    let memory = plan.memory;
    let per_weight = memory.gradients + memory.moments;
    assert!(per_weight >= 12 * memory.num_parameters, "{memory:?}");
    let states = memory.weights + per_weight;
    // Norms have no copy; places are rounded up to 128 values.
    assert!(
        states < 18 * memory.num_parameters + (64 << 10),
        "{memory:?}"
    );
    assert!(plan.text().contains("peak on the GPU"));
    // Each of several holds the same, and has its part of the arithmetic.
    let two = run_plan(&prepare(&args).unwrap(), 2, None);
    assert_eq!((two.memory, two.steps), (memory, plan.steps));
    assert_eq!(two.flops.to_bits(), plan.flops.to_bits());
    let text = two.text();
    assert!(
        text.contains("peak on each GPU") && text.contains("shared by 2"),
        "{text}"
    );
}
