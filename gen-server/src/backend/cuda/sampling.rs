//! What the rows of a step are for, as the kernels want it, and what they came to.

use std::{collections::BTreeMap, ops::Range};

use cuda::{
    CudaSlice, CudaView, Device, Float, LogitEdit, MAX_CANDIDATES, Pinned, Result, RowPurpose,
    SampleOutput, SampleRow, SampledRows, sample,
};
use model::gpu::{Arena, Network};

use crate::{
    engine::{
        batch::{LogitsRow, Purpose, StepBatch},
        runner::Sampled,
        sampler::Draw,
    },
    request::TokenLogprobs,
};

/// Changes of single logits that a graph has room for: more than steps without penalties have.
pub(super) const MAX_GRAPH_EDITS: usize = 1 << 16;

/// The GPU's side: parameters of the rows, and what they came to.
#[derive(Debug)]
pub(super) struct Sampler {
    rows: CudaSlice<SampleRow>,
    /// Graphs know where these are.
    edits: CudaSlice<LogitEdit>,
    /// Of a step that has more.
    many_edits: CudaSlice<LogitEdit>,
    /// Pieces of at most `logits_rows` rows, one after the other.
    drawn: CudaSlice<u32>,
    logits_rows: usize,
}

/// The host's side, of one step under way.
#[derive(Debug)]
pub(super) struct Drawing {
    rows: Pinned<SampleRow>,
    edits: Vec<LogitEdit>,
    drawn: Pinned<u32>,
    /// Of each row, how many candidates to tell; `None`: no log probabilities.
    num_candidates: Vec<Option<u32>>,
    /// Rows of the step, padding included.
    num_rows: usize,
}

impl Sampler {
    pub(super) fn new(device: &Device, num_rows: usize, logits_rows: usize) -> Result<Self> {
        Ok(Self {
            rows: device.zeros(num_rows)?,
            edits: device.zeros(MAX_GRAPH_EDITS)?,
            many_edits: device.zeros(0)?,
            drawn: device.zeros(SampleOutput::len(num_rows, MAX_CANDIDATES))?,
            logits_rows,
        })
    }

    /// What the step before came to, for the tokens that are carried from it.
    pub(super) fn drawn(&self) -> CudaView<'_, u32> {
        self.drawn.as_view()
    }

    /// Starts to copy what a step's rows are for.
    pub(super) fn send(&mut self, device: &Device, drawing: &Drawing) -> Result<()> {
        device.send(&drawing.rows, drawing.num_rows, &mut self.rows)?;
        let edits = &drawing.edits;
        if edits.len() <= MAX_GRAPH_EDITS {
            return device.write(edits, &mut self.edits);
        }
        if self.many_edits.len() < edits.len() {
            self.many_edits = device.zeros(edits.len().next_power_of_two())?;
        }
        device.write(edits, &mut self.many_edits)
    }

    /// Logits of the step's rows and a token for each, a piece of rows after another.
    pub(super) fn draw<A: Float>(
        &mut self,
        (network, arena): (&mut Network<A>, &Arena<A>),
        num_rows: usize,
        num_edits: usize,
    ) -> model::error::Result<()> {
        let device = network.device().clone();
        let edits = if num_edits <= MAX_GRAPH_EDITS {
            &mut self.edits
        } else {
            &mut self.many_edits
        };
        for (rows, words) in pieces(num_rows, self.logits_rows) {
            let mut logits = network.logits(arena, rows.clone())?;
            let mut output = SampleOutput {
                words: &mut self.drawn.slice_mut(words),
                max_candidates: MAX_CANDIDATES,
            };
            let rows = self.rows.slice(rows);
            let mut edits = edits.as_view_mut();
            sample(&device, &mut logits, &rows, &mut edits, &mut output)?;
        }
        Ok(())
    }

    /// Starts to bring back what the step's rows came to.
    pub(super) fn receive(&self, device: &Device, drawing: &mut Drawing) -> Result<()> {
        let words = SampleOutput::len(drawing.num_rows, MAX_CANDIDATES);
        device.receive(&self.drawn.slice(..words), &mut drawing.drawn)
    }
}

impl Drawing {
    pub(super) fn new(device: &Device, num_rows: usize) -> Result<Self> {
        Ok(Self {
            rows: device.pinned(num_rows)?,
            edits: Vec::new(),
            drawn: device.pinned(SampleOutput::len(num_rows, MAX_CANDIDATES))?,
            num_candidates: Vec::new(),
            num_rows: 0,
        })
    }

    pub(super) fn num_edits(&self) -> usize {
        self.edits.len()
    }

