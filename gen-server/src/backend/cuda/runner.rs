//! Executes steps on a GPU, up to two under way. A step that only decodes is one launch of a graph that was
//! recorded at the start for its number of sequences, padded; any other is launched kernel by kernel. All
//! that crosses the bus is what the step brings, on the way there, and what the rows came to, on the way back.

use std::{collections::VecDeque, time::Instant};

use cuda::{CudaSlice, Device, Float, Graph, Mark, Pinned, Trial};
use model::gpu::{KvCache, Network, Step, StepShape};

use super::{
    arenas::{Arenas, Lease},
    buckets::{GRAPH_TABLE_LEN, bucket_for, buckets, padded},
    loader::Staged,
    order::Ordered,
    prefixes::Sharing,
    sampling::{Drawing, MAX_GRAPH_EDITS, Sampler, word_of},
};
use crate::config::ProductTuning;
use crate::engine::{
    batch::StepBatch,
    runner::{Runner, RunnerError, Sampled, StagedWeights},
};

/// Steps under way at once: one that the GPU computes and one that waits for it.
const MAX_STEPS_IN_FLIGHT: usize = 2;

/// The weights, the cache and everything between, on the GPU.
#[derive(Debug)]
pub(super) struct CudaRunner<A: Float> {
    device: Device,
    network: Network<A>,
    kv_cache: KvCache<A>,
    live: Lease<A>,
    /// What the step at hand brings, as [`StepShape`] says.
    inputs: CudaSlice<u32>,
    sampler: Sampler,
    graphs: Graphs,
    /// The host's side of the steps under way, used in turn.
    stages: [Stage; MAX_STEPS_IN_FLIGHT],
    next_stage: usize,
    under_way: VecDeque<usize>,
    ordered: Ordered,
    /// Whether what sequences have in common is read once.
    sharing: Option<Sharing>,
}

/// Host memory of one step, and the end of its last copy.
#[derive(Debug)]
struct Stage {
    inputs: Pinned<u32>,
    drawing: Drawing,
    done: Option<Mark>,
}

/// Recorded steps that only decode: for each arena and each way to read keys, one for each bucket.
#[derive(Debug)]
struct Graphs {
    buckets: Vec<usize>,
    table_len: usize,
    by_arena: Vec<[Vec<Graph>; 2]>,
}

/// How sequences that decode read their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Each by itself.
    Own,
    /// Those of a common prefix once for all.
    Shared,
}

impl<A: Float> CudaRunner<A> {
    /// A runner with `live` weights, and graphs for these and for those in `others`.
    pub(super) fn new(
        (network, kv_cache): (Network<A>, KvCache<A>),
        (live, others): (Lease<A>, &Arenas<A>),
        (sharing, tuning): (Option<Sharing>, ProductTuning),
    ) -> model::error::Result<Self> {
        let device = network.device().clone();
        let room = network.room();
        let table_len = room.max_context.div_ceil(kv_cache.shape().block_size);
        let largest = StepShape {
            num_tokens: room.num_tokens,
            num_sequences: room.num_sequences,
            num_decodes: room.num_sequences,
            num_rows: room.num_rows,
            table_len,
            // Each has 64 rows, and a token at most 16: see `cuda::prefill_work`.
            num_tiles: room.num_tokens.div_ceil(4) + room.num_sequences,
            num_prefix_tiles: most_prefix_tiles(room.num_sequences),
        };
        let stage = || {
            Ok::<_, cuda::Error>(Stage {
                inputs: device.pinned(largest.len())?,
                drawing: Drawing::new(&device, room.num_rows)?,
                done: None,
            })
        };
        let mut runner = Self {
            inputs: device.zeros(largest.len())?,
            sampler: Sampler::new(&device, room.num_rows, room.logits_rows)?,
            graphs: Graphs {
                buckets: buckets(room.num_sequences),
                table_len: table_len.min(GRAPH_TABLE_LEN),
                by_arena: Vec::new(),
            },
            stages: [stage()?, stage()?],
            next_stage: 0,
            under_way: VecDeque::with_capacity(MAX_STEPS_IN_FLIGHT),
            ordered: Ordered::default(),
            sharing,
            device,
            network,
            kv_cache,
            live,
        };
        if tuning == ProductTuning::On {
            runner.tune()?;
        }
        runner.record(others)?;
        Ok(runner)
    }

