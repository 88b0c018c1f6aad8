//! The flags of `star`, each with its unit and meaning. No logic.

mod bootstrap;
mod dataset;
mod eval;
#[cfg(feature = "embedded")]
mod experiment;
mod loss;
mod method;
mod policy;
mod preflight;
mod select;
#[cfg(feature = "embedded")]
mod settings;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use self::{
    bootstrap::{BootstrapArgs, SampleArgs},
    dataset::DatasetArgs,
    eval::{CompareArgs, EvalArgs, QuestionKeyArgs, ScoreArgs},
    loss::{AnnotationsArg, LossArgs},
    method::{MethodArgs, PreflightArgs, Preset},
    policy::{DuplicatesArg, GateArg, PolicyArgs},
    preflight::PreflightCommandArgs,
    select::SelectArgs,
};
#[cfg(feature = "embedded")]
pub(super) use self::{
    experiment::{DemoArgs, HardwareArgs, RandomModelArgs, RunArgs},
    settings::SettingsArgs,
};
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
    /// Puts 64 questions and says whether a long run would measure the model or the prompt
    #[command(after_help = examples::PREFLIGHT)]
    Preflight(Box<PreflightCommandArgs>),
    /// Makes training rationales: forward prompt, then the hint prompt, verified and filtered
    #[command(after_help = examples::BOOTSTRAP)]
    Bootstrap(Box<BootstrapArgs>),
    /// Makes the accepted set again from attempts, under any policy; also DPO pairs and majority labels
    #[command(after_help = examples::SELECT)]
    Select(Box<SelectArgs>),
    /// Compares two evaluations over the same questions: paired, exact McNemar
    #[command(after_help = examples::COMPARE)]
    Compare(CompareArgs),
    /// Judges texts that are on disk, under every rule
    #[command(after_help = examples::SCORE)]
    Score(Box<ScoreArgs>),
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
    /// Renders report.html and the plots of a run again, or of a few evaluations
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Chat where the checkpoint has a chat template, else plain
    Auto,
    Plain,
    Chat,
}

/// A prompt format where no server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PromptFormatArg {
    Plain,
    Chat,
}

/// Which policy stands behind the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyPreset {
    /// Verified rationales only
    Sound,
    /// What the reference report did: hint rationales unchecked
    Report,
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
    /// Folder of a run, with results.json; with --from, the folder for the page and the plots
    pub folder: PathBuf,
    /// Folders of `star eval` to show side by side instead; the first is what others are compared to
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub from: Vec<PathBuf>,
}
