//! From logits to tokens, with log probabilities.
#![expect(
    unsafe_code,
    reason = "a kernel is launched with the arguments it is declared with"
)]

use cudarc::driver::{
    CudaView, CudaViewMut, DevicePtrMut, DeviceRepr, PushKernelArg, ValidAsZeroBits,
};

use crate::{
    Device,
    error::{Error, Result, expect_len},
    launch::blocks,
};

/// Candidates that a row may ask for.
pub const MAX_CANDIDATES: usize = 32;

/// What a row of logits is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum RowPurpose {
    /// To draw a token.
    Draw = 0,
    /// To tell how likely [`SampleRow::scored`] was.
    Score = 1,
    /// Nothing: what fills up a recorded graph.
    #[default]
    Padding = 2,
}

/// How a row's token is drawn. Fields are as in the requests' sampling parameters.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct SampleRow {
    pub seed: u64,
    /// Place of the token in its sequence: the counter of the random numbers.
    pub position: u64,
    pub temperature: f32,
    pub min_p: f32,
    pub top_p: f32,
    /// 0: all.
    pub top_k: u32,
    pub purpose: RowPurpose,
    pub scored: u32,
    /// How many of the most likely tokens to tell, or [`SampleRow::NO_LOGPROBS`].
    pub num_candidates: u32,
    pub repetition_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    /// Its part of the edits.
    pub first_edit: u32,
    pub num_edits: u32,
}

impl SampleRow {
    /// Neither log probabilities nor rank are computed.
    pub const NO_LOGPROBS: u32 = u32::MAX;
}

/// What changes one logit of a row, in this order: the bias is added; what is forbidden becomes -∞;
/// penalties of tokens seen before. A token may come once in a row's edits; one beyond the
/// vocabulary changes nothing.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct LogitEdit {
    token: u32,
    bias: f32,
    marks: u32,
    /// The logit as it was, while the kernel runs.
    saved: f32,
}

impl LogitEdit {
    const FORBIDDEN: u32 = 1;
    const SEEN: u32 = 2;

