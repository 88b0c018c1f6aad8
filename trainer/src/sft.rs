//! `trainer sft`: from arguments to a plan for the loop. Question files become examples whose prompt
//! has the very token ids that evaluation will put to the server.

mod examples;

use std::path::Path;

use data::prompt::PromptTemplate;
use model::dtype::StoredDtype;
use model::folder::ModelFolder;
use model::manifest::file_sha256;
use model::tokenizer::{ModelTokenizer, TokenizerOptions};
use model::weights::Weights;

use self::examples::{ExampleSet, build_examples, write_dropped};
use crate::cli::args::{SFT_DEFAULTS, SftArgs};
use crate::config::{
    DataFormat, PromptFormat, RuntimeConfig, SaveDtype, TemplateConfig, TrainingConfig, Window,
    require,
};
use crate::dataset::read_lines;
use crate::error::{Result, TrainError};
use crate::forward::Network;
use crate::metrics::MetricsLog;
use crate::optimizer::Optimizer;
use crate::outputs::{Outputs, Saving};
use crate::pack::windows;
use crate::progress::{Event, Progress};
use crate::resume::{OutFolder, load_state, newest_complete_epoch, read_state};
use crate::stop::StopFlag;
use crate::train::{Budget, Outcome, Plan, TrainState, train};

/// The report's limit; GSM8K's longest example has 494 tokens of Llama 3.
const DEFAULT_MAX_LENGTH: usize = 1024;

/// Fine-tunes as `args` say; resumes where `args.out` has a complete epoch.
pub fn run(args: &SftArgs, stop: &StopFlag, progress: &mut Progress) -> Result<Outcome> {
    let folder = ModelFolder::open(&args.model)?;
    let tokenizer = load_tokenizer(args)?;
    let (format, lines) = read_lines(&args.train, args.format.format())?;
    let template = prompt_template(&args.prompt)?;
    let weights = Weights::load(&args.model, &folder.config, candle_core::DType::F32)?;
    let config = training_config(args, &folder, (&tokenizer, &template, format), &weights)?;
    let runtime = RuntimeConfig {
        out: args.out.clone(),
        notify: args.notify.config()?,
    };
    let _claim = OutFolder::claim(&runtime.out)?;
    let set = build_examples(&lines, &tokenizer, &template, &config)?;
    write_dropped(&runtime.out, &set.dropped)?;
    if set.train.is_empty() {
        return Err(TrainError::NoExamples {
            what: args.train.display().to_string(),
            details: format!(
                "{} lines, {} too long, {} held out",
                lines.len(),
                set.dropped.len(),
                set.validation.len()
            ),
        });
    }
    let network = Network::new(folder.config, weights, config.checkpointing)?;
    let optimizer = Optimizer::new(config.optimizer.clone(), &network.config);
    let mut state = TrainState::new(network, optimizer);
    if let Some(found) = newest_complete_epoch(&runtime.out, progress)? {
        let saved = read_state(&found, &config)?;
        load_state(&found, saved, &mut state)?;
        let (epoch, step) = (found.epoch, state.counters.steps);
        progress.emit(Event::Resumed {
            epoch,
            step,
            path: found.path,
        });
    }
    run_loop(
        &mut state,
        &set,
        (config, runtime, &args.model),
        (stop, progress),
    )
}

