//! `gen-server speed`: how long steps take here, without requests, scheduling or text. What it prints is the
//! yardstick for all that is put on top.

mod parts;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;

pub use self::parts::{PartsBench, StepParts};
use crate::{
    Args, ServerConfig,
    backend::Backend,
    config::ConfigError,
    engine::{
        batch::{BatchSequence, Carried, Drawing, LogitsRow, Purpose, StepBatch},
        runner::{Runner, RunnerError, Sampled},
        scheduler::Limits,
    },
    request::{Sampling, Stopping},
};

/// A phase is repeated for about this long, and at least this often.
const TIME_PER_PHASE: Duration = Duration::from_millis(1500);
const MIN_REPETITIONS: usize = 5;
/// Repetitions that are not timed: the first ones load kernels and fill caches.
const NUM_WARM_UPS: usize = 3;

/// The command line of `gen-server speed`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "gen-server speed",
    about = "Measures how long steps take, without requests"
)]
pub struct SpeedArgs {
    /// What to measure: SEQUENCESxCONTEXT decodes, SEQUENCESxCONTEXT/SHARED with so many first tokens in
    /// common, pTOKENS is a prompt
    #[arg(long, value_name = "PHASE,...", value_delimiter = ',', default_value = DEFAULT_PHASES)]
    pub phases: Vec<Phase>,

    /// Also where the time of a step goes: each of its kernels alone, on a GPU
    #[arg(long)]
    pub parts: bool,

    /// One JSON object a phase, or, with --parts, a part
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub server: Args,
}

impl SpeedArgs {
    /// What cannot be measured with `config`.
    pub fn check(&self, config: &ServerConfig) -> Result<(), ConfigError> {
        if self.parts {
            parts::check(config)
        } else {
            Ok(())
        }
    }
}

/// What bench/gpu.sh measures of a large model.
const DEFAULT_PHASES: &str = "1x128,8x128,64x128,128x384,256x384,p512";

/// Steps of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// One token for each of `batch` sequences that have `context` tokens with it, the first `shared` of which
    /// (in whole blocks of the cache) are the same.
    Decode {
        batch: u32,
        context: u32,
        shared: u32,
    },
    /// A prompt of so many tokens.
    Prefill { tokens: u32 },
}

/// How long the steps of a phase took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub phase: Phase,
    /// The median, of a step.
    pub ms_per_step: f64,
    pub num_steps: usize,
}

/// A phase as it is typed: `256x384` is 256 sequences of 384 tokens, `256x384/256` the same with 256 in common,
/// `p8192` a prompt of 8,192.
impl std::str::FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        let phase = match text.strip_prefix('p') {
            Some(tokens) => number(tokens).map(|tokens| Self::Prefill { tokens }),
            None => text.split_once('x').and_then(|(batch, context)| {
                let (context, shared) = match context.split_once('/') {
                    Some((context, shared)) => (context, number(shared)?),
                    None => (context, 0),
                };
                let context = number(context)?;
                (shared < context).then_some(Self::Decode {
                    batch: number(batch)?,
                    context,
                    shared,
                })
            }),
        };
        phase.ok_or_else(|| {
            format!(
                "expected SEQUENCESxCONTEXT, SEQUENCESxCONTEXT/SHARED or pTOKENS, such as 256x384, \
                 256x384/256 or p8192, found {text:?}"
            )
        })
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decode {
                batch,
                context,
                shared: 0,
            } => write!(formatter, "{batch}x{context}"),
            Self::Decode {
                batch,
                context,
                shared,
            } => write!(formatter, "{batch}x{context}/{shared}"),
            Self::Prefill { tokens } => write!(formatter, "p{tokens}"),
        }
    }
}

impl Measured {
    /// Tokens that the phase computes in a second.
    pub fn tokens_per_s(&self) -> f64 {
        let tokens = match self.phase {
            Phase::Decode { batch, .. } => batch,
            Phase::Prefill { tokens } => tokens,
        };
        f64::from(tokens) / self.ms_per_step * 1e3
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let (phase, ms, rate) = (self.phase, self.ms_per_step, self.tokens_per_s());
        format!("{phase:>10}: {ms:>9.3} ms a step, {rate:>10.1} tokens/s")
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let Self {
            ms_per_step: ms,
            num_steps,
            ..
        } = self;
        match self.phase {
            Phase::Decode {
                batch,
                context,
                shared,
            } => format!(
                r#"{{"what":"decode","batch":{batch},"context":{context},"shared":{shared},"ms_per_step":{ms:.4},"steps":{num_steps}}}"#
            ),
            Phase::Prefill { tokens } => format!(
                r#"{{"what":"prefill","tokens":{tokens},"ms":{ms:.4},"steps":{num_steps}}}"#
            ),
        }
    }
}

/// A loaded model, to be timed.
#[derive(Debug)]
pub struct Bench {
    runner: Box<dyn Runner>,
    limits: Limits,
    max_context_tokens: usize,
}

impl Bench {
    pub(crate) fn new(backend: Backend) -> Self {
        Self {
            runner: backend.runner,
            limits: backend.limits,
            max_context_tokens: backend.max_context_tokens,
        }
    }

