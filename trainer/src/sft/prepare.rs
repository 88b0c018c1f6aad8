//! From arguments to checked settings and tokenised examples; no weight is read and nothing written.

use std::path::Path;

use data::example::{ExampleFile, LineFormat, read_examples};
use data::prompt::{PromptFormat, PromptTemplate};
use model::dtype::StoredDtype;
use model::folder::ModelFolder;
use model::manifest::sha256_hex;
use model::tokenizer::{ModelTokenizer, TokenizerOptions};

use super::examples::{ExampleSet, build_examples};
use crate::accuracy::AccuracyCheck;
use crate::cli::args::SftArgs;
use crate::cli::loop_args::BestArgs;
use crate::cli::optimizer_args::SFT_DEFAULTS;
use crate::config::{SaveDtype, TemplateConfig, TrainingConfig, require};
use crate::error::{Result, TrainError};

/// The report's limit; GSM8K's longest example has 494 tokens of Llama 3.
const DEFAULT_MAX_LENGTH: usize = 1024;

/// What is known of a run before its weights are read. Nothing was written yet.
pub(super) struct Prepared {
    pub(super) folder: ModelFolder,
    /// Without the digest of the weights.
    pub(super) config: TrainingConfig,
    pub(super) set: ExampleSet,
    pub(super) accuracy: Option<AccuracyCheck>,
}

pub(super) fn prepare(args: &SftArgs) -> Result<Prepared> {
    let folder = ModelFolder::open(&args.model)?;
    let tokenizer = load_tokenizer(args)?;
    let file = read_examples(&args.train, args.format.format())?;
    let template = prompt_template(&args.prompt)?;
    let config = training_config(args, &folder, (&tokenizer, &template, &file))?;
    let accuracy = accuracy_check(args, (&template, config.prompt_format, &tokenizer))?;
    let set = build_examples(&file.lines, &tokenizer, &template, &config)?;
    if set.train.is_empty() {
        return Err(TrainError::NoExamples {
            what: args.train.display().to_string(),
            details: format!(
                "{} lines, {} too long, {} held out",
                file.lines.len(),
                set.dropped.len(),
                set.validation.len()
            ),
        });
    }
    Ok(Prepared {
        folder,
        config,
        set,
        accuracy,
    })
}

fn accuracy_check(
    args: &SftArgs,
    prompt: (&PromptTemplate, PromptFormat, &ModelTokenizer),
) -> Result<Option<AccuracyCheck>> {
    let BestArgs {
        accuracy_questions,
        accuracy_max_new_tokens: max_new_tokens,
        ..
    } = &args.best;
    let read = |path| AccuracyCheck::read(path, prompt, *max_new_tokens, args.best.time_limit());
    accuracy_questions.as_deref().map(read).transpose()
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

/// As asked for, else as the checkpoint has it. A conversation cannot do without a chat template.
pub(super) fn prompt_format(
    args: &SftArgs,
    tokenizer: &ModelTokenizer,
    lines: LineFormat,
) -> Result<PromptFormat> {
    let told = if tokenizer.has_chat_template() {
        PromptFormat::Chat
    } else {
        PromptFormat::Plain
    };
    let format = args.prompt_format.format().unwrap_or(told);
    if lines == LineFormat::Messages && told == PromptFormat::Plain {
        return Err(TrainError::BadSetting {
            flag: "--chat-template",
            found: args.chat_template.clone(),
            expected: format!(
                "hf-llama3.2, meta-llama3 or a file: the lines are messages, and {} has no chat \
                 template of its own",
                args.model.display()
            ),
        });
    }
    require(
        "--prompt-format",
        format.as_str(),
        "chat, since the lines are messages",
        |_| lines != LineFormat::Messages || format == PromptFormat::Chat,
    )?;
    Ok(format)
}

pub(super) fn training_config(
    args: &SftArgs,
    folder: &ModelFolder,
    (tokenizer, template, file): (&ModelTokenizer, &PromptTemplate, &ExampleFile),
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
    let prompt_format = prompt_format(args, tokenizer, file.format)?;
    Ok(TrainingConfig {
        // Known when the weights have been read.
        model_digest: String::new(),
        train_sha256: file.sha256.clone(),
        format: file.format,
        train_on: args.data.train_on,
        prompt: template.name().to_string(),
        prompt_digest: template.digest().to_string(),
        prompt_format,
        template: template_config(tokenizer, prompt_format),
        tokenizer_digest: tokenizer.digest().to_string(),
        architecture_digest: architecture_digest(folder, tokenizer),
        too_long: args.too_long,
        max_length,
        validation_fraction: args.validation_fraction,
        epochs: args.epochs,
        window: args.data.window(args.batch_size),
        max_tokens_per_micro_batch: args.common.max_tokens_per_micro_batch,
        // Known when the other processes have been met.
        num_lanes: 0,
        device: args.common.device.device,
        method: args.method.method(args.common.device.device)?,
        precision: args.method.precision(args.common.device.device)?,
        label_smoothing: args.method.label_smoothing,
        optimizer: args.optimizer.config(SFT_DEFAULTS, args.method.moments)?,
        checkpointing: args.common.checkpointing,
        save_dtype: args.save_dtype.unwrap_or(match folder.config.dtype {
            StoredDtype::F32 => SaveDtype::F32,
            StoredDtype::Bf16 => SaveDtype::Bf16,
            StoredDtype::F16 => SaveDtype::F16,
        }),
        seed: args.common.seed,
        spike_guard: args.common.guard.config()?.spike,
    })
}

fn architecture_digest(folder: &ModelFolder, tokenizer: &ModelTokenizer) -> String {
    let ends = [
        tokenizer.bos_id(),
        tokenizer.text_end_id(),
        tokenizer.chat_end_id(),
    ];
    let text = format!("{} {ends:?}", folder.config.to_json());
    sha256_hex(text.as_bytes())
}