    /// Takes over what the rows of `batch` are for, padded to `num_rows`.
    pub(super) fn fill(&mut self, batch: &StepBatch, num_rows: usize) -> Result<()> {
        self.num_rows = num_rows;
        self.edits.clear();
        self.num_candidates.clear();
        let rows = self.rows.as_mut_slice()?;
        for (to, row) in rows.iter_mut().zip(&batch.rows) {
            let drawing = &batch.drawings[row.drawing as usize];
            let num_candidates = match row.purpose {
                Purpose::Draw => drawing.num_candidates,
                Purpose::Score(_) => Some(drawing.num_candidates.unwrap_or(0)),
            };
            self.num_candidates.push(num_candidates);
            *to = sample_row(batch, row, &mut self.edits);
            to.num_candidates = num_candidates.unwrap_or(SampleRow::NO_LOGPROBS);
        }
        let padding = SampleRow {
            purpose: RowPurpose::Padding,
            ..SampleRow::default()
        };
        rows[batch.rows.len()..num_rows].fill(padding);
        Ok(())
    }

    /// What each row of the step came to, once it has been brought back.
    pub(super) fn outcomes(
        &self,
        logits_rows: usize,
        outcomes: &mut Vec<Option<Sampled>>,
    ) -> Result<()> {
        outcomes.clear();
        let words = self.drawn.as_slice()?;
        for (rows, piece) in pieces(self.num_rows, logits_rows) {
            let sampled = SampledRows::new(&words[piece], rows.len(), MAX_CANDIDATES)?;
            let asked = self.num_candidates.iter().enumerate();
            for (row, num_candidates) in asked.take(rows.end).skip(rows.start) {
                outcomes.push(outcome(&sampled, row - rows.start, *num_candidates));
            }
        }
        Ok(())
    }
}

/// A step's rows in pieces of at most `logits_rows`, and of each piece the words that it comes to.
fn pieces(
    num_rows: usize,
    logits_rows: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    (0..num_rows).step_by(logits_rows).map(move |start| {
        let end = num_rows.min(start + logits_rows);
        let word = |row| SampleOutput::len(row, MAX_CANDIDATES);
        (start..end, word(start)..word(end))
    })
}

/// Where among the words that a step's rows came to the token of a row is.
pub(super) fn word_of(row: u32, logits_rows: usize) -> u32 {
    let first = row as usize / logits_rows * logits_rows;
    (SampleOutput::len(first, MAX_CANDIDATES) + row as usize - first) as u32
}

fn outcome(sampled: &SampledRows<'_>, row: usize, num_candidates: Option<u32>) -> Option<Sampled> {
    let token = sampled.token(row)?;
    let logprobs = num_candidates.map(|count| {
        let found = sampled.logprobs(row, count as usize);
        TokenLogprobs {
            logprob: found.logprob,
            rank: found.rank,
            candidates: found.candidates,
        }
    });
    Some(Sampled { token, logprobs })
}

/// What is asked of a row, and its edits; see [`crate::engine::sampler`] for what they mean.
fn sample_row(batch: &StepBatch, row: &LogitsRow, edits: &mut Vec<LogitEdit>) -> SampleRow {
    if let Purpose::Score(token) = row.purpose {
        return SampleRow {
            purpose: RowPurpose::Score,
            scored: token,
            ..SampleRow::default()
        };
    }
    let draw = Draw::of(batch, row);
    let sampling = draw.sampling;
    let first_edit = edits.len();
    push_edits(&draw, edits);
    SampleRow {
        purpose: RowPurpose::Draw,
        seed: sampling.seed,
        position: row.position,
        temperature: sampling.temperature,
        min_p: sampling.min_p,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        repetition_penalty: sampling.repetition_penalty,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        first_edit: first_edit as u32,
        num_edits: (edits.len() - first_edit) as u32,
        ..SampleRow::default()
    }
}

/// One edit for each token whose logit changes, in the order of the tokens.
fn push_edits(draw: &Draw<'_>, edits: &mut Vec<LogitEdit>) {
    if !draw.changes_logits() {
        return;
    }
    let mut by_token = BTreeMap::<u32, LogitEdit>::new();
    let mut change = |token: u32, change: &dyn Fn(LogitEdit) -> LogitEdit| {
        let edit = by_token.entry(token).or_insert(LogitEdit::new(token));
        *edit = change(*edit);
    };
    for &(token, bias) in &draw.sampling.logit_bias {
        change(token, &|edit| edit.bias(bias));
    }
    if !draw.may_stop() {
        for &token in &draw.stopping.token_ids {
            change(token, &LogitEdit::forbidden);
        }
    }
    if draw.sampling.has_penalties() {
        let mut num_in_answer = BTreeMap::new();
        draw.count_seen(&mut num_in_answer);
        for (&token, &count) in &num_in_answer {
            change(token, &|edit| edit.seen(count));
        }
    }
    edits.extend(by_token.into_values());
}
