//! `trainer pretrain`: next-token training of a small model on text, from scratch or going on from a
//! model folder. Tokenizer (where one is trained), documents, plan; the loop is `train`'s.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data::example::for_each_document;
use kernels::Compute;
use model::config::LlamaConfig;
use model::folder::ModelFolder;
use model::tokenizer::{ModelTokenizer, Prompt};
use model::weights::Weights;
use rayon::prelude::*;
use serde_json::json;

use crate::best::BestConfig;
use crate::checkpoint::remove_half_models;
use crate::cli::args::PretrainArgs;
use crate::cli::optimizer_args::PRETRAIN_DEFAULTS;
use crate::config::{MomentsDtype, OptimizerConfig, Precision, Window, require};
use crate::dataset::Examples;
use crate::distributed::Group;
use crate::error::{Result, TrainError};
use crate::forward::{Network, NetworkOptions, tensors_of};
use crate::gpu::GpuEngine;
use crate::init::random_weights;
use crate::metrics::{MetricsLog, Rates};
use crate::optimizer::Optimizer;
use crate::outputs::{Outputs, Saving};
use crate::progress::{Event, Progress};
use crate::resume::OutFolder;
use crate::rng::shuffled;
use crate::stop::StopFlag;
use crate::throughput::ModelFlops;
use crate::tokenizer_training::train_tokenizer;
use crate::train::cpu::CpuEngine;
use crate::train::engine::Engine;
use crate::train::{Budget, Outcome, Plan, TrainState, train};

/// Held-out documents beyond these would cost more time than their precision is worth.
const MAX_VALIDATION_DOCUMENTS: usize = 1000;

/// Pre-trains as `args` say. The model is in `args.out/model`.
pub fn run(args: &PretrainArgs, stop: &StopFlag, progress: &mut Progress) -> Result<Outcome> {
    let optimizer_config = args
        .optimizer
        .config(PRETRAIN_DEFAULTS, MomentsDtype::F32)?;
    require(
        "--eval-fraction",
        args.eval_fraction,
        "0 <= fraction < 1",
        |x| (0.0..1.0).contains(&x),
    )?;
    let _claim = OutFolder::claim(&args.out)?;
    remove_half_models(&args.out)?;
    refuse_finished(&args.out)?;
    let mut documents = Vec::new();
    for path in &args.text {
        for_each_document(path, |text| documents.push(text))?;
    }
    let source = tokenizer_folder(args, &documents)?;
    let tokenizer = ModelTokenizer::load(&source)?;
    let (config, weights) = if let Some(dir) = &args.init_from {
        let folder = ModelFolder::open(dir)?;
        let weights = Weights::load(dir, &folder.config, candle_core::DType::F32)?;
        (folder.config, weights)
    } else {
        let config = architecture(args, &tokenizer)?;
        let weights = random_weights(&config, args.common.seed)?;
        (config, weights)
    };
    let context = config.max_position_embeddings;
    let (examples, validation) = tokenise(&documents, &tokenizer, (args, context))?;
    drop(documents);
    if examples.is_empty() {
        let what = args
            .text
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>();
        return Err(TrainError::NoExamples {
            what: what.join(", "),
            details: "no document of two tokens or more".to_string(),
        });
    }
    let gpu = args.common.device.open(None)?;
    let peak_tflops = args
        .common
        .logs
        .peak_tflops(Compute::F32, (gpu.as_ref(), 1))?;
    let engine = engine((config, weights), args, optimizer_config.clone(), gpu)?;
    let mut state = TrainState::new(engine, Group::Single);
    let sets = (&examples, &validation);
    run_loop(
        (&mut state, peak_tflops),
        (args, optimizer_config, &source),
        sets,
        (stop, progress),
    )
}

