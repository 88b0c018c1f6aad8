//! `star bench`: its flags and how they become a workload.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    args::ServerArgs,
    commands::{print, print_json},
    resolve,
};
use crate::{
    bench::{self, Arrivals, PromptSource, Via, Workload, read_prompts},
    error::ClientError,
    files::write_atomic,
    interrupt::Interrupt,
};

/// More would be a run of days, and the times of every token are kept.
const MAX_NUM_PROMPTS: usize = 1_000_000;
/// How many prompts are made up where no file says.
const DEFAULT_NUM_PROMPTS: usize = 64;
/// About a word problem in the forward prompt.
const DEFAULT_PROMPT_TOKENS: usize = 100;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Prompts: JSONL with `text` or `token_ids` [default: random token ids]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt_tokens", "shared_prefix_tokens"])]
    pub prompts: Option<PathBuf>,
    /// How many prompts [default: all of the file, or 64]
    #[arg(long, value_name = "N")]
    pub num_prompts: Option<usize>,
    /// Length of a random prompt [default: 100]
    #[arg(long, value_name = "TOKENS")]
    pub prompt_tokens: Option<usize>,
    /// Tokens at the head of a random prompt that all of a run share
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub shared_prefix_tokens: usize,
    /// Length of every answer
    #[arg(long, value_name = "TOKENS", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Closed loop: requests at the server at a time [default: all at once]
    #[arg(long, value_name = "N", conflicts_with = "rate",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// Open loop: requests a second on average, at random times (Poisson)
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// How prompts reach the server
    #[arg(long, value_enum, default_value = "streams")]
    pub via: ViaArg,
    /// Prompts before the first run that are not measured (others than the measured ones)
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub warmup: usize,
    /// Runs of the workload. Those of a file ask the same prompts, which a prefix cache will know
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: u32,
    /// Of random prompts and arrival times
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write the first run's answers as token ids here: JSONL, in the order of the prompts
    #[arg(long, value_name = "FILE")]
    pub save_tokens: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ViaArg {
    /// A stream for each prompt: tokens as users see them come
    Streams,
    /// One batch stream for all: whole answers
    Batch,
}

pub(super) async fn bench(args: BenchArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let workload = workload(&args)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let report = bench::run(&server, &workload, &interrupt).await?;
    if let Some(path) = &args.save_tokens {
        let lines = report.first_answers.iter().enumerate().map(|(index, ids)| {
            let line = serde_json::json!({"index": index, "token_ids": ids});
            format!("{line}\n")
        });
        write_atomic(path, lines.collect::<String>().as_bytes())?;
    }
    if args.json {
        print_json(&report)?;
    } else {
        print(&report.text())?;
    }
    match &report.first_failure {
        None => Ok(()),
        Some(failure) => Err(ClientError::BenchFailed {
            count: report.num_failed(),
            total: report.repetitions.iter().map(|run| run.num_requests).sum(),
            code: failure.code.clone(),
            message: failure.message.clone(),
        }),
    }
}

/// Flags become a workload; what cannot be is refused with the flag's name.
fn workload(args: &BenchArgs) -> Result<Workload, ClientError> {
    let usage = |message: String| Err(ClientError::Usage(message));
    if args.server.connection.max_in_flight.is_some() {
        return usage("--max-in-flight: a benchmark's limit is --concurrency".to_owned());
    }
    let (prompts, most) = match &args.prompts {
        Some(path) => {
            let source = read_prompts(path)?;
            let PromptSource::List { prompts, .. } = &source else {
                unreachable!("a file gives a list")
            };
            let count = prompts.len();
            (source, count)
        }
        None => (random(args)?, MAX_NUM_PROMPTS),
    };
    let num_prompts = args.num_prompts.unwrap_or(match args.prompts {
        Some(_) => most,
        None => DEFAULT_NUM_PROMPTS,
    });
    if num_prompts == 0 || num_prompts > most.min(MAX_NUM_PROMPTS) {
        let most = most.min(MAX_NUM_PROMPTS);
        return usage(format!(
            "--num-prompts: expected 1 to {most}, found {num_prompts}"
        ));
    }
    let arrivals = match args.rate {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            return usage(format!("--rate: expected more than 0, found {rate}"));
        }
        Some(requests_per_s) => Arrivals::Open { requests_per_s },
        None => Arrivals::Closed {
            concurrency: args.concurrency.map_or(num_prompts, |count| count as usize),
        },
    };
    Ok(Workload {
        prompts,
        num_prompts,
        num_tokens: args.max_tokens,
        arrivals,
        via: match args.via {
            ViaArg::Streams => Via::Streams,
            ViaArg::Batch => Via::Batch,
        },
        num_warmup: args.warmup,
        num_repetitions: args.repetitions,
        seed: args.seed,
    })
}

fn random(args: &BenchArgs) -> Result<PromptSource, ClientError> {
    let num_tokens = args.prompt_tokens.unwrap_or(DEFAULT_PROMPT_TOKENS);
    let num_shared = args.shared_prefix_tokens;
    if num_tokens == 0 || num_shared > num_tokens {
        return Err(ClientError::Usage(format!(
            "--prompt-tokens: expected at least 1 and --shared-prefix-tokens ({num_shared}), \
             found {num_tokens}"
        )));
    }
    Ok(PromptSource::Random {
        num_tokens,
        num_shared,
    })
}
