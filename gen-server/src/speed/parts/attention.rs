//! The parts that know sequences: the way of keys and values into the cache, and attention.

use cuda::{
    Cache, CacheElement, CudaSlice, Heads, PagedCache, PagedQueries, Positions,
    paged_decode_scratch_len, prefill_work,
};
use half::bf16;
use model::gpu::{KvElement, NOWHERE};

use super::{
    Part, Phase, Turn,
    operands::{Operands, num_copies},
    step::StepSize,
};
use crate::ceilings::random;

/// The layout of a step's sequences, as the runner and [`super::super::Bench`] make it.
struct Sequences {
    /// `[T]`
    positions: CudaSlice<u32>,
    /// `[T]`
    slots: CudaSlice<u32>,
    /// `[S + 1]`
    query_starts: CudaSlice<u32>,
    /// `[S]`
    context_lens: CudaSlice<u32>,
    /// `[S, blocks of the longest]`
    block_tables: CudaSlice<u32>,
    /// Slots of the cache.
    num_slots: usize,
    max_context: usize,
    num_queries: usize,
    num_keys: usize,
    /// Of a query and a key that it sees.
    num_pairs: usize,
}

/// Keys and values of a layer.
struct KvCopy<E> {
    keys: CudaSlice<E>,
    values: CudaSlice<E>,
}

impl Sequences {
    fn new(operands: &Operands, size: &StepSize) -> cuda::Result<Self> {
        let (num_sequences, query_len, context) = match size.phase {
            Phase::Decode { batch, context, .. } => (batch as usize, 1, context as usize),
            Phase::Prefill { tokens } => (1, tokens as usize, tokens as usize),
        };
        let num_blocks = context.div_ceil(size.block_size);
        let slots_of_sequence = num_blocks * size.block_size;
        let (mut positions, mut slots) = (Vec::new(), Vec::new());
        for sequence in 0..num_sequences {
            for position in context - query_len..context {
                positions.push(position as u32);
                slots.push((sequence * slots_of_sequence + position) as u32);
            }
        }
        positions.resize(size.num_tokens, 0);
        slots.resize(size.num_tokens, NOWHERE);
        // Those that decode are padded with sequences of one token that have no context.
        let padded = match size.phase {
            Phase::Decode { .. } => size.num_tokens,
            Phase::Prefill { .. } => 1,
        };
        let starts: Vec<u32> = (0..=padded).map(|at| (at * query_len) as u32).collect();
        let mut context_lens = vec![context as u32; num_sequences];
        context_lens.resize(padded, 0);
        let mut tables: Vec<u32> = (0..(num_sequences * num_blocks) as u32).collect();
        tables.resize(padded * num_blocks, 0);
        let device = &operands.device;
        Ok(Self {
            positions: device.upload(&positions)?,
            slots: device.upload(&slots)?,
            query_starts: device.upload(&starts)?,
            context_lens: device.upload(&context_lens)?,
            block_tables: device.upload(&tables)?,
            num_slots: num_sequences * slots_of_sequence,
            max_context: context,
            num_queries: num_sequences * query_len,
            num_keys: num_sequences * context,
            num_pairs: num_sequences * (query_len * (2 * context - query_len + 1) / 2),
        })
    }
}

/// `rope_kv`, then attention over all that is in the cache.
pub(super) fn parts(operands: &Operands, size: &StepSize) -> cuda::Result<[Part; 2]> {
    match operands.kv_element {
        KvElement::Float => cached(operands, size, Operands::bf16s),
        KvElement::E4m3 => cached(operands, size, Operands::e4m3s),
    }
}

fn cached<E: CacheElement<bf16>>(
    operands: &Operands,
    size: &StepSize,
    values: impl Fn(&Operands, usize) -> cuda::Result<CudaSlice<E>>,
) -> cuda::Result<[Part; 2]> {
    let len = Sequences::new(operands, size)?.num_slots * operands.model.kv_size();
    let many = num_copies(&operands.device, 2 * len * size_of::<E>());
    let copies = |count: usize| {
        let copy = |_| {
            Ok(KvCopy {
                keys: values(operands, len)?,
                values: values(operands, len)?,
            })
        };
        (0..count).map(copy).collect::<cuda::Result<Vec<_>>>()
    };
    // The keys of a prompt were written just before.
    let seen = match size.phase {
        Phase::Decode { .. } => many,
        Phase::Prefill { .. } => 1,
    };
    Ok([
        rope_kv(operands, size, copies(many)?)?,
        attention(operands, size, copies(seen)?)?,
    ])
}

fn heads(operands: &Operands) -> Heads {
    Heads {
        num_heads: operands.model.num_attention_heads,
        num_groups: operands.model.num_key_value_heads,
        head_dim: operands.model.head_dim,
    }
}

