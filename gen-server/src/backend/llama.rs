//! The real backend: a Llama checkpoint folder, computed by `model` on the CPU.

use std::{io, path::Path, sync::Arc};

use candle_core::Tensor;
use kernels::{Crew, KvCache, tensor::f32_view};
use model::{
    ModelError,
    config::LlamaConfig,
    llama::{BatchSequence, Llama, LlamaOptions, PackedBatch, kv_shape},
};
use rayon::prelude::*;

use super::{
    Backend, LoadError, Loaded, Loader,
    checkpoint::{self, Served, does_not_work, unusable},
    step_limits,
};
use crate::{
    config::{KvCacheSize, ServerConfig},
    engine::{
        batch::{LogitsRow, StepBatch},
        runner::{Runner, RunnerError, Sampled, StagedWeights},
        sampler::{self, Scratch},
        scheduler::Limits,
    },
    error::ServerError,
    request::WeightsVersion,
};

/// Most that the KV cache takes unless told otherwise.
const MAX_AUTO_KV_BYTES: usize = 512 << 20;
/// But at least one sequence of this length must fit.
const MIN_AUTO_CONTEXT_TOKENS: usize = 4096;
/// Tokens of the short greedy run that proves new weights.
const NUM_PROBE_TOKENS: usize = 4;
/// Rows of logits are drawn from in parallel where they hold at least this many numbers.
const MIN_PARALLEL_LOGITS: usize = 1 << 16;

/// Loads the model that `config` names. Blocks for as long as that takes.
pub(crate) fn load_llama(config: &ServerConfig) -> Result<Backend, ServerError> {
    let dir = &config.model_dir;
    let (folder, tokenizer) = checkpoint::open(config)?;
    let options = llama_options(config)?;
    let llama = Llama::load(dir, &folder.config, &options)?;
    let limits = limits(config, &folder.config);
    let kv_cache = llama.new_kv_cache(limits.num_blocks as usize, limits.block_size)?;
    let max_context_tokens = folder
        .config
        .max_position_embeddings
        .min(limits.num_blocks as usize * limits.block_size);
    let weights = WeightsVersion {
        number: 1,
        digest: llama.digest().to_owned(),
        checkpoint: checkpoint::folder_name(dir),
    };
    let pool = thread_pool(config.threads)?;
    let model = checkpoint::model_info(&folder, config.precision.name().to_owned());
    let loader = LlamaLoader {
        served: Served {
            config: folder.config,
            tokenizer_digest: tokenizer.digest().to_owned(),
        },
        block_size: limits.block_size,
        options,
    };
    Ok(Backend {
        runner: Box::new(LlamaRunner::new(llama, kv_cache, pool)),
        loader: Arc::new(loader),
        tokenizer,
        model,
        limits,
        max_context_tokens,
        weights,
    })
}

/// What computes, and in what.
fn llama_options(config: &ServerConfig) -> Result<LlamaOptions, ServerError> {
    let one_per_core = || std::thread::available_parallelism().map_or(1, usize::from);
    let num_threads = config.threads.unwrap_or_else(one_per_core);
    Ok(LlamaOptions {
        format: config.precision.weight_format(),
        crew: Arc::new(Crew::new(num_threads).map_err(ServerError::Thread)?),
    })
}

fn thread_pool(threads: Option<usize>) -> Result<Option<rayon::ThreadPool>, ServerError> {
    let Some(threads) = threads else {
        return Ok(None);
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("compute-{index}"))
        .build()
        .map_err(|error| ServerError::Thread(io::Error::other(error)))?;
    Ok(Some(pool))
}

/// What a step may hold, and how many blocks there are.
fn limits(config: &ServerConfig, model: &LlamaConfig) -> Limits {
    let block_size = config.block_size as usize;
    let block = kv_shape(model, config.precision.weight_format(), (1, block_size));
    let block_bytes = block.num_bytes().unwrap_or(usize::MAX);
    let num_blocks = match config.kv_cache {
        KvCacheSize::Blocks(blocks) => blocks.get() as usize,
        KvCacheSize::Mebibytes(mib) => ((mib.get() as usize) << 20) / block_bytes,
        KvCacheSize::Auto => {
            let longest = model.max_position_embeddings;
            let blocks_for = |num_tokens: usize| num_tokens.div_ceil(block_size);
            let all = blocks_for(longest) * config.max_num_seqs as usize;
            let one = blocks_for(longest.min(MIN_AUTO_CONTEXT_TOKENS));
            all.min(MAX_AUTO_KV_BYTES / block_bytes).max(one)
        }
    };
    step_limits(config, num_blocks)
}

/// Executes steps with a Llama.
#[derive(Debug)]
pub(crate) struct LlamaRunner {
    llama: Llama,
    kv_cache: KvCache,
    /// Where to compute; `None` is the process-wide pool.
    pool: Option<rayon::ThreadPool>,
    packed: PackedBatch,
    /// What the step that was submitted came to.
    drawn: Option<Vec<Option<Sampled>>>,
}

impl LlamaRunner {
    pub(crate) fn new(llama: Llama, kv_cache: KvCache, pool: Option<rayon::ThreadPool>) -> Self {
        Self {
            llama,
            kv_cache,
            pool,
            packed: PackedBatch::default(),
            drawn: None,
        }
    }

