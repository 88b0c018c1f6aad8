//! Block-wise 8-bit storage of moments: Dettmers et al., "8-bit Optimizers via Block-wise
//! Quantization" (arXiv 2110.02861). Each block of 256 values is divided by its largest magnitude, and
//! each quotient becomes the nearest of 256 values of the "dynamic tree" code: seven decades, the
//! larger ones divided more finely.

use std::sync::LazyLock;

use super::BLOCK;

/// Codes of a tensor's values, and a scale for each block of 256.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    pub codes: Vec<u8>,
    /// The largest magnitude of each block.
    pub scales: Vec<f32>,
}

impl Quantized {
    pub(super) fn zeros(len: usize) -> Self {
        Self {
            // Under a scale of 0 every code is 0.
            codes: vec![0; len],
            scales: vec![0.0; Self::num_scales(len)],
        }
    }

    /// Of so many values.
    pub fn num_scales(len: usize) -> usize {
        len.div_ceil(BLOCK)
    }

    pub(super) fn as_mut(&mut self) -> QuantizedMut<'_> {
        QuantizedMut {
            codes: &mut self.codes,
            scales: &mut self.scales,
        }
    }
}

/// Whole blocks of a [`Quantized`].
pub(super) struct QuantizedMut<'a> {
    codes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl QuantizedMut<'_> {
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let (codes, rest_codes) = self.codes.split_at_mut(at);
        let (scales, rest_scales) = self.scales.split_at_mut(at.div_ceil(BLOCK));
        (
            Self { codes, scales },
            Self {
                codes: rest_codes,
                scales: rest_scales,
            },
        )
    }

    /// The values of the one block that this is.
    #[inline(always)]
    pub(super) fn widen(&self, code: Code, values: &mut [f32; BLOCK]) {
        let table = code.table();
        let scale = self.scales[0];
        for (value, code) in values.iter_mut().zip(self.codes.iter()) {
            *value = scale * table.values[*code as usize];
        }
    }

    /// Replaces the one block that this is.
    #[inline(always)]
    pub(super) fn store(&mut self, code: Code, values: &[f32]) {
        let table = code.table();
        let largest = values.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        self.scales[0] = largest;
        // A block of zeros, or of values so small that the quotient is not a number.
        let inverse = largest.recip();
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        for (stored, value) in self.codes.iter_mut().zip(values) {
            *stored = table.nearest(value * inverse);
        }
    }
}

/// The two codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// −1 to 1, for the first moment.
    Signed,
    /// Above 0 to 1, for the second moment. It has no 0: a second moment that rounds to 0 while the
    /// first does not would make a huge step (arXiv 2309.01507, section 3).
    Unsigned,
}

impl Code {
    #[inline(always)]
    fn table(self) -> &'static Table {
        static SIGNED: LazyLock<Table> = LazyLock::new(|| Table::new(Code::Signed));
        static UNSIGNED: LazyLock<Table> = LazyLock::new(|| Table::new(Code::Unsigned));
        match self {
            Self::Signed => &SIGNED,
            Self::Unsigned => &UNSIGNED,
        }
    }
}

/// The values of a code, rising, and the borders between them.
struct Table {
    values: [f32; 256],
    /// `borders[i]` lies between values i and i + 1; the last is never passed.
    borders: [f32; 256],
}

/// 256 values and the 256 borders between them of the first moment's code, then of the second's: for a
/// device that keeps moments in these codes, too.
pub fn moment_tables() -> Vec<f32> {
    let codes = [Code::Signed, Code::Unsigned].map(Code::table);
    let parts = codes.iter().flat_map(|table| [table.values, table.borders]);
    parts.flatten().collect()
}

/// Decades below 1 that the code reaches.
const DECADES: i32 = 7;

impl Table {
    /// Decade d (0 is that just below 1) is cut into 2^(6−d) equal parts for each sign, or twice as
    /// many where there is one sign; the values are the middles of the parts. 1 is added to both
    /// codes, 0 to the signed one.
    fn new(code: Code) -> Self {
        let mut values = vec![1.0];
        for decade in 0..DECADES {
            let parts = match code {
                Code::Signed => 1 << (DECADES - 1 - decade),
                Code::Unsigned => 2 << (DECADES - 1 - decade),
            };
            let scale = 10.0_f64.powi(-decade);
            for part in 0..parts {
                let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
                values.push(scale * middle);
                if code == Code::Signed {
                    values.push(-scale * middle);
                }
            }
        }
        // One more value makes 256: 0, or one below the smallest.
        values.push(match code {
            Code::Signed => 0.0,
            Code::Unsigned => 0.1 * 10.0_f64.powi(1 - DECADES),
        });
        values.sort_by(f64::total_cmp);
        let mut table = Self {
            values: [0.0; 256],
            borders: [f32::INFINITY; 256],
        };
        for (at, value) in values.iter().enumerate() {
            table.values[at] = *value as f32;
        }
        for (at, pair) in values.windows(2).enumerate() {
            table.borders[at] = (0.5 * (pair[0] + pair[1])) as f32;
        }
        table
    }

    /// The code whose value is nearest, by halving: eight comparisons, no branch.
    #[inline(always)]
    fn nearest(&self, value: f32) -> u8 {
        let mut code = 0_usize;
        let mut half = 128;
        while half > 0 {
            code += if value > self.borders[code + half - 1] {
                half
            } else {
                0
            };
            half /= 2;
        }
        code as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 rising values that span the code's range, and every value is its own nearest.
    #[test]
    fn codes_are_complete() {
        for (code, least) in [(Code::Signed, -0.995), (Code::Unsigned, 1e-7)] {
            let table = code.table();
            assert!(table.values.windows(2).all(|pair| pair[0] < pair[1]));
            assert!((table.values[0] - least).abs() < 1e-2 * least.abs());
            assert!((table.values[255] - 1.0).abs() < 1e-6);
            for (at, value) in table.values.iter().enumerate() {
                assert_eq!(usize::from(table.nearest(*value)), at);
            }
        }
        assert!(Code::Signed.table().values.contains(&0.0));
    }

    /// A value is found again to within half a part of its block's range.
    #[test]
    fn values_come_back_nearly() {
        let values: Vec<f32> = (0..300)
            .map(|i| ((i * 37 % 300) as f32 - 150.0) * 1e-4)
            .collect();
        let mut stored = Quantized::zeros(300);
        let (mut first, mut second) = stored.as_mut().split_at(256);
        first.store(Code::Signed, &values[..256]);
        second.store(Code::Signed, &values[256..]);
        let mut wide = [0.0; BLOCK];
        first.widen(Code::Signed, &mut wide);
        for (found, value) in wide.iter().zip(&values) {
            // The widest parts are 0.9/64 of the block's largest value, 0.015.
            let bound = 0.5 * 0.9 / 64.0 * 0.0151;
            assert!((found - value).abs() <= bound, "{value} became {found}");
        }
    }

    /// Zeros stay zeros, and a second moment that is not zero never becomes zero.
    #[test]
    fn zero_is_kept_apart() {
        let mut stored = Quantized::zeros(4);
        let mut wide = [1.0; BLOCK];
        stored.as_mut().widen(Code::Signed, &mut wide);
        assert_eq!(wide[..4], [0.0; 4]);
        stored
            .as_mut()
            .store(Code::Unsigned, &[1.0, 1e-12, 0.0, 0.5]);
        stored.as_mut().widen(Code::Unsigned, &mut wide);
        assert!(wide[1] > 0.0);
    }
}
