//! Checkpoints for the running server: into the second arena, through a stream of their own, and proven there;
//! or, where there is one arena only, into the host's memory, to be copied when the swap is made.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use cuda::{Device, Float, Uploader};
use model::{
    config::LlamaConfig,
    gpu::{
        Arena, HostWeights, KvCache, KvElement, KvShape, Network, Room, Step, StepSequence,
        WeightElement,
    },
};

use super::arenas::{Arenas, Lease};
use crate::{
    backend::{
        LoadError, Loaded, Loader,
        checkpoint::{Served, does_not_work, unusable},
    },
    engine::{runner::StagedWeights, sampler},
};

/// Tokens of the short greedy run that proves new weights.
const NUM_PROBE_TOKENS: usize = 4;
/// A block of the cache that run uses.
const PROBE_BLOCK_SIZE: usize = 32;

/// Weights that wait for their swap.
#[derive(Debug)]
pub(super) enum Staged<A: Float> {
    /// On the GPU already.
    Arena(Box<Lease<A>>),
    Host(HostWeights<A>),
}

/// Loads checkpoints of one architecture and tokenizer.
#[derive(Debug)]
pub(super) struct CudaLoader<A: Float> {
    pub(super) served: Served,
    pub(super) staging: Staging<A>,
}

/// Where checkpoints are loaded to.
#[derive(Debug)]
pub(super) enum Staging<A: Float> {
    Arenas {
        arenas: Arenas<A>,
        prober: Box<Mutex<Prober<A>>>,
    },
    /// In what the one arena holds.
    Host(WeightElement),
}

impl<A: Float> Loader for CudaLoader<A> {
    fn load(
        &self,
        folder: &Path,
        expected_manifest_sha256: Option<&str>,
    ) -> Result<Loaded, LoadError> {
        self.served.check(folder, expected_manifest_sha256)?;
        let config = &self.served.config;
        let (staged, digest) = match &self.staging {
            Staging::Arenas { arenas, prober } => {
                let mut prober = prober.lock().unwrap_or_else(PoisonError::into_inner);
                let lease = arenas.take().ok_or_else(|| {
                    LoadError::Unusable("the weights before are still waiting".to_owned())
                })?;
                let lease = prober.load(lease, folder, config)?;
                let digest = lease.arena().digest().to_owned();
                (Staged::Arena(Box::new(lease)), digest)
            }
            Staging::Host(element) => {
                let weights = HostWeights::<A>::load(folder, config, *element).map_err(unusable)?;
                let digest = weights.digest().to_owned();
                (Staged::Host(weights), digest)
            }
        };
        Ok(Loaded {
            weights: StagedWeights(Box::new(staged)),
            digest,
        })
    }
}

/// A small network on a stream of its own.
#[derive(Debug)]
pub(super) struct Prober<A: Float> {
    network: Network<A>,
    kv_cache: KvCache<A>,
    uploader: Uploader,
}

impl<A: Float> Prober<A> {
    pub(super) fn new(
        beside: &Device,
        config: &LlamaConfig,
        weights: WeightElement,
    ) -> model::error::Result<Self> {
        let device = beside.fork()?;
        let room = Room {
            num_tokens: 8,
            num_sequences: 1,
            num_rows: 8,
            logits_rows: 8,
            max_context: PROBE_BLOCK_SIZE,
            weights,
        };
        let shape = KvShape {
            num_blocks: 1,
            block_size: PROBE_BLOCK_SIZE,
            element: KvElement::Float,
        };
        Ok(Self {
            kv_cache: KvCache::new(&device, config, shape)?,
            uploader: Uploader::new(&device)?,
            network: Network::new(&device, config, room)?,
        })
    }

    fn load(
        &mut self,
        mut lease: Lease<A>,
        folder: &Path,
        config: &LlamaConfig,
    ) -> Result<Lease<A>, LoadError> {
        let arena = lease.arena_mut();
        arena
            .load(&mut self.uploader, folder, config)
            .map_err(unusable)?;
        self.probe(arena, config.bos_token_id.unwrap_or(0))?;
        Ok(lease)
    }

    /// A short greedy run on a cache of its own: every logit must be finite.
    fn probe(&mut self, arena: &Arena<A>, mut token: u32) -> Result<(), LoadError> {
        for position in 0..NUM_PROBE_TOKENS as u32 {
            let step = Step {
                token_ids: &[token],
                positions: &[position],
                slots: &[position],
                sequences: &[StepSequence {
                    query_len: 1,
                    context_len: position + 1,
                    table_start: 0,
                    table_len: 1,
                }],
                block_tables: &[0],
                rows: &[0],
                carried: &[],
                tiles: &[],
                prefixes: None,
            };
            let logits = self
                .network
                .logits_of(arena, &mut self.kv_cache, &step)
                .map_err(|error| does_not_work(&error.to_string()))?;
            token = sampler::argmax(&logits)
                .filter(|_| logits.iter().all(|logit| logit.is_finite()))
                .ok_or_else(|| does_not_work("a logit is not finite"))?;
        }
        Ok(())
    }
}
