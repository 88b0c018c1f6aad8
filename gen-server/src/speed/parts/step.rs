//! What a step consists of: its kernels in their order, how often each comes, and what it moves and computes.
//! Shape letters are those of [`model::gpu::Network`]'s file.

use std::rc::Rc;

use cuda::{
    CudaSlice, Float, Int8View, LogitEdit, MAX_CANDIDATES, Output, RowPurpose, SampleOutput,
    SampleRow, Sum,
};
use half::bf16;

use super::{
    MAX_KERNELS, Part, Phase, Run, Turn, attention,
    operands::{Copies, Matrix, Operands},
};
use crate::{
    backend::cuda::{
        MAX_LOGITS_ROWS,
        buckets::{bucket_for, buckets, padded},
    },
    engine::scheduler::Limits,
};

/// How large a step is once the runner has padded it.
pub(super) struct StepSize {
    pub phase: Phase,
    pub num_tokens: usize,
    /// That logits are wanted for.
    num_rows: usize,
    pub block_size: usize,
}

impl StepSize {
    /// Of a phase that is within `limits`.
    pub(super) fn new(phase: Phase, limits: &Limits) -> Self {
        let phase = match phase {
            // To the runner a token that is alone decodes.
            Phase::Prefill { tokens: 1 } => Phase::Decode {
                batch: 1,
                context: 1,
                shared: 0,
            },
            other => other,
        };
        let (num_tokens, num_rows) = match phase {
            Phase::Decode { batch, .. } => {
                let sizes = buckets(limits.max_num_seqs);
                let bucket = bucket_for(&sizes, batch as usize);
                let size = bucket.map_or(batch as usize, |bucket| sizes[bucket]);
                (size, size)
            }
            Phase::Prefill { tokens } => (
                padded(tokens as usize, limits.max_num_batched_tokens),
                padded(1, limits.max_logits_rows()),
            ),
        };
        Self {
            phase,
            num_tokens,
            num_rows,
            block_size: limits.block_size,
        }
    }

    /// What follows attention in a layer: over how many rows, in how many layers. The last layer ends with
    /// the rows that logits are wanted for.
    fn finishes(&self, num_layers: usize) -> Vec<(usize, usize)> {
        if self.num_rows < self.num_tokens {
            vec![(self.num_tokens, num_layers - 1), (self.num_rows, 1)]
        } else {
            vec![(self.num_tokens, num_layers)]
        }
    }
}

/// All parts of a step, in their order.
pub(super) fn parts(operands: &Operands, size: &StepSize) -> cuda::Result<Vec<Part>> {
    let (tokens, rows) = (size.num_tokens, size.num_rows);
    let layers = operands.model.num_hidden_layers;
    let finishes = size.finishes(layers);
    let mut parts = vec![
        carry(operands, tokens)?,
        embedding(operands, tokens)?,
        rms_norm(operands, (tokens, layers))?,
        product::<bf16>(
            operands,
            "qkv",
            (tokens, layers),
            (&operands.qkv, Sum::Overwrite),
        )?,
    ];
    parts.extend(attention::parts(operands, size)?);
    for (rows, layers) in finishes {
        let finish = (rows, layers);
        parts.extend([
            product::<f32>(operands, "o", finish, (&operands.o, Sum::Add))?,
            rms_norm(operands, finish)?,
            product::<bf16>(
                operands,
                "gate_up",
                finish,
                (&operands.gate_up, Sum::Overwrite),
            )?,
            swiglu(operands, finish)?,
            product::<f32>(operands, "down", finish, (&operands.down, Sum::Add))?,
        ]);
    }
    if rows < tokens {
        let width = operands.model.query_size();
        parts.push(gather(
            operands.bf16s(tokens * width)?,
            operands,
            (size, width),
        )?);
    }
    let width = operands.model.hidden_size;
    parts.push(gather(
        operands.f32s(tokens * width)?,
        operands,
        (size, width),
    )?);
    parts.push(rms_norm(operands, (rows, 1))?);
    // Pieces that fit into the memory for logits; all of the same size here.
    let num_pieces = rows.div_ceil(MAX_LOGITS_ROWS);
    let piece = (rows.div_ceil(num_pieces), num_pieces);
    parts.extend([
        product::<f32>(operands, "head", piece, (&operands.head, Sum::Overwrite))?,
        sampling(operands, piece)?,
    ]);
    Ok(merged(parts))
}