    /// Finds the fastest products for each bucket. They are those of a graph, which may be of either arena.
    fn tune(&mut self) -> model::error::Result<()> {
        let start = Instant::now();
        let mut trials = Vec::new();
        for bucket in 0..self.graphs.buckets.len() {
            let num_rows = self.graphs.buckets[bucket];
            trials.extend(self.network.tune(self.live.arena(), num_rows)?);
        }
        let changed = trials.iter().filter(|trial| trial.taken > 0);
        let sum = |time: fn(&Trial) -> f64| trials.iter().map(time).sum::<f64>();
        tracing::info!(
            shapes = trials.len(),
            changed = changed.count(),
            faster_percent = 100.0 * (1.0 - sum(|it| it.taken_s) / sum(|it| it.first_s).max(1e-9)),
            seconds = start.elapsed().as_secs_f64(),
            "products tuned"
        );
        Ok(())
    }

    /// Records the graphs of all arenas. What they compute meanwhile is of padding alone.
    fn record(&mut self, others: &Arenas<A>) -> model::error::Result<()> {
        let standby = others.take();
        self.graphs
            .by_arena
            .resize_with(others.num_arenas(), <[Vec<Graph>; 2]>::default);
        self.record_live()?;
        let Some(standby) = standby else {
            return Ok(());
        };
        let live = std::mem::replace(&mut self.live, standby);
        let recorded = self.record_live();
        self.live = live;
        recorded
    }

    fn record_live(&mut self) -> model::error::Result<()> {
        let arena = self.live.index();
        for keys in [Keys::Own, Keys::Shared] {
            if keys == Keys::Shared && self.sharing.is_none() {
                continue;
            }
            for bucket in 0..self.graphs.buckets.len() {
                let graph = self.record_step(self.graphs.shape(bucket, keys))?;
                self.graphs.by_arena[arena][keys as usize].push(graph);
            }
        }
        Ok(())
    }

    fn record_step(&mut self, shape: StepShape) -> model::error::Result<Graph> {
        // The first launch loads kernels and chooses products, which a recording must not.
        let nothing = Step::default();
        let stage = &mut self.stages[0];
        nothing.fill(shape, stage.inputs.as_mut_slice()?);
        stage.drawing.fill(&StepBatch::default(), shape.num_rows)?;
        self.device
            .send(&stage.inputs, shape.len(), &mut self.inputs)?;
        self.sampler.send(&self.device, &stage.drawing)?;
        self.compute(shape, 0)?;
        self.device.synchronize()?;
        let device = self.device.clone();
        device.record(|| self.compute(shape, 0))
    }

    /// Everything between the copies.
    fn compute(&mut self, shape: StepShape, num_edits: usize) -> model::error::Result<()> {
        let (network, arena) = (&mut self.network, self.live.arena());
        let inputs = shape.inputs(&self.device, &mut self.inputs, &self.sampler.drawn())?;
        network.forward(arena, &mut self.kv_cache, &inputs)?;
        self.sampler
            .draw((network, arena), shape.num_rows, num_edits)
    }

    fn start(&mut self, batch: &StepBatch, stage_index: usize) -> model::error::Result<()> {
        let heads = self.network.heads();
        let logits_rows = self.network.room().logits_rows;
        let word = |row| word_of(row, logits_rows);
        self.ordered.fill(batch, heads, word);
        let step = self.ordered.step(batch, (heads, self.sharing))?;
        let keys = match step.prefixes {
            None => Keys::Own,
            Some(_) => Keys::Shared,
        };
        let own = step.shape(step.longest_table());
        let bucket = self.graphs.bucket_of(&step, own);
        let shape = match bucket {
            Some(bucket) => self.graphs.shape(bucket, keys),
            None => StepShape {
                num_tokens: padded(own.num_tokens, self.network.room().num_tokens),
                num_rows: padded(own.num_rows, self.network.room().num_rows),
                ..own
            },
        };
        let stage = &mut self.stages[stage_index];
        step.fill(shape, stage.inputs.as_mut_slice()?);
        stage.drawing.fill(batch, shape.num_rows)?;
        let num_edits = stage.drawing.num_edits();
        self.device
            .send(&stage.inputs, shape.len(), &mut self.inputs)?;
        self.sampler.send(&self.device, &stage.drawing)?;
        match bucket {
            Some(bucket) if num_edits <= MAX_GRAPH_EDITS => {
                let graphs = &mut self.graphs.by_arena[self.live.index()];
                graphs[keys as usize][bucket].launch()?;
            }
            _ => self.compute(shape, num_edits)?,
        }
        let stage = &mut self.stages[stage_index];
        self.sampler.receive(&self.device, &mut stage.drawing)?;
        stage.done = Some(self.device.mark()?);
        Ok(())
    }

