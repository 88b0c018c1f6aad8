//! Rows of x as the words that a product multiplies with (see [`super`]).
#![expect(
    unsafe_code,
    reason = "tasks write their rows, which are not neighbours"
)]
#![expect(non_snake_case, reason = "tensors end in their shape")]

use pulp::Arch;

use super::weight::{RUN, WeightFormat, inverse};
use crate::crew::{Crew, Shareable};
use crate::step::{INT8_GROUP, RowGroup, bf16_pair};

/// x_TC in words, by run, row and word of the run, so that the rows of a run are neighbours.
#[derive(Debug)]
pub struct Activations {
    format: WeightFormat,
    num_rows: usize,
    num_inputs: usize,
    words: Vec<u32>,
    /// [row][group], int8 only.
    groups: Vec<RowGroup>,
}

/// Elements that make a task: some microseconds of work.
const MIN_TASK_ELEMENTS: usize = 1 << 14;

impl Activations {
    /// Empty; `format` is that of the weights it is for. Its memory is used again and again.
    pub fn new(format: WeightFormat) -> Self {
        Self {
            format,
            num_rows: 0,
            num_inputs: 0,
            words: Vec::new(),
            groups: Vec::new(),
        }
    }

    pub fn format(&self) -> WeightFormat {
        self.format
    }

    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    pub fn num_inputs(&self) -> usize {
        self.num_inputs
    }

    /// The words of a run of some rows, from row `first` on, a run's length apart.
    pub(crate) fn run(&self, run: usize, first: usize) -> &[u32] {
        &self.words[(run * self.num_rows + first) * RUN..]
    }

    /// What belongs to a row's groups, from one on; nothing in formats that have none.
    #[inline(always)]
    pub(super) fn groups(&self, row: usize, group: usize) -> &[RowGroup] {
        match self.format {
            WeightFormat::Int8 => {
                &self.groups[row * self.num_inputs.div_ceil(INT8_GROUP) + group..]
            }
            _ => &[],
        }
    }

    /// Takes the rows of `x_TC`, `num_inputs` long.
    pub fn fill_from(&mut self, x_TC: &[f32], num_inputs: usize, crew: &Crew) {
        let num_rows = x_TC.len() / num_inputs.max(1);
        self.fill((num_rows, num_inputs), crew, |t, row| {
            row.copy_from_slice(&x_TC[t * num_inputs..(t + 1) * num_inputs]);
        });
    }

    /// Takes `num_rows` rows of `num_inputs` values: `fill(t, row)` writes row t.
    pub fn fill(
        &mut self,
        (num_rows, num_inputs): (usize, usize),
        crew: &Crew,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        (self.num_rows, self.num_inputs) = (num_rows, num_inputs);
        let format = self.format;
        let num_runs = num_inputs.div_ceil(format.per_word()).div_ceil(RUN);
        let num_groups = match format {
            WeightFormat::Int8 => num_inputs.div_ceil(INT8_GROUP),
            _ => 0,
        };
        // Only ever longer: what is left of larger batches is not looked at.
        self.words
            .resize(self.words.len().max(num_runs * num_rows * RUN), 0);
        let groups_len = self.groups.len().max(num_rows * num_groups);
        self.groups.resize(groups_len, RowGroup::default());
        let rows_per_task = MIN_TASK_ELEMENTS.div_ceil(num_inputs.max(1));
        let words = Shareable(self.words.as_mut_ptr());
        let groups = Shareable(self.groups.as_mut_ptr());
        crew.for_each(num_rows.div_ceil(rows_per_task), |task| {
            let mut values = vec![0.0; num_inputs];
            let first = task * rows_per_task;
            for row in first..num_rows.min(first + rows_per_task) {
                fill(row, &mut values);
                // SAFETY: these groups lie in `groups`, and only this task has the row.
                let groups = unsafe {
                    let start = groups.get().add(row * num_groups);
                    std::slice::from_raw_parts_mut(start, num_groups)
                };
                for (run, values) in values.chunks(RUN * format.per_word()).enumerate() {
                    // SAFETY: as above: the run of the row lies in `words`.
                    let words = unsafe {
                        let start = words.get().add((run * num_rows + row) * RUN);
                        std::slice::from_raw_parts_mut(start, RUN)
                    };
                    let first_group = (run * RUN * 4 / INT8_GROUP).min(num_groups);
                    let groups = &mut groups[first_group..];
                    Arch::new().dispatch(|| encode(format, values, (words, groups)));
                }
            }
        });
    }
}

/// Writes the words of at most a run of values; a last word that is not full ends in zeros.
#[inline(always)]
fn encode(format: WeightFormat, values: &[f32], (words, groups): (&mut [u32], &mut [RowGroup])) {
    match format {
        WeightFormat::F32 => {
            for (word, value) in words.iter_mut().zip(values) {
                *word = value.to_bits();
            }
        }
        WeightFormat::Bf16 => {
            let (pairs, last) = values.as_chunks::<2>();
            for (word, [low, high]) in words.iter_mut().zip(pairs) {
                *word = bf16_pair(*low, *high);
            }
            if let [last] = last {
                words[pairs.len()] = bf16_pair(*last, 0.0);
            }
        }
        WeightFormat::Int8 => {
            let words = words.chunks_mut(INT8_GROUP / 4).zip(groups);
            for ((words, group), values) in words.zip(values.chunks(INT8_GROUP)) {
                *group = quantize(values, words);
            }
        }
    }
}

/// 1.5·2^23: adding it leaves a whole number below 2^22 in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// One group: the largest value becomes 127.
#[inline(always)]
fn quantize(values: &[f32], words: &mut [u32]) -> RowGroup {
    let mut padded = [0.0; INT8_GROUP];
    padded[..values.len()].copy_from_slice(values);
    let (mut largest, mut poison) = ([0.0_f32; 16], [0.0_f32; 16]);
    for values in padded.as_chunks::<16>().0 {
        for i in 0..16 {
            largest[i] = largest[i].max(values[i].abs());
            // What is not a number is lost in a maximum; here it stays, and what is finite adds nothing.
            poison[i] += values[i] * 0.0;
        }
    }
    let largest = largest.iter().fold(0.0_f32, |a, b| a.max(*b));
    let scale = largest / 127.0 + poison.iter().sum::<f32>();
    let inverse = inverse(scale);
    let mut bytes = [0_i8; INT8_GROUP];
    let mut sum = 0_i32;
    for (byte, value) in bytes.iter_mut().zip(&padded) {
        // Rounds to even, as `round_ties_even` does, which is a call where SSE4.1 is not assumed.
        let bits = (value * inverse + ROUND).to_bits();
        let whole = bits.wrapping_sub(ROUND.to_bits()).cast_signed();
        *byte = whole as i8;
        // What is not a number has any bits here, and shows in the scale.
        sum = sum.wrapping_add(whole);
    }
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
    }
    RowGroup {
        scale,
        correction: sum.wrapping_mul(-128),
    }
}
