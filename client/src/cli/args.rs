//! The flags of `star`, each with its unit and meaning. No logic.

mod loss;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use self::loss::LossArgs;
use super::{bench::BenchArgs, commands::examples};

/// Evaluation, bootstrapping and the whole STaR loop over a live generation server.
#[derive(Debug, Parser)]
#[command(name = "star", version, after_help = examples::STAR)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// What the program's own log shows: error, warn, info, debug, or a filter per module
    #[arg(long, global = true, env = "STAR_LOG", default_value = "warn")]
    pub log: String,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the whole loop on the demo data with the demo model; needs nothing but this program
    #[cfg(feature = "embedded")]
    #[command(after_help = examples::DEMO)]
    Demo(Box<DemoArgs>),
    /// Runs the whole experiment: zero-shot, bootstrap, both fine-tunings, final tests, report
    #[cfg(feature = "embedded")]
    #[command(after_help = examples::RUN)]
    Run(Box<RunArgs>),
    /// Puts a question set to the served model and judges the answers
    #[command(after_help = examples::EVAL)]
    Eval(Box<EvalArgs>),
    /// Makes training rationales: forward prompt, then the hint prompt, verified and filtered
    #[command(after_help = examples::BOOTSTRAP)]
    Bootstrap(Box<BootstrapArgs>),
    /// Compares two evaluations over the same questions: paired, exact McNemar
    #[command(after_help = examples::COMPARE)]
    Compare(CompareArgs),
    /// Judges texts that are on disk, under every rule
    #[command(after_help = examples::SCORE)]
    Score(ScoreArgs),
    /// Measures the loss of a test set under the served weights, as training does
    #[command(after_help = examples::LOSS)]
    Loss(LossArgs),
    /// Answers one prompt, streamed to stdout
    #[command(after_help = examples::GENERATE)]
    Generate(GenerateArgs),
    /// Says what the server runs and how busy it is
    #[command(after_help = examples::STATUS)]
    Status(ServerArgs),
    /// Swaps a checkpoint into the server
    #[command(after_help = examples::RELOAD)]
    Reload(ReloadArgs),
    /// Puts load on a server and measures it: throughput, time to first token, latencies
    #[command(after_help = examples::BENCH)]
    Bench(Box<BenchArgs>),
    /// Renders report.html and the plots of a run again
    #[command(after_help = examples::REPORT)]
    Report(ReportArgs),
    /// Writes a model folder with random weights, for trying things without a download
    #[cfg(feature = "embedded")]
    #[command(after_help = examples::RANDOM_MODEL)]
    RandomModel(RandomModelArgs),
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// http://HOST:PORT, HOST:PORT, or the endpoint file that the server wrote
    #[arg(
        long,
        value_name = "URL|FILE",
        env = "STAR_SERVER",
        default_value = "http://127.0.0.1:50051"
    )]
    pub server: String,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// How to talk to it.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// File with the token that the server was started with
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How long to wait for a server that is not up yet
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
    /// Prompts at the server at a time [default: four times what it computes in one step]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: Option<u32>,
}

/// Which settings stand behind the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 1024 tokens, the exact numeric rule, verified rationales
    Sound,
    /// What the reference report did: 256 tokens, its rule, hint rationales unchecked
    Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Chat where the checkpoint has a chat template, else plain
    Auto,
    Plain,
    Chat,
}

/// What is asked and how it is judged.
#[derive(Debug, Clone, Args)]
pub struct MethodArgs {
    /// Settings behind the defaults
    #[arg(long, value_enum, default_value = "sound")]
    pub preset: Preset,
    /// basic, basic-forward, marked, sft, or a template file with {question}
    #[arg(long, value_name = "NAME|FILE")]
    pub prompt: Option<String>,
    #[arg(long, value_enum, default_value = "auto")]
    pub prompt_format: FormatArg,
    /// Most tokens of an answer [default: 1024; preset report: 256]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// numeric, openai, lm-strict, lm-flexible or report: which rule decides
    #[arg(long)]
    pub rule: Option<String>,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// 0 is all tokens
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    /// Generation ends before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Only the first N questions
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions: JSONL with `question` and `answer` (ending in `#### n`)
    #[arg(long, value_name = "FILE")]
    pub dataset: PathBuf,
    /// Folder for manifest.json, attempts.jsonl and summary.json; a run found there goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub method: MethodArgs,
    /// Print summary.json instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions: JSONL with `question` and `answer` (ending in `#### n`)
    #[arg(long, value_name = "FILE")]
    pub dataset: PathBuf,
    /// Folder for manifest.json, attempts.jsonl, accepted.jsonl and summary.json; a run found there
    /// goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub samples: SampleArgs,
    /// Turn of the STaR loop, for the records
    #[arg(long, default_value_t = 0)]
    pub iteration: u32,
    /// Print summary.json instead of text
    #[arg(long)]
    pub json: bool,
}