    /// Waits for what was submitted: copies of the step that failed may be under way. A device that cannot even wait
    /// has met an error that it keeps (a faulty address, a lost card).
    fn failed(&self, error: &model::ModelError) -> RunnerError {
        match self.device.synchronize() {
            Ok(()) => RunnerError::Step(error.to_string()),
            Err(_) => RunnerError::Device(error.to_string()),
        }
    }

    fn finish(
        &mut self,
        stage_index: usize,
        outcomes: &mut Vec<Option<Sampled>>,
    ) -> model::error::Result<()> {
        let stage = &mut self.stages[stage_index];
        let done = stage.done.take().expect("a step that was submitted");
        done.wait()?;
        let logits_rows = self.network.room().logits_rows;
        Ok(stage.drawing.outcomes(logits_rows, outcomes)?)
    }
}

/// Whoever shares a prefix shares it with another.
fn most_prefix_tiles(num_sequences: usize) -> usize {
    (num_sequences / 2).max(1)
}

impl Graphs {
    /// What the graphs of a bucket are recorded for.
    fn shape(&self, bucket: usize, keys: Keys) -> StepShape {
        let size = self.buckets[bucket];
        let num_prefix_tiles = match keys {
            Keys::Own => 0,
            Keys::Shared => most_prefix_tiles(size),
        };
        StepShape {
            num_tokens: size,
            num_sequences: size,
            num_decodes: size,
            num_rows: size,
            table_len: self.table_len,
            num_tiles: 0,
            num_prefix_tiles,
        }
    }

    /// The bucket that holds a step, if it only decodes and wants logits of each token.
    fn bucket_of(&self, step: &Step<'_>, shape: StepShape) -> Option<usize> {
        let only_decodes = shape.num_decodes == shape.num_sequences;
        let all_rows = step.rows.iter().copied().eq(0..shape.num_tokens as u32);
        if !only_decodes || !all_rows || shape.table_len > self.table_len {
            return None;
        }
        bucket_for(&self.buckets, shape.num_sequences)
    }
}

impl<A: Float> Runner for CudaRunner<A> {
    fn max_steps_in_flight(&self) -> usize {
        MAX_STEPS_IN_FLIGHT
    }

    fn submit(&mut self, batch: &StepBatch) -> Result<(), RunnerError> {
        assert!(self.under_way.len() < MAX_STEPS_IN_FLIGHT, "a free stage");
        let stage = self.next_stage;
        if let Err(error) = self.start(batch, stage) {
            return Err(self.failed(&error));
        }
        self.next_stage = (stage + 1) % MAX_STEPS_IN_FLIGHT;
        self.under_way.push_back(stage);
        Ok(())
    }

    fn collect(&mut self, outcomes: &mut Vec<Option<Sampled>>) -> Result<(), RunnerError> {
        let stage = self.under_way.pop_front();
        let stage = stage.expect("a step that was submitted");
        self.finish(stage, outcomes)
            .map_err(|error| self.failed(&error))
    }

    fn install(&mut self, weights: StagedWeights) {
        let staged = weights.0.downcast::<Staged<A>>();
        match *staged.expect("the loader that made the backend stages these") {
            Staged::Arena(lease) => self.live = *lease,
            Staged::Host(weights) => {
                let copied = self.live.arena_mut().copy_from(&self.device, &weights);
                copied.expect("the arena has room for its own model");
            }
        }
    }
}

impl<A: Float> Drop for CudaRunner<A> {
    /// Steps may be under way that copy to and from this host's memory.
    fn drop(&mut self) {
        if let Err(error) = self.device.synchronize() {
            tracing::error!(%error, "the GPU did not finish");
        }
    }
}
