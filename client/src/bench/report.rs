//! What a benchmark says: one object for machines, one table for people, the same numbers in both.

use serde::Serialize;

use super::{
    Arrivals, PromptSource, Quantiles, Summary, Via, Workload, drive::Repetition, lanes::Failure,
};
use crate::{
    clock,
    connection::{Load, ModelInfo, ServerInfo},
    eval::short,
    manifest::SOFTWARE,
};

/// What was asked of the server around the measurement.
pub(super) struct Facts {
    pub(super) started: u64,
    pub(super) url: String,
    pub(super) info: ServerInfo,
    pub(super) model: ModelInfo,
    pub(super) load_before: Load,
    pub(super) load_after: Load,
}

/// A finished benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    software: String,
    started: String,
    server: ServerFacts,
    workload: WorkloadFacts,
    load_before: Load,
    load_after: Load,
    pub repetitions: Vec<Summary>,
    /// Of the repetitions' generated tokens per second.
    generated_tokens_per_s: Spread,
    /// The answers of the first repetition, in the order of the prompts; `None` where one failed.
    #[serde(skip)]
    pub first_answers: Vec<Option<Vec<u32>>>,
    #[serde(skip)]
    pub first_failure: Option<Failure>,
}

#[derive(Debug, Serialize)]
struct ServerFacts {
    url: String,
    version: String,
    instance_id: String,
    max_context_tokens: u32,
    max_queued_requests: u32,
    max_num_seqs: u32,
    max_num_batched_tokens: u32,
    checkpoint: String,
    weights_digest: String,
    weights_version: u64,
    architecture: String,
    num_parameters: u64,
    dtype: String,
    vocab_size: u32,
}

#[derive(Debug, Serialize)]
struct WorkloadFacts {
    /// A file, or `random`.
    prompts: String,
    num_prompts: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_shared_prefix_tokens: Option<usize>,
    num_tokens: u32,
    via: Via,
    /// For a closed loop.
    concurrency: Option<usize>,
    /// For an open loop.
    requests_per_s: Option<f64>,
    num_warmup: usize,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(facts: Facts, workload: &Workload, repetitions: Vec<Repetition>) -> Self {
        let via = workload.via;
        let summaries: Vec<Summary> = repetitions
            .iter()
            .map(|repetition| Summary::of(repetition, via))
            .collect();
        let rates = summaries
            .iter()
            .map(|summary| summary.generated_tokens_per_s);
        let mut records = repetitions
            .iter()
            .flat_map(|repetition| &repetition.records);
        let first_failure = records.find_map(|record| record.as_ref().err());
        Self {
            software: SOFTWARE.to_owned(),
            started: clock::rfc3339(facts.started),
            workload: WorkloadFacts::of(workload),
            load_before: facts.load_before,
            load_after: facts.load_after,
            server: ServerFacts::of(facts),
            generated_tokens_per_s: Spread::of(rates.collect()),
            first_failure: first_failure.cloned(),
            first_answers: repetitions
                .into_iter()
                .next()
                .map(|first| {
                    let answers = first.records.into_iter();
                    answers
                        .map(|record| record.ok().map(|answer| answer.token_ids))
                        .collect()
                })
                .unwrap_or_default(),
            repetitions: summaries,
        }
    }

    /// Of all repetitions.
    pub fn num_failed(&self) -> usize {
        self.repetitions
            .iter()
            .map(|summary| summary.num_failed)
            .sum()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut lines = self.head();
        lines.push(String::new());
        lines.push(format!(
            "{:<4} {:>8} {:>6} {:>8} {:>9} {:>9} {:>8}  {:>15} {:>15} {:>15}",
            "run",
            "requests",
            "failed",
            "wall s",
            "gen tok/s",
            "prompt/s",
            "req/s",
            "TTFT p50/p99",
            "ITL p50/p99",
            "e2e p50/p99"
        ));
        for (index, summary) in self.repetitions.iter().enumerate() {
            lines.push(format!(
                "{:<4} {:>8} {:>6} {:>8.3} {:>9.1} {:>9.1} {:>8.2}  {:>15} {:>15} {:>15}",
                index + 1,
                summary.num_requests,
                summary.num_failed,
                summary.wall_s,
                summary.generated_tokens_per_s,
                summary.prompt_tokens_per_s,
                summary.requests_per_s,
                p50_p99(summary.ttft_ms),
                p50_p99(summary.itl_ms),
                p50_p99(summary.e2e_ms)
            ));
        }
        lines.push(String::new());
        lines.extend(self.foot());
        lines.join("\n")
    }

