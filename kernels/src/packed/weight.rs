//! A weight matrix in panels (see [`super`]), and how it is filled, row after row.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use super::PANEL;
use crate::error::{Error, Result};
use crate::step::{INT8_GROUP, Line, bf16_pair};
use crate::tensor::shape_error;

/// Element type of a [`Weight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    F32,
    /// Two bytes a weight. x is rounded to bf16 too; sums are f32.
    Bf16,
    /// One byte a weight and an f32 scale for each group of an output's weights. x is quantized in
    /// the same groups, row by row; sums are exact within a group, f32 beyond.
    Int8,
}

impl WeightFormat {
    /// Elements in a word of 32 bits.
    pub(crate) fn per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

/// Words of a run, the part of the inner dimension that is summed before the result goes to memory.
/// 256 words: a panel's run is then 32 KiB, so it stays in a level-1 cache of 48 KiB beside the run
/// of a tile of x (12 KiB).
pub(crate) const RUN: usize = 256;

/// W_OC, packed.
pub struct Weight {
    format: WeightFormat,
    num_outputs: usize,
    num_inputs: usize,
    /// [panel][word][half of the panel]
    lines: Vec<Line>,
    /// [panel][group][output of the panel], int8 only.
    scales: Vec<f32>,
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            format,
            num_outputs,
            num_inputs,
            ..
        } = self;
        write!(f, "Weight({format:?} [{num_outputs}, {num_inputs}])")
    }
}

impl Weight {
    /// O.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// C.
    pub fn num_inputs(&self) -> usize {
        self.num_inputs
    }

    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Bytes that a product reads.
    pub fn num_bytes(&self) -> usize {
        size_of_val(self.lines.as_slice()) + size_of_val(self.scales.as_slice())
    }

    /// Words of a row.
    pub(crate) fn num_words(&self) -> usize {
        self.num_inputs.div_ceil(self.format.per_word())
    }

    pub(crate) fn num_panels(&self) -> usize {
        self.num_outputs.div_ceil(PANEL)
    }

    fn num_groups(&self) -> usize {
        self.num_inputs.div_ceil(INT8_GROUP)
    }

    /// The scales of a panel's 32 outputs from a group on; none in formats that have none.
    pub(crate) fn scales(&self, panel: usize, group: usize) -> &[f32] {
        match self.format {
            WeightFormat::Int8 => &self.scales[(panel * self.num_groups() + group) * PANEL..],
            _ => &[],
        }
    }

    /// The lines of the panels from `first` on.
    pub(crate) fn panels_from(&self, first: usize) -> &[Line] {
        &self.lines[first * 2 * self.num_words()..]
    }

    /// Writes row `index`, C values, as f32: what products multiply with.
    ///
    /// # Panics
    /// When there is no such row or `out` has another length.
    pub fn copy_row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.num_outputs, "row {index} of {self:?}");
        assert_eq!(out.len(), self.num_inputs, "a row of {self:?}");
        let words = self.panels_from(index / PANEL);
        let (half, lane) = (index % PANEL / 16, index % 16);
        let word = |k: usize| words[2 * k + half].0[lane];
        match self.format {
            WeightFormat::F32 => {
                for (k, value) in out.iter_mut().enumerate() {
                    *value = f32::from_bits(word(k));
                }
            }
            WeightFormat::Bf16 => {
                for (k, pair) in out.chunks_mut(2).enumerate() {
                    let word = word(k);
                    pair[0] = f32::from_bits(word << 16);
                    if let Some(high) = pair.get_mut(1) {
                        *high = f32::from_bits(word & 0xFFFF_0000);
                    }
                }
            }
            WeightFormat::Int8 => {
                for (k, four) in out.chunks_mut(4).enumerate() {
                    let group = 4 * k / INT8_GROUP;
                    let scale = self.scales(index / PANEL, group)[index % PANEL];
                    for (value, byte) in four.iter_mut().zip(word(k).to_le_bytes()) {
                        *value = (f32::from(byte) - 128.0) * scale;
                    }
                }
            }
        }
    }
}

/// A [`Weight`] that is being filled: several checkpoint tensors may become one (q, k and v; gate
/// and up), and none of them need be in memory any longer than it is read.
#[derive(Debug)]
pub struct WeightBuilder {
    weight: Weight,
    num_filled: usize,
}