/// All weights are trained: in f32 on the CPU, with products in bf16 on a GPU.
fn engine(
    (config, weights): (LlamaConfig, Weights),
    args: &PretrainArgs,
    optimizer: OptimizerConfig,
    gpu: Option<cuda::Device>,
) -> Result<Box<dyn Engine>> {
    let mut options = NetworkOptions {
        checkpointing: args.common.checkpointing,
        seed: args.common.seed,
        ..NetworkOptions::default()
    };
    let tensors = tensors_of(&config, &weights);
    drop(weights);
    let Some(device) = gpu else {
        let network = Network::new(config, tensors, options)?;
        let optimizer = Optimizer::new(optimizer, args.common.seed, &network.parameters);
        return Ok(Box::new(CpuEngine::new(network, optimizer, &Group::Single)));
    };
    options.precision = Precision::Bf16;
    let longest = args.max_length as usize;
    let max_tokens = args.common.max_tokens_per_micro_batch.max(longest);
    let options = (options, optimizer);
    let engine = GpuEngine::new(device, config, tensors, options, max_tokens)?;
    Ok(Box::new(engine))
}

/// A pre-training run begins at its beginning: it must not overwrite the model of an earlier one.
fn refuse_finished(out: &Path) -> Result<()> {
    let model = out.join("model");
    if !model.try_exists().map_err(TrainError::io(&model))? {
        return Ok(());
    }
    Err(TrainError::BadSetting {
        flag: "--out",
        found: out.display().to_string(),
        expected: format!(
            "a folder without a model; to train {model} further, give --init-from {model} and \
             another --out",
            model = model.display()
        ),
    })
}

fn run_loop(
    (state, peak_tflops): (&mut TrainState, f64),
    (args, optimizer, source): (&PretrainArgs, OptimizerConfig, &Path),
    (examples, validation): (&Examples, &Examples),
    (stop, progress): (&StopFlag, &mut Progress),
) -> Result<Outcome> {
    let per_epoch = examples.num_inputs() as u64;
    let budget = args
        .tokens
        .unwrap_or(per_epoch * u64::from(args.epochs.unwrap_or(1)));
    let plan = Plan {
        examples,
        validation,
        window: Window::Tokens(args.batch_tokens),
        max_tokens_per_micro_batch: args.common.max_tokens_per_micro_batch,
        schedule: optimizer.schedule,
        epochs: budget.div_ceil(per_epoch).min(u64::from(u32::MAX)) as u32,
        budget: Budget::Tokens(budget),
        time_limit: args.time_limit_minutes.map(minutes).transpose()?,
        seed: args.common.seed,
        guard: args.common.guard.config()?,
        best: BestConfig::default(),
    };
    progress.emit(Event::Start {
        command: "pretrain".to_string(),
        out: args.out.clone(),
        num_parameters: state.engine.config().num_parameters() as u64,
        num_train_examples: examples.len() as u64,
        num_validation_examples: validation.len() as u64,
        num_skipped_too_long: 0,
        num_truncated: 0,
        num_epochs: plan.epochs,
        total_steps: None,
        first_epoch: 1,
    });
    let saving = Saving::Timed {
        every: minutes(args.save_every_minutes)?,
        last: Instant::now(),
        dtype: args.save_dtype,
    };
    let metrics = MetricsLog::open(&args.out, 0, &[])?.with_rates(Rates {
        flops: ModelFlops::of(&*state.engine),
        peak_tflops,
    });
    let mut outputs = Outputs::new(&args.out, saving, source, metrics, progress);
    train(state, &plan, &mut outputs, stop)
}

fn minutes(value: f64) -> Result<Duration> {
    require("minutes", value, "a number > 0", |x| x > 0.0)?;
    Duration::try_from_secs_f64(60.0 * value).map_err(|error| TrainError::BadSetting {
        flag: "minutes",
        found: value.to_string(),
        expected: error.to_string(),
    })
}