    fn pack(&mut self, batch: &StepBatch) {
        let packed = &mut self.packed;
        packed.token_ids.clone_from(&batch.token_ids);
        packed.positions.clone_from(&batch.positions);
        packed.slot_mapping.clone_from(&batch.slots);
        packed.sequences.clear();
        packed
            .sequences
            .extend(batch.sequences.iter().map(|sequence| BatchSequence {
                query_len: sequence.query_len,
                context_len: sequence.context_len,
                block_table: batch.block_table(sequence).to_vec(),
            }));
        packed.logits_rows.clear();
        packed
            .logits_rows
            .extend(batch.rows.iter().map(|row| row.row));
    }

    fn forward(&mut self, batch: &StepBatch) -> Result<Vec<Option<Sampled>>, ModelError> {
        let logits = self.llama.forward(&self.packed, &mut self.kv_cache)?;
        // Not copied: with a vocabulary of 128,256 a full step's logits are 131 MB.
        let logits = f32_view("draw", "logits", &logits)?;
        Ok(draw(&logits, batch))
    }
}

impl Runner for LlamaRunner {
    /// It computes on the cores that the engine's thread runs on: being one step ahead gains nothing.
    fn max_steps_in_flight(&self) -> usize {
        1
    }

    fn submit(&mut self, batch: &StepBatch) -> Result<(), RunnerError> {
        assert!(self.drawn.is_none(), "one step at a time");
        assert!(batch.carried.is_empty(), "there is no step before");
        self.pack(batch);
        let pool = self.pool.take();
        let drawn = match &pool {
            Some(pool) => pool.install(|| self.forward(batch)),
            None => self.forward(batch),
        };
        self.pool = pool;
        self.drawn = Some(drawn.map_err(|error| RunnerError::Step(error.to_string()))?);
        Ok(())
    }

    fn collect(&mut self, outcomes: &mut Vec<Option<Sampled>>) -> Result<(), RunnerError> {
        *outcomes = self.drawn.take().expect("a step was submitted");
        Ok(())
    }

    fn install(&mut self, weights: StagedWeights) {
        let llama = weights.0.downcast::<Llama>();
        self.llama = *llama.expect("the loader that made the backend stages Llamas");
    }
}

/// What each row of `logits` \[R·V\] comes to.
pub(super) fn draw(logits: &[f32], batch: &StepBatch) -> Vec<Option<Sampled>> {
    let rows = &batch.rows;
    if rows.is_empty() {
        return Vec::new();
    }
    let vocab_size = logits.len() / rows.len();
    let draw_one = |scratch: &mut Scratch, (logits, row): (&[f32], &LogitsRow)| {
        sampler::outcome(logits, batch, row, scratch)
    };
    if logits.len() < MIN_PARALLEL_LOGITS {
        let mut scratch = Scratch::default();
        logits
            .chunks(vocab_size)
            .zip(rows)
            .map(|row| draw_one(&mut scratch, row))
            .collect()
    } else {
        let rows = logits.par_chunks(vocab_size).zip(rows);
        rows.map_init(Scratch::default, draw_one).collect()
    }
}

/// Loads checkpoints of one architecture and tokenizer.
#[derive(Debug)]
struct LlamaLoader {
    served: Served,
    block_size: usize,
    options: LlamaOptions,
}

impl Loader for LlamaLoader {
    fn load(
        &self,
        folder: &Path,
        expected_manifest_sha256: Option<&str>,
    ) -> Result<Loaded, LoadError> {
        self.served.check(folder, expected_manifest_sha256)?;
        // The served config: special ids and the element type on disk may differ.
        let llama = Llama::load(folder, &self.served.config, &self.options).map_err(unusable)?;
        self.probe(&llama)?;
        let digest = llama.digest().to_owned();
        Ok(Loaded {
            weights: StagedWeights(Box::new(llama)),
            digest,
        })
    }
}

impl LlamaLoader {
    /// A short greedy run on a cache of its own: every logit must be finite.
    fn probe(&self, llama: &Llama) -> Result<(), LoadError> {
        let num_blocks = NUM_PROBE_TOKENS.div_ceil(self.block_size);
        let mut kv_cache = llama
            .new_kv_cache(num_blocks, self.block_size)
            .map_err(|error| does_not_work(&error.to_string()))?;
        let num_tokens = NUM_PROBE_TOKENS.min(self.served.config.max_position_embeddings);
        let mut token = self.served.config.bos_token_id.unwrap_or(0);
        for position in 0..num_tokens as u32 {
            let batch = PackedBatch {
                token_ids: vec![token],
                positions: vec![position],
                slot_mapping: vec![position],
                sequences: vec![BatchSequence {
                    query_len: 1,
                    context_len: position + 1,
                    block_table: (0..num_blocks as u32).collect(),
                }],
                logits_rows: vec![0],
            };
            let logits = llama
                .forward(&batch, &mut kv_cache)
                .and_then(|logits: Tensor| Ok(logits.flatten_all()?.to_vec1::<f32>()?))
                .map_err(|error| does_not_work(&error.to_string()))?;
            token = sampler::argmax(&logits)
                .filter(|_| logits.iter().all(|logit| logit.is_finite()))
                .ok_or_else(|| does_not_work("a logit is not finite"))?;
        }
        Ok(())
    }
}