impl WeightBuilder {
    /// Room for `num_outputs` rows of `num_inputs` values.
    pub fn new(format: WeightFormat, num_outputs: usize, num_inputs: usize) -> Result<Self> {
        let mut weight = Weight {
            format,
            num_outputs,
            num_inputs,
            lines: Vec::new(),
            scales: Vec::new(),
        };
        let num_lines = 2 * weight.num_panels() * weight.num_words();
        let num_scales = match format {
            WeightFormat::Int8 => weight.num_panels() * weight.num_groups() * PANEL,
            _ => 0,
        };
        if weight.lines.try_reserve_exact(num_lines).is_err()
            || weight.scales.try_reserve_exact(num_scales).is_err()
        {
            return Err(Error::Value {
                op: "WeightBuilder::new",
                argument: "the weight's size",
                expected: "a size that fits in memory".to_owned(),
                found: format!("{weight:?}"),
            });
        }
        // Rows that are not there are computed and dropped; inputs that are not there meet zeros.
        weight.lines.resize(num_lines, Line([0; 16]));
        weight.scales.resize(num_scales, 0.0);
        Ok(Self {
            weight,
            num_filled: 0,
        })
    }

    /// The next rows, [any, C] row-major.
    pub fn push_rows(&mut self, rows: &[f32]) -> Result<()> {
        let weight = &mut self.weight;
        let C = weight.num_inputs;
        let num_rows = rows.len() / C.max(1);
        let fits = num_rows * C == rows.len() && self.num_filled + num_rows <= weight.num_outputs;
        if !fits {
            let room = weight.num_outputs - self.num_filled;
            let expected = format!("[at most {room}, {C}]");
            return Err(shape_error(
                "WeightBuilder",
                "rows",
                &expected,
                &[rows.len()],
            ));
        }
        let mut rows = rows.chunks_exact(C.max(1)).peekable();
        while rows.peek().is_some() {
            // Up to the end of a half panel, so that its lines are written once, front to back.
            let room = 16 - self.num_filled % 16;
            let some: Vec<&[f32]> = rows.by_ref().take(room).collect();
            weight.put_rows(self.num_filled, &some);
            self.num_filled += some.len();
        }
        Ok(())
    }

    /// The weight, all of whose rows are there.
    pub fn finish(self) -> Result<Weight> {
        if self.num_filled != self.weight.num_outputs {
            let expected = format!("[{}]", self.weight.num_outputs);
            return Err(shape_error(
                "WeightBuilder",
                "rows",
                &expected,
                &[self.num_filled],
            ));
        }
        Ok(self.weight)
    }
}

impl Weight {
    /// All of a matrix at once.
    pub fn pack(format: WeightFormat, rows: &[f32], num_inputs: usize) -> Result<Self> {
        let mut builder = WeightBuilder::new(format, rows.len() / num_inputs.max(1), num_inputs)?;
        builder.push_rows(rows)?;
        builder.finish()
    }

    /// Rows `first` and on, which lie in one half of a panel.
    fn put_rows(&mut self, first: usize, rows: &[&[f32]]) {
        if self.format == WeightFormat::Int8 {
            self.put_scales(first, rows);
        }
        let start = first / PANEL * 2 * self.num_words() + first % PANEL / 16;
        let (lane, num_words, num_groups) = (first % 16, self.num_words(), self.num_groups());
        let format = self.format;
        let lines = self.lines[start..].iter_mut().step_by(2).take(num_words);
        for (k, line) in lines.enumerate() {
            let scales = first / PANEL * num_groups + 4 * k / INT8_GROUP;
            for (i, (word, row)) in line.0[lane..].iter_mut().zip(rows).enumerate() {
                *word = match format {
                    WeightFormat::F32 => row[k].to_bits(),
                    WeightFormat::Bf16 => {
                        bf16_pair(row[2 * k], row.get(2 * k + 1).copied().unwrap_or(0.0))
                    }
                    WeightFormat::Int8 => {
                        let scale = self.scales[scales * PANEL + first % PANEL + i];
                        let four = &row[4 * k..row.len().min(4 * k + 4)];
                        quantized_word(four, scale)
                    }
                };
            }
        }
    }

    /// The largest value of a group is 127 times its scale.
    fn put_scales(&mut self, first: usize, rows: &[&[f32]]) {
        let num_groups = self.num_groups();
        for (i, row) in rows.iter().enumerate() {
            let index = first + i;
            for (g, group) in row.chunks(INT8_GROUP).enumerate() {
                let largest = group
                    .iter()
                    .fold(0.0_f32, |max, value| max.max(value.abs()));
                let place = (index / PANEL * num_groups + g) * PANEL + index % PANEL;
                self.scales[place] = largest / 127.0;
            }
        }
    }
}

/// Up to four weights, each a byte that is 128 too large.
fn quantized_word(four: &[f32], scale: f32) -> u32 {
    let inverse = inverse(scale);
    let byte = |i: usize| {
        let value = four.get(i).map_or(0.0, |value| value * inverse);
        (value.round_ties_even() + 128.0) as u8
    };
    u32::from_le_bytes(std::array::from_fn(byte))
}

/// What values are multiplied by to become whole numbers of `scale`.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}
