//! `star bench`: load on a running server and what it makes of it. A workload (prompts, lengths,
//! arrivals) is put to the server as users would, over one stream per prompt or over one batch stream;
//! every answer's times are kept and summed up per repetition.
//!
//! Reading order: `prompts` and `arrivals` (what is asked, and when), `lanes` (the two ways to the
//! server), `drive` (one repetition), `statistics`, `report`. Nothing here knows protobuf.

mod arrivals;
mod drive;
mod lanes;
mod prompts;
mod report;
mod statistics;

use std::time::SystemTime;

pub use arrivals::Arrivals;
pub use drive::{Record, Timeline};
pub use lanes::Failure;
pub use lanes::Via;
pub use prompts::{PromptSource, read_prompts};
pub use report::Report;
pub use statistics::{Quantiles, Summary};

use crate::{
    clock,
    connection::{FixedLengthItem, Server},
    error::ClientError,
    interrupt::Interrupt,
    session::nonce,
};

/// Tokens of an answer in the warm-up: enough to touch prefill and decode.
const WARMUP_TOKENS: u32 = 8;
/// Prompts of the warm-up are drawn apart from those of every repetition.
const WARMUP_STREAM: u64 = u64::MAX;

/// What is put to the server.
#[derive(Debug, Clone)]
pub struct Workload {
    pub prompts: PromptSource,
    pub num_prompts: usize,
    /// Of every answer, exactly.
    pub num_tokens: u32,
    pub arrivals: Arrivals,
    pub via: Via,
    /// Prompts before the first repetition that are not measured.
    pub num_warmup: usize,
    pub num_repetitions: u32,
    /// Of random prompts and of arrival times.
    pub seed: u64,
}

/// Runs the workload.
///
/// # Errors
/// Where the server cannot be asked at all. Requests that fail are part of the report.
pub async fn run(
    server: &Server,
    workload: &Workload,
    interrupt: &Interrupt,
) -> Result<Report, ClientError> {
    let (info, model) = (server.info().await?, server.model().await?);
    let vocab_size = model.vocab_size;
    if let PromptSource::Random { .. } = workload.prompts
        && vocab_size == 0
    {
        let problem = "GetModelInfo without vocab_size; give --prompts FILE".to_owned();
        return Err(ClientError::BadReply(problem));
    }
    warm_up(server, workload, vocab_size, interrupt).await?;
    let load_before = server.load().await?;
    let started = clock::unix_seconds(SystemTime::now());
    let mut repetitions = Vec::new();
    for repetition in 0..workload.num_repetitions {
        let stream = u64::from(repetition);
        let prompts =
            workload
                .prompts
                .take(workload.num_prompts, workload.seed, stream, vocab_size);
        let items = items(prompts, workload.num_tokens);
        let offsets = workload
            .arrivals
            .offsets(items.len(), workload.seed ^ stream);
        let lane = workload.via.open(server, items.len()).await?;
        let run = drive::Run {
            items,
            offsets,
            arrivals: workload.arrivals,
        };
        repetitions.push(run.drive(lane, interrupt).await?);
    }
    Ok(Report::new(
        report::Facts {
            started,
            url: server.url().to_owned(),
            info,
            model,
            load_before,
            load_after: server.load().await?,
        },
        workload,
        repetitions,
    ))
}

/// Short answers to prompts of their own, so that no repetition finds them in a prefix cache.
async fn warm_up(
    server: &Server,
    workload: &Workload,
    vocab_size: u32,
    interrupt: &Interrupt,
) -> Result<(), ClientError> {
    if workload.num_warmup == 0 || vocab_size == 0 {
        return Ok(());
    }
    let source = PromptSource::Random {
        num_tokens: workload.prompts.typical_num_tokens(),
        num_shared: 0,
    };
    let prompts = source.take(
        workload.num_warmup,
        workload.seed,
        WARMUP_STREAM,
        vocab_size,
    );
    let run = drive::Run {
        offsets: vec![std::time::Duration::ZERO; prompts.len()],
        arrivals: Arrivals::Closed {
            concurrency: prompts.len(),
        },
        items: items(prompts, workload.num_tokens.min(WARMUP_TOKENS)),
    };
    let lane = Via::Streams.open(server, run.items.len()).await?;
    run.drive(lane, interrupt).await.map(|_| ())
}

fn items(prompts: Vec<crate::connection::LoadPrompt>, num_tokens: u32) -> Vec<FixedLengthItem> {
    let nonce = nonce();
    let numbered = prompts.into_iter().enumerate();
    numbered
        .map(|(index, prompt)| FixedLengthItem {
            request_id: format!("bench-{nonce}-{index}"),
            prompt,
            num_tokens,
        })
        .collect()
}

#[cfg(test)]
mod tests;