fn run_loop(
    state: &mut TrainState,
    set: &ExampleSet,
    (config, runtime, model): (TrainingConfig, RuntimeConfig, &Path),
    (stop, progress): (&StopFlag, &mut Progress),
) -> Result<Outcome> {
    let order: Vec<u32> = (0..set.train.len() as u32).collect();
    let steps_per_epoch = windows(&order, &set.train, config.window).len() as u64;
    let plan = Plan {
        examples: &set.train,
        validation: &set.validation,
        window: config.window,
        max_tokens_per_micro_batch: config.max_tokens_per_micro_batch,
        schedule: config.optimizer.schedule.clone(),
        epochs: config.epochs,
        budget: Budget::Steps(steps_per_epoch * u64::from(config.epochs)),
        time_limit: None,
        seed: config.seed,
    };
    let count = |truncated: bool| {
        set.dropped
            .iter()
            .filter(|dropped| dropped.truncated == truncated)
            .count() as u64
    };
    progress.emit(Event::Start {
        command: "sft".to_string(),
        out: runtime.out.clone(),
        num_parameters: state.network.config.num_parameters() as u64,
        num_train_examples: set.train.len() as u64,
        num_validation_examples: set.validation.len() as u64,
        num_skipped_too_long: count(false),
        num_truncated: count(true),
        num_epochs: config.epochs,
        total_steps: Some(steps_per_epoch * u64::from(config.epochs)),
        first_epoch: state.counters.epochs_done + 1,
    });
    if set.num_split_at_border > 0 {
        let count = set.num_split_at_border;
        progress.emit(Event::Warning {
            message: format!(
                "in {count} examples prompt and answer meet inside a token; they were encoded apart"
            ),
        });
    }
    let metrics = MetricsLog::open(&runtime.out, state.counters.steps, &state.history)?;
    let saving = Saving::EachEpoch {
        config: Box::new(config),
        notify: runtime.notify,
    };
    let mut outputs = Outputs::new(&runtime.out, saving, model, metrics, progress);
    let done = state.counters.epochs_done;
    if done > 0 {
        outputs.after_resume(done)?;
    }
    train(state, &plan, &mut outputs, stop)
}

fn load_tokenizer(args: &SftArgs) -> Result<ModelTokenizer> {
    let mut options = TokenizerOptions::default();
    let Ok(template) = args.chat_template.parse();
    options.template = template;
    if let Some(date) = &args.template_date {
        options.template_date.clone_from(date);
    }
    Ok(ModelTokenizer::load_with(&args.model, &options)?)
}

/// The chat template as a resumed run must have it again.
fn template_config(tokenizer: &ModelTokenizer, format: PromptFormat) -> Option<TemplateConfig> {
    let template = tokenizer.template_digest().zip(tokenizer.template_date());
    template
        .filter(|_| format == PromptFormat::Chat)
        .map(|(digest, date)| TemplateConfig {
            digest: digest.to_string(),
            date: date.to_string(),
        })
}

/// A built-in prompt's name, or a file.
fn prompt_template(name_or_path: &str) -> Result<PromptTemplate> {
    let path = Path::new(name_or_path);
    if path.is_file() {
        Ok(PromptTemplate::from_file(path)?)
    } else {
        Ok(PromptTemplate::by_name(name_or_path)?)
    }
}

fn training_config(
    args: &SftArgs,
    folder: &ModelFolder,
    (tokenizer, template, format): (&ModelTokenizer, &PromptTemplate, DataFormat),
    weights: &Weights,
) -> Result<TrainingConfig> {
    let context = folder.config.max_position_embeddings;
    let max_length = args
        .max_length
        .map_or(DEFAULT_MAX_LENGTH.min(context), |n| n as usize);
    require(
        "--max-length",
        max_length,
        &format!("at most the model's context, {context}"),
        |n| n <= context,
    )?;
    let told = if tokenizer.has_chat_template() {
        PromptFormat::Chat
    } else {
        PromptFormat::Plain
    };
    let prompt_format = args.prompt_format.format().unwrap_or(told);
    Ok(TrainingConfig {
        model_digest: weights.digest()?,
        train_sha256: file_sha256(&args.train)?,
        format,
        prompt: template.name().to_string(),
        prompt_digest: template.digest().to_string(),
        prompt_format,
        template: template_config(tokenizer, prompt_format),
        tokenizer_digest: tokenizer.digest().to_string(),
        too_long: args.too_long,
        max_length,
        validation_fraction: args.validation_fraction,
        epochs: args.epochs,
        window: Window::Examples(args.batch_size as usize),
        max_tokens_per_micro_batch: args.common.max_tokens_per_micro_batch,
        optimizer: args.optimizer.config(SFT_DEFAULTS)?,
        checkpointing: args.common.checkpointing,
        save_dtype: args.save_dtype.unwrap_or(match folder.config.dtype {
            StoredDtype::F32 => SaveDtype::F32,
            StoredDtype::Bf16 => SaveDtype::Bf16,
            StoredDtype::F16 => SaveDtype::F16,
        }),
        seed: args.common.seed,
    })
}

#[cfg(test)]
mod tests;