/// Of q, k and v side by side.
fn width(operands: &Operands) -> usize {
    operands.model.query_size() + 2 * operands.model.kv_size()
}

fn rope_kv<E: CacheElement<bf16>>(
    operands: &Operands,
    size: &StepSize,
    mut copies: Vec<KvCopy<E>>,
) -> cuda::Result<Part> {
    let (model, num_tokens, block_size) = (&operands.model, size.num_tokens, size.block_size);
    let (query, kv, dim) = (model.query_size(), model.kv_size(), model.head_dim);
    let (device, heads) = (operands.device.clone(), heads(operands));
    let sequences = Sequences::new(operands, size)?;
    let mut qkv = operands.bf16s(num_tokens * width(operands))?;
    // Angles, so that values turned again and again do not grow.
    let angles = random(sequences.max_context * dim / 2);
    let part = |of: fn(f32) -> f32| angles.iter().map(|it| of(it.to_f32())).collect::<Vec<_>>();
    let cosines = device.upload(&part(f32::cos))?;
    let sines = device.upload(&part(f32::sin))?;
    // Queries to and fro, keys and values there, their place, an angle's cosines and sines.
    let bytes_of_token = 2 * (2 * query + 2 * kv) + 2 * kv * size_of::<E>() + 8 + 4 * dim;
    Ok(Part {
        name: "rope_kv",
        rows: num_tokens,
        count: model.num_hidden_layers,
        num_bytes: num_tokens * bytes_of_token,
        num_flops: 0,
        num_copies: copies.len(),
        kernels: Vec::new(),
        run: Box::new(move |turn: Turn<'_>| {
            let at = Positions {
                positions: &sequences.positions.as_view(),
                slots: &sequences.slots.as_view(),
                cosines: &cosines.as_view(),
                sines: &sines.as_view(),
            };
            let KvCopy { keys, values } = &mut copies[turn.copy];
            let cache = Cache {
                keys: &mut keys.as_view_mut(),
                values: &mut values.as_view_mut(),
                block_size,
                scales: [1.0, 1.0],
            };
            cuda::rope_kv(&device, &mut qkv.as_view_mut(), &at, cache, heads)
        }),
    })
}

/// With what puts splits together, where sequences decode. Padding has neither bytes nor operations.
fn attention<E: CacheElement<bf16>>(
    operands: &Operands,
    size: &StepSize,
    copies: Vec<KvCopy<E>>,
) -> cuda::Result<Part> {
    let (model, num_tokens, block_size) = (&operands.model, size.num_tokens, size.block_size);
    let (device, stride, heads) = (operands.device.clone(), width(operands), heads(operands));
    let sequences = Sequences::new(operands, size)?;
    let query = operands.bf16s(num_tokens * stride)?;
    let mut out: CudaSlice<bf16> = device.zeros(num_tokens * model.query_size())?;
    let scratch_len = paged_decode_scratch_len::<bf16>(&device, num_tokens, num_tokens, heads)?;
    let mut scratch = device.zeros(scratch_len)?;
    let tiles = match size.phase {
        Phase::Decode { .. } => None,
        Phase::Prefill { tokens } => Some(device.upload(&prefill_work(&[tokens as usize], heads))?),
    };
    let cached = 2 * sequences.num_keys * model.kv_size() * size_of::<E>();
    let queries_and_out = 2 * sequences.num_queries * model.query_size() * size_of::<bf16>();
    Ok(Part {
        name: "attention",
        rows: num_tokens,
        count: model.num_hidden_layers,
        num_bytes: cached + queries_and_out,
        num_flops: 4 * model.query_size() * sequences.num_pairs,
        num_copies: copies.len(),
        kernels: Vec::new(),
        run: Box::new(move |turn: Turn<'_>| {
            let queries = PagedQueries {
                query: &query.as_view(),
                stride,
                query_start: &sequences.query_starts.as_view(),
                context_len: &sequences.context_lens.as_view(),
                block_tables: &sequences.block_tables.as_view(),
            };
            let cache = PagedCache {
                keys: &copies[turn.copy].keys.as_view(),
                values: &copies[turn.copy].values.as_view(),
                block_size,
                scales: [1.0, 1.0],
            };
            let out = &mut out.as_view_mut();
            if let Some(tiles) = &tiles {
                let to = (&tiles.as_view(), out);
                cuda::paged_prefill(&device, queries, cache, heads, to)
            } else {
                let to = (out, &mut scratch.as_view_mut());
                cuda::paged_decode(&device, queries, cache, heads, to)
            }
        }),
    })
}