/// The folder whose tokenizer is used; trained into `out/tokenizer` where none is given.
fn tokenizer_folder(args: &PretrainArgs, documents: &[String]) -> Result<PathBuf> {
    if let Some(dir) = args.init_from.as_ref().or(args.tokenizer.as_ref()) {
        return Ok(dir.clone());
    }
    let vocab_size = args.vocab_size.ok_or_else(|| TrainError::BadSetting {
        flag: "--vocab-size",
        found: "nothing".to_string(),
        expected: "a size, or --tokenizer DIR, or --init-from DIR".to_string(),
    })?;
    let dir = args.out.join("tokenizer");
    std::fs::create_dir_all(&dir).map_err(TrainError::io(&dir))?;
    // Every k-th document, so that all files and all parts of them are seen.
    let stride = documents
        .len()
        .div_ceil(args.tokenizer_documents.max(1))
        .max(1);
    let sample: Vec<String> = documents.iter().step_by(stride).cloned().collect();
    let special = train_tokenizer(&sample, vocab_size, &dir)?.special;
    let path = dir.join("generation_config.json");
    let generation = json!({
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
        "do_sample": false,
    });
    std::fs::write(&path, format!("{generation:#}\n")).map_err(TrainError::io(&path))?;
    Ok(dir)
}

fn architecture(args: &PretrainArgs, tokenizer: &ModelTokenizer) -> Result<LlamaConfig> {
    let shape = &args.shape;
    require(
        "--num-heads",
        shape.num_heads,
        "a divisor of --hidden-size",
        |heads| heads > 0 && shape.hidden_size.is_multiple_of(heads),
    )?;
    let config = LlamaConfig {
        // Whole vectors of 16 lanes and cache lines; ids above the tokenizer's are never used.
        vocab_size: tokenizer.vocab_size().next_multiple_of(16),
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        num_hidden_layers: shape.num_layers,
        num_attention_heads: shape.num_heads,
        num_key_value_heads: shape.num_kv_heads,
        head_dim: shape.hidden_size / shape.num_heads,
        rms_norm_eps: 1e-5,
        rope_theta: shape.rope_theta,
        rope_scaling: None,
        tie_word_embeddings: shape.tie_embeddings,
        max_position_embeddings: shape.max_position_embeddings,
        dtype: model::dtype::StoredDtype::F32,
        bos_token_id: tokenizer.bos_id(),
        eos_token_ids: tokenizer.text_end_id().into_iter().collect(),
        pad_token_id: tokenizer.token_id(crate::tokenizer_training::PAD),
    };
    config.check(&args.out.join("model/config.json"))?;
    Ok(config)
}

/// Training and held-out documents as examples with a label on all but the first token. Documents
/// longer than the maximum, or than the model's `context`, are cut into pieces of that length.
fn tokenise(
    documents: &[String],
    tokenizer: &ModelTokenizer,
    (args, context): (&PretrainArgs, usize),
) -> Result<(Examples, Examples)> {
    // The last token of a piece is only a label.
    let max_length = (args.max_length as usize).min(context + 1);
    let wanted = (documents.len() as f64 * args.eval_fraction).ceil() as usize;
    // One document at least is trained on.
    let num_validation = wanted
        .min(MAX_VALIDATION_DOCUMENTS)
        .min(documents.len().saturating_sub(1));
    let mut is_validation = vec![false; documents.len()];
    let order = shuffled(documents.len(), args.common.seed, 0);
    order[..num_validation]
        .iter()
        .for_each(|&index| is_validation[index as usize] = true);
    let prefix = Prompt::TokenIds(tokenizer.bos_id().into_iter().collect());
    let encoded: Vec<Vec<u32>> = documents
        .par_iter()
        .map(|text| Ok(tokenizer.encode_training(&prefix, text)?.ids))
        .collect::<Result<_>>()?;
    let (mut examples, mut validation) = (Examples::default(), Examples::default());
    for (ids, is_validation) in encoded.iter().zip(is_validation) {
        let side = if is_validation {
            &mut validation
        } else {
            &mut examples
        };
        // The last token of a piece is the first of the next: every token is a label once.
        for start in (0..ids.len().saturating_sub(1)).step_by(max_length - 1) {
            side.push(&ids[start..ids.len().min(start + max_length)], 1);
        }
    }
    Ok((examples, validation))
}

#[cfg(test)]
mod tests;