/// The same part in two places of a step is one, and what does not come is left out.
fn merged(parts: Vec<Part>) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::new();
    for part in parts {
        let same = |it: &&mut Part| (it.name, it.rows) == (part.name, part.rows);
        match merged.iter_mut().find(same) {
            Some(first) => first.count += part.count,
            None => merged.push(part),
        }
    }
    merged.retain(|part| part.count > 0);
    merged
}

/// A part whose operands are in L2 in a step, too.
fn small(
    name: &'static str,
    (rows, count): (usize, usize),
    num_bytes: usize,
    mut run: impl FnMut() -> cuda::Result<()> + 'static,
) -> Part {
    Part {
        name,
        rows,
        count,
        num_bytes,
        num_flops: 0,
        num_copies: 1,
        run: Box::new(move |_| run()),
        kernels: Vec::new(),
    }
}

fn carry(operands: &Operands, num_tokens: usize) -> cuda::Result<Part> {
    let device = operands.device.clone();
    let pairs: Vec<u32> = (0..num_tokens as u32).flat_map(|it| [it, it]).collect();
    let pairs = device.upload(&pairs)?;
    let sampled = device.zeros(num_tokens)?;
    let mut ids = device.zeros(num_tokens)?;
    let num_bytes = 4 * num_tokens * 4;
    Ok(small("carry", (num_tokens, 1), num_bytes, move || {
        let (sampled, pairs) = (sampled.as_view(), pairs.as_view());
        cuda::carry_tokens(&device, &sampled, &pairs, &mut ids.as_view_mut())
    }))
}

/// Rows from all over the table; the same in each run, which may leave them in L2.
fn embedding(operands: &Operands, num_tokens: usize) -> cuda::Result<Part> {
    let (device, model) = (operands.device.clone(), &operands.model);
    let (width, vocabulary) = (model.hidden_size, model.vocab_size);
    let table = operands.bf16s(vocabulary * width)?;
    let ids: Vec<u32> = (0..num_tokens)
        .map(|token| (token * vocabulary / num_tokens) as u32)
        .collect();
    let ids = device.upload(&ids)?;
    let mut x: CudaSlice<f32> = device.zeros(num_tokens * width)?;
    let num_bytes = num_tokens * (6 * width + 4);
    Ok(small("embedding", (num_tokens, 1), num_bytes, move || {
        let (table, ids) = (table.as_view(), ids.as_view());
        cuda::embedding(&device, &table, &ids, &mut x.as_view_mut(), width)
    }))
}

fn rms_norm(operands: &Operands, (rows, count): (usize, usize)) -> cuda::Result<Part> {
    let (device, width) = (operands.device.clone(), operands.model.hidden_size);
    let (x, w) = (operands.f32s(rows * width)?, operands.f32s(width)?);
    let mut y: CudaSlice<bf16> = device.zeros(rows * width)?;
    let num_bytes = 6 * rows * width + 4 * width;
    Ok(small("rms_norm", (rows, count), num_bytes, move || {
        let (x, w) = (x.as_view(), w.as_view());
        cuda::rms_norm(&device, &x, &w, &mut y.as_view_mut(), 1e-5)
    }))
}

fn swiglu(operands: &Operands, (rows, count): (usize, usize)) -> cuda::Result<Part> {
    let (device, width) = (operands.device.clone(), operands.model.intermediate_size);
    let gate_up = operands.bf16s(rows * 2 * width)?;
    let mut y: CudaSlice<bf16> = device.zeros(rows * width)?;
    let num_bytes = 6 * rows * width;
    Ok(small("swiglu", (rows, count), num_bytes, move || {
        cuda::swiglu(&device, &gate_up.as_view(), &mut y.as_view_mut(), width)
    }))
}

/// The rows that logits are wanted for.
fn gather<T: Output>(
    x: CudaSlice<T>,
    operands: &Operands,
    (size, width): (&StepSize, usize),
) -> cuda::Result<Part> {
    let device = operands.device.clone();
    let last = size.num_tokens - 1;
    let rows: Vec<u32> = (0..size.num_rows).map(|row| row.min(last) as u32).collect();
    let rows = device.upload(&rows)?;
    let mut y = device.zeros(size.num_rows * width)?;
    let num_bytes = size.num_rows * (2 * width * size_of::<T>() + 4);
    let name = match size_of::<T>() {
        2 => "gather attended",
        _ => "gather",
    };
    Ok(small(name, (size.num_rows, 1), num_bytes, move || {
        let (x, rows) = (x.as_view(), rows.as_view());
        cuda::gather_rows(&device, &x, &rows, &mut y.as_view_mut(), width)
    }))
}