/// How often a question is tried.
#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    /// hint, or a template file with {question} and {gold}
    #[arg(long, value_name = "NAME|FILE", default_value = "hint")]
    pub hint_prompt: String,
    /// Forward samples of a question until one will do
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub forward_attempts: u32,
    /// Hint attempts of a question until one will do; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub hint_attempts: u32,
    /// Temperature of every sample but a prompt's first
    #[arg(long, default_value_t = 0.7)]
    pub resample_temperature: f32,
    /// top_p of every sample but a prompt's first
    #[arg(long, default_value_t = 0.95)]
    pub resample_top_p: f32,
    /// Largest share of hint rationales in the accepted set
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub max_hint_share: f64,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folder of the first evaluation
    pub first: PathBuf,
    /// Folder of the second
    pub second: PathBuf,
    /// Compare also where prompt, rule, limit or template differ
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// JSONL: attempts of `star`, or objects with the two keys below
    pub file: PathBuf,
    /// Key of the text to judge
    #[arg(long, default_value = "text")]
    pub text_key: String,
    /// Key of the gold answer: a number, or a text that ends in `#### n`
    #[arg(long, default_value = "gold")]
    pub gold_key: String,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The text to continue
    pub prompt: String,
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, value_enum, default_value = "auto")]
    pub prompt_format: FormatArg,
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub max_tokens: u32,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// 0 is all tokens
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Generation ends before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Name below the server's checkpoint root, such as star/epoch_2
    pub checkpoint: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder of a run, with results.json
    pub folder: PathBuf,
}

#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub struct RandomModelArgs {
    /// tiny, small, 1b, 3b or llama3-vocab-tiny
    #[arg(long, default_value = "llama3-vocab-tiny")]
    pub preset: String,
    /// Folder with a tokenizer.json to copy [default: one token per byte]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Where an experiment's server is and how it reaches the checkpoints.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct ExperimentServerArgs {
    /// A running server [default: one in this process]
    #[arg(long, value_name = "URL|FILE", requires = "server_checkpoint_root")]
    pub server: Option<String>,
    /// The server's --checkpoint-root, as a folder of this machine
    #[arg(long, value_name = "DIR", requires = "server")]
    pub server_checkpoint_root: Option<PathBuf>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Threads of the server and of the trainer [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Settings of an experiment; each overrides the preset's.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct TuningArgs {
    /// Use the first N training questions
    #[arg(long, value_name = "N")]
    pub num_train: Option<usize>,
    /// Use the first N test questions
    #[arg(long, value_name = "N")]
    pub num_test: Option<usize>,
    /// Prompt of evaluation, bootstrapping and training: a name or a template file
    #[arg(long, value_name = "NAME|FILE")]
    pub prompt: Option<String>,
    #[arg(long, value_enum)]
    pub prompt_format: Option<FormatArg>,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Forward samples of a question until one will do
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub forward_attempts: Option<u32>,
    /// Hint attempts of a question until one will do
    #[arg(long, value_name = "N")]
    pub hint_attempts: Option<u32>,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Peak learning rate
    #[arg(long)]
    pub lr: Option<f64>,
    /// Examples per optimizer step
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: Option<u32>,
    #[arg(long)]
    pub seed: Option<u64>,
}

#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Base model: a folder in Hugging Face layout
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Training questions: JSONL with `question` and `answer`
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Test questions; used once per model, at the end
    #[arg(long, value_name = "FILE")]
    pub test: PathBuf,
    /// Folder for everything; a run found there goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Settings behind the defaults
    #[arg(long, value_enum, default_value = "sound")]
    pub preset: Preset,
    #[command(flatten)]
    pub tuning: TuningArgs,
    #[command(flatten)]
    pub server: ExperimentServerArgs,
}

#[cfg(feature = "embedded")]
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder with train.jsonl, test.jsonl and model/ [default: data/demo of this repository]
    #[arg(long, value_name = "DIR")]
    pub demo_dir: Option<PathBuf>,
    /// Folder for everything; a run found there goes on [default: runs/demo-<UTC time>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// Threads of the server and of the trainer [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}