    fn head(&self) -> Vec<String> {
        let (server, workload) = (&self.server, &self.workload);
        let loops = match (workload.concurrency, workload.requests_per_s) {
            (Some(concurrency), _) => format!("closed loop, {concurrency} at a time"),
            (None, Some(rate)) => format!("open loop, {rate} requests/s"),
            (None, None) => String::new(),
        };
        let via = match workload.via {
            Via::Streams => "a stream each",
            Via::Batch => "one batch stream",
        };
        vec![
            format!(
                "server    {} (version {}), up to {} sequences and {} tokens a step",
                server.url, server.version, server.max_num_seqs, server.max_num_batched_tokens
            ),
            format!(
                "model     {}, {} parameters, {}, digest {}",
                server.checkpoint,
                server.num_parameters,
                server.dtype,
                short(&server.weights_digest)
            ),
            format!(
                "workload  {} prompts ({}), {} tokens each; {loops}; {via}",
                workload.num_prompts, workload.prompts, workload.num_tokens
            ),
        ]
    }

    fn foot(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(last) = self.repetitions.last() {
            lines.push(format!(
                "tokens    {} prompt ({} of them cached), {} generated in each run's answers; times in ms",
                last.num_prompt_tokens, last.num_cached_tokens, last.num_generated_tokens
            ));
        }
        let sum = |count: fn(&Summary) -> u64| self.repetitions.iter().map(count).sum::<u64>();
        let num_drafts = sum(|summary| summary.num_draft_tokens);
        if num_drafts > 0 {
            let num_accepted = sum(|summary| summary.num_accepted_draft_tokens);
            let share = 100.0 * num_accepted as f64 / num_drafts as f64;
            lines.push(format!(
                "drafts    {num_accepted} of {num_drafts} were right ({share:.0} %)"
            ));
        }
        let spread = self.generated_tokens_per_s;
        lines.push(format!(
            "tokens/s  median {:.1}, from {:.1} to {:.1}",
            spread.median, spread.min, spread.max
        ));
        for (when, load) in [("before", &self.load_before), ("after", &self.load_after)] {
            lines.push(format!(
                "load      {when}: {} running, {} waiting, {} of {} KV blocks in use, {} preemptions",
                load.num_running,
                load.num_waiting,
                load.num_blocks_used,
                load.num_blocks_total,
                load.num_preemptions_total
            ));
        }
        for summary in &self.repetitions {
            for (code, failures) in &summary.failures {
                lines.push(format!(
                    "failed    {} with {code}: {}",
                    failures.count, failures.first_message
                ));
            }
        }
        lines
    }
}

fn p50_p99(quantiles: Option<Quantiles>) -> String {
    quantiles.map_or("-".to_owned(), |quantiles| {
        format!("{:.1}/{:.1}", quantiles.p50, quantiles.p99)
    })
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
        let count = values.len();
        Self {
            median: f64::midpoint(at(count.saturating_sub(1) / 2), at(count / 2)),
            min: at(0),
            max: at(count.saturating_sub(1)),
        }
    }
}

impl ServerFacts {
    fn of(facts: Facts) -> Self {
        let (info, model) = (facts.info, facts.model);
        Self {
            url: facts.url,
            version: info.version,
            instance_id: info.instance_id,
            max_context_tokens: info.max_context_tokens,
            max_queued_requests: info.max_queued_requests,
            max_num_seqs: info.max_num_seqs,
            max_num_batched_tokens: info.max_num_batched_tokens,
            checkpoint: model.weights.checkpoint,
            weights_digest: model.weights.digest,
            weights_version: model.weights.version,
            architecture: model.architecture,
            num_parameters: model.num_parameters,
            dtype: model.dtype,
            vocab_size: model.vocab_size,
        }
    }
}

impl WorkloadFacts {
    fn of(workload: &Workload) -> Self {
        let (prompts, num_shared_prefix_tokens) = match &workload.prompts {
            PromptSource::List { path, .. } => (path.clone(), None),
            PromptSource::Random {
                num_tokens,
                num_shared,
            } => (format!("random, {num_tokens} tokens"), Some(*num_shared)),
        };
        let (concurrency, requests_per_s) = match workload.arrivals {
            Arrivals::Closed { concurrency } => (Some(concurrency), None),
            Arrivals::Open { requests_per_s } => (None, Some(requests_per_s)),
        };
        Self {
            prompts,
            num_prompts: workload.num_prompts,
            num_shared_prefix_tokens,
            num_tokens: workload.num_tokens,
            via: workload.via,
            concurrency,
            requests_per_s,
            num_warmup: workload.num_warmup,
            seed: workload.seed,
        }
    }
}