/// Greedy.
fn sampling(operands: &Operands, (rows, count): (usize, usize)) -> cuda::Result<Part> {
    let (device, vocabulary) = (operands.device.clone(), operands.model.vocab_size);
    let mut logits = operands.f32s(rows * vocabulary)?;
    let greedy = SampleRow {
        purpose: RowPurpose::Draw,
        top_p: 1.0,
        repetition_penalty: 1.0,
        num_candidates: SampleRow::NO_LOGPROBS,
        ..SampleRow::default()
    };
    let wanted = device.upload(&vec![greedy; rows])?;
    let mut edits = device.zeros::<LogitEdit>(0)?;
    let mut words = device.zeros(SampleOutput::len(rows, MAX_CANDIDATES))?;
    let num_bytes = 4 * rows * vocabulary;
    Ok(small("sampling", (rows, count), num_bytes, move || {
        let mut output = SampleOutput {
            words: &mut words.as_view_mut(),
            max_candidates: MAX_CANDIDATES,
        };
        let (logits, edits) = (&mut logits.as_view_mut(), &mut edits.as_view_mut());
        cuda::sample(&device, logits, &wanted.as_view(), edits, &mut output)
    }))
}

/// `y (+)= x · wᵀ`
fn product<Y: Output>(
    operands: &Operands,
    name: &'static str,
    (rows, count): (usize, usize),
    (matrix, sum): (&Rc<Matrix>, Sum),
) -> cuda::Result<Part> {
    let device = &operands.device;
    let (outputs, inputs) = (matrix.num_outputs, matrix.num_inputs);
    let x = operands.bf16s(rows * inputs)?;
    let mut y = device.zeros::<Y>(rows * outputs)?;
    // What is added to is read before.
    let times = if sum == Sum::Add { 2 } else { 1 };
    let activations = rows * (2 * inputs + times * outputs * size_of::<Y>());
    let kernels = match &matrix.copies {
        Copies::Bf16(copies) => {
            let factors = (&x.as_view(), &copies[0].as_view());
            device.linear_kernels(factors, (&mut y.as_view_mut(), sum), inputs, MAX_KERNELS)?
        }
        Copies::Int8(_) => Vec::new(),
    };
    Ok(Part {
        name,
        rows,
        count,
        num_bytes: matrix.num_bytes() + activations,
        num_flops: 2 * rows * outputs * inputs,
        num_copies: matrix.num_copies(),
        run: multiply(operands, Rc::clone(matrix), x, (y, sum))?,
        kernels,
    })
}

/// As the network's products: int8 as it is for few rows, widened for many.
fn multiply<Y: Output>(
    operands: &Operands,
    matrix: Rc<Matrix>,
    x: CudaSlice<bf16>,
    (mut y, sum): (CudaSlice<Y>, Sum),
) -> cuda::Result<Run> {
    let (device, inputs) = (operands.device.clone(), matrix.num_inputs);
    let is_widened =
        matches!(matrix.copies, Copies::Int8(_)) && x.len() / inputs > bf16::MAX_INT8_ROWS;
    let mut widened = device.zeros(if is_widened {
        matrix.num_outputs * inputs
    } else {
        0
    })?;
    Ok(Box::new(move |turn: Turn<'_>| {
        let (x, mut y) = (x.as_view(), y.as_view_mut());
        let to = (&mut y, sum);
        match &matrix.copies {
            Copies::Bf16(copies) => {
                let w = copies[turn.copy].as_view();
                match turn.kernel {
                    Some(kernel) => device.linear_by(kernel, (&x, &w), to, inputs),
                    None => device.linear(&x, &w, to, inputs),
                }
            }
            Copies::Int8(copies) if is_widened => {
                copies[turn.copy].widen(&device, &mut widened)?;
                device.linear(&x, &widened.as_view(), to, inputs)
            }
            Copies::Int8(copies) => {
                let w = Int8View {
                    values: &copies[turn.copy].values.as_view(),
                    scales: &copies[turn.copy].scales.as_view(),
                };
                cuda::int8_linear(&device, &x, &w, to, inputs)
            }
        }
    }))
}