    /// Runs the steps of `phase` again and again.
    pub fn measure(&mut self, phase: Phase) -> Result<Measured, String> {
        let batch = self.batch(phase)?;
        let failed = |error: RunnerError| error.to_string();
        let mut outcomes = Vec::new();
        for _ in 0..NUM_WARM_UPS {
            self.runner.submit(&batch).map_err(failed)?;
            self.runner.collect(&mut outcomes).map_err(failed)?;
            check(&outcomes, &batch)?;
        }
        // As the engine does it: the next step is handed over before the last is waited for.
        let mut times = Vec::new();
        let (start, mut last) = (Instant::now(), Instant::now());
        let depth = self.runner.max_steps_in_flight();
        for _ in 1..depth {
            self.runner.submit(&batch).map_err(failed)?;
        }
        while times.len() < MIN_REPETITIONS || start.elapsed() < TIME_PER_PHASE {
            self.runner.submit(&batch).map_err(failed)?;
            self.runner.collect(&mut outcomes).map_err(failed)?;
            times.push(last.elapsed());
            last = Instant::now();
        }
        for _ in 1..depth {
            self.runner.collect(&mut outcomes).map_err(failed)?;
        }
        check(&outcomes, &batch)?;
        times.sort_unstable();
        Ok(Measured {
            phase,
            ms_per_step: times[times.len() / 2].as_secs_f64() * 1e3,
            num_steps: times.len(),
        })
    }

    fn batch(&self, phase: Phase) -> Result<StepBatch, String> {
        let (num_sequences, query_len, context_len, shared) = match phase {
            Phase::Decode {
                batch,
                context,
                shared,
            } => (batch, 1, context, shared),
            Phase::Prefill { tokens } => (1, tokens, tokens, 0),
        };
        let limits = &self.limits;
        let num_blocks = limits.num_blocks_for(context_len as usize) as u32;
        let (num_tokens, rows) = (num_sequences * query_len, num_sequences);
        for (what, found, most) in [
            ("sequences", rows as usize, limits.max_num_seqs),
            ("tokens", num_tokens as usize, limits.max_num_batched_tokens),
            ("context", context_len as usize, self.max_context_tokens),
            (
                "blocks",
                (num_sequences * num_blocks) as usize,
                limits.num_blocks as usize,
            ),
        ] {
            if found > most {
                return Err(format!(
                    "{phase}: {what}: expected at most {most}, found {found}"
                ));
            }
        }
        let mut batch = StepBatch::default();
        for sequence in 0..num_sequences {
            let first_block = sequence * num_blocks;
            for position in context_len - query_len..context_len {
                batch.token_ids.push((sequence * 37 + position * 11) % 256);
                batch.positions.push(position);
                let slot = first_block * limits.block_size as u32 + position;
                batch.slots.push(slot);
            }
            batch.sequences.push(BatchSequence {
                query_len,
                context_len,
                block_table_start: first_block,
                block_table_len: num_blocks,
            });
            // Blocks that are shared are those of the first sequence.
            let num_shared = shared / limits.block_size as u32;
            let own = first_block + num_shared..first_block + num_blocks;
            batch.block_tables.extend((0..num_shared).chain(own));
            batch.rows.push(LogitsRow {
                row: (sequence + 1) * query_len - 1,
                drawing: sequence,
                position: u64::from(context_len),
                purpose: Purpose::Draw,
            });
            batch.drawings.push(Drawing {
                sampling: Arc::new(Sampling::GREEDY),
                stopping: Arc::new(Stopping::default()),
                num_candidates: None,
                num_prompt_tokens: context_len as usize,
                history: 0..0,
            });
        }
        if self.runner.max_steps_in_flight() > 1 && query_len == 1 {
            let carried = |sequence| Carried {
                token: sequence,
                row: sequence,
            };
            batch.carried.extend((0..num_sequences).map(carried));
        }
        Ok(batch)
    }
}

fn check(outcomes: &[Option<Sampled>], batch: &StepBatch) -> Result<(), String> {
    if outcomes.len() == batch.rows.len() && outcomes.iter().all(Option::is_some) {
        return Ok(());
    }
    Err("a step's logits were not finite".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{fake::write_tiny_model, load};

    #[test]
    fn phases_are_read_as_they_are_written() {
        for text in ["256x384", "256x384/256", "p8192"] {
            assert_eq!(text.parse::<Phase>().unwrap().to_string(), text);
        }
        for text in [
            "", "p", "p0", "4", "4x", "x4", "-1x4", "4x0", "4x4/0", "4x4/4", "4x/2",
        ] {
            assert!(
                text.parse::<Phase>().unwrap_err().contains("256x384"),
                "{text}"
            );
        }
    }

    #[test]
    fn steps_of_a_tiny_model_are_timed() {
        let dir = tempfile::tempdir().unwrap();
        write_tiny_model(dir.path(), 1);
        let backend = load(&ServerConfig::for_model(dir.path())).unwrap();
        let mut bench = Bench::new(backend);
        for phase in ["3x40", "3x40/32", "p100"] {
            let measured = bench.measure(phase.parse().unwrap()).unwrap();
            assert!(measured.ms_per_step > 0.0 && measured.num_steps >= MIN_REPETITIONS);
            assert!(
                measured.json().starts_with(r#"{"what":"#),
                "{}",
                measured.json()
            );
        }
        let error = bench.measure("p600".parse().unwrap()).unwrap_err();
        assert_eq!(error, "p600: tokens: expected at most 512, found 600");
    }
}