    pub fn new(token: u32) -> Self {
        Self {
            token,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn bias(self, bias: f32) -> Self {
        Self { bias, ..self }
    }

    /// The token may not come yet.
    #[must_use]
    pub fn forbidden(self) -> Self {
        Self {
            marks: self.marks | Self::FORBIDDEN,
            ..self
        }
    }

    /// The token came in the prompt, or `num_in_answer` times in the answer, or both.
    #[must_use]
    pub fn seen(self, num_in_answer: u32) -> Self {
        Self {
            marks: self.marks | Self::SEEN | num_in_answer << 2,
            ..self
        }
    }
}

// SAFETY: plain numbers, laid out as the kernel declares them.
unsafe impl DeviceRepr for SampleRow {}
// SAFETY: all zero bits are numbers, and purpose `Draw`.
unsafe impl ValidAsZeroBits for SampleRow {}
// SAFETY: as above.
unsafe impl DeviceRepr for LogitEdit {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for LogitEdit {}

/// Where results of R rows go: [`SampleOutput::len`] words, for one copy to the host. The first R
/// are the tokens, for [`carry_tokens`](crate::carry_tokens).
#[derive(Debug)]
pub struct SampleOutput<'a, 'b> {
    pub words: &'a mut CudaViewMut<'b, u32>,
    /// The most that any row asks for.
    pub max_candidates: usize,
}

impl SampleOutput<'_, '_> {
    /// Words of `num_rows` rows: tokens, whether they are bad, log probabilities, ranks, candidates
    /// and theirs.
    pub fn len(num_rows: usize, max_candidates: usize) -> usize {
        num_rows * (4 + 2 * max_candidates)
    }
}

/// Addresses of the parts of [`SampleOutput`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Parts([u64; 6]);
// SAFETY: addresses, as the kernel declares them.
unsafe impl DeviceRepr for Parts {}

/// Draws or scores a token for each row of `logits` \[R, V\] with the semantics of the server's
/// sampler. `rows` \[R\]; `edits` of all rows, of which the kernel uses a field. Logits are changed
/// for the time of the kernel only. The temperature of a draw is 0 or a normal number, V at most
/// 2²².
pub fn sample(
    device: &Device,
    logits: &mut CudaViewMut<'_, f32>,
    rows: &CudaView<'_, SampleRow>,
    edits: &mut CudaViewMut<'_, LogitEdit>,
    output: &mut SampleOutput<'_, '_>,
) -> Result<()> {
    const OP: &str = "sample";
    let (num_rows, max_candidates) = (rows.len(), output.max_candidates);
    if max_candidates > MAX_CANDIDATES {
        let expected = format!("at most {MAX_CANDIDATES}");
        return Err(Error::argument(OP, "candidates", expected, max_candidates));
    }
    let len = SampleOutput::len(num_rows, max_candidates);
    expect_len(OP, "output", len, output.words.len())?;
    if num_rows == 0 {
        return Ok(());
    }
    let vocabulary = logits.len() / num_rows;
    expect_len(OP, "logits", num_rows * vocabulary, logits.len())?;
    if vocabulary == 0 || vocabulary > 1 << 22 {
        return Err(Error::argument(OP, "V", "1 to 2²²", vocabulary));
    }
    let function = device.function(OP)?;
    // Sums of a draw are the same whatever the number of threads.
    let num_threads = (vocabulary / 4).next_multiple_of(32).clamp(64, 1024) as u32;
    let (vocabulary, most, num_edits) =
        (vocabulary as i32, max_candidates as i32, edits.len() as i32);
    let (words, _words) = output.words.device_ptr_mut(device.stream());
    let part = |start: usize| words + 4 * (start * num_rows) as u64;
    let parts = Parts([
        part(0),
        part(1),
        part(2),
        part(3),
        part(4),
        part(4 + max_candidates),
    ]);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(logits).arg(rows).arg(edits).arg(&parts);
    launch.arg(&vocabulary).arg(&most).arg(&num_edits);
    // SAFETY: lengths were checked; the kernel compares rows' edits with their number, and tokens
    // with V.
    unsafe { launch.launch(blocks(num_rows, num_threads)) }.map_err(Error::driver(OP))?;
    Ok(())
}

/// What [`sample`] found, on the host.
#[derive(Debug, Clone, Copy)]
pub struct SampledRows<'a> {
    words: &'a [u32],
    num_rows: usize,
    max_candidates: usize,
}

/// Log probability and rank of a token, of a row that asked for them.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledLogprobs {
    pub logprob: f32,
    /// 1 is the most likely.
    pub rank: u32,
    /// Most likely first; of equals the first.
    pub candidates: Vec<(u32, f32)>,
}

impl<'a> SampledRows<'a> {
    /// `words` as [`sample`] wrote them.
    pub fn new(words: &'a [u32], num_rows: usize, max_candidates: usize) -> Result<Self> {
        let len = SampleOutput::len(num_rows, max_candidates);
        expect_len("sample", "words", len, words.len())?;
        Ok(Self {
            words,
            num_rows,
            max_candidates,
        })
    }

    /// The token of a row; `None` if a logit is not a number or +∞, or all are -∞, and for padding.
    pub fn token(&self, row: usize) -> Option<u32> {
        (self.words[self.num_rows + row] == 0).then(|| self.words[row])
    }

    /// Of a row that has a token and asked for `num_candidates` of a vocabulary.
    pub fn logprobs(&self, row: usize, num_candidates: usize) -> SampledLogprobs {
        let at = |part: usize| self.words[part * self.num_rows + row];
        let first = 4 * self.num_rows + row * self.max_candidates;
        let second = first + self.num_rows * self.max_candidates;
        let candidate = |index: usize| {
            (
                self.words[first + index],
                f32::from_bits(self.words[second + index]),
            )
        };
        SampledLogprobs {
            logprob: f32::from_bits(at(2)),
            rank: at(3),
            candidates: (0..num_candidates.min(self.max_candidates))
                .map(candidate)
                .collect(),
        }
    }
}
