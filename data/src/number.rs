//! Exact numbers: what answers are compared as.
//!
//! A rational of two `i128` in lowest terms, so that `10.00 = 10`, `3/4 = 0.75` and
//! `192,000,000` stay exact and no tolerance is needed. Arithmetic that leaves `i128` gives `None`.
//! Reading numbers out of text (currency, separators, fractions) lives in [`scan`].

pub mod scan;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A rational number in lowest terms with a positive denominator.
///
/// `Display` writes an integer (`-7`), a finite decimal (`0.75`) or a fraction (`1/3`); each of them
/// parses back to the same number. Serialised as that string.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Number {
    numerator: i128,
    denominator: i128,
}

impl Number {
    pub const ZERO: Number = Number {
        numerator: 0,
        denominator: 1,
    };

    /// `numerator / denominator` in lowest terms; `None` for a zero denominator or where the lowest
    /// terms leave `i128`.
    pub fn new(numerator: i128, denominator: i128) -> Option<Number> {
        let (above, below) = (numerator.unsigned_abs(), denominator.unsigned_abs());
        if below == 0 {
            return None;
        }
        let divisor = gcd(above, below);
        let numerator = if (numerator < 0) == (denominator < 0) {
            i128::try_from(above / divisor).ok()?
        } else {
            0_i128.checked_sub_unsigned(above / divisor)?
        };
        Some(Number {
            numerator,
            denominator: i128::try_from(below / divisor).ok()?,
        })
    }

    /// Reads a text that holds exactly one number in any shape that answers come in (`$1,450.00`,
    /// `25%`, `\frac{3}{4}`, `x = 18`, `18 eggs`); `None` where there is none or more than one.
    pub fn parse(text: &str) -> Option<Number> {
        scan::single(text)
    }

    /// The value of a fraction that is one character.
    fn of_character(character: char) -> Option<Number> {
        let (numerator, denominator) = match character {
            '½' => (1, 2),
            '⅓' => (1, 3),
            '⅔' => (2, 3),
            '¼' => (1, 4),
            '¾' => (3, 4),
            '⅕' => (1, 5),
            '⅖' => (2, 5),
            '⅗' => (3, 5),
            '⅘' => (4, 5),
            '⅙' => (1, 6),
            '⅚' => (5, 6),
            '⅛' => (1, 8),
            '⅜' => (3, 8),
            '⅝' => (5, 8),
            '⅞' => (7, 8),
            _ => return None,
        };
        Number::new(numerator, denominator)
    }

    pub fn numerator(self) -> i128 {
        self.numerator
    }

    /// Always positive.
    pub fn denominator(self) -> i128 {
        self.denominator
    }

    pub fn is_integer(self) -> bool {
        self.denominator == 1
    }

    pub fn checked_neg(self) -> Option<Number> {
        Some(Number {
            numerator: self.numerator.checked_neg()?,
            denominator: self.denominator,
        })
    }

    pub fn checked_abs(self) -> Option<Number> {
        if self.numerator < 0 {
            self.checked_neg()
        } else {
            Some(self)
        }
    }

    pub fn checked_add(self, other: Number) -> Option<Number> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Number::new(
            left.checked_add(right)?,
            self.denominator.checked_mul(other.denominator)?,
        )
    }

    pub fn checked_sub(self, other: Number) -> Option<Number> {
        self.checked_add(other.checked_neg()?)
    }

    pub fn checked_mul(self, other: Number) -> Option<Number> {
        Number::new(
            self.numerator.checked_mul(other.numerator)?,
            self.denominator.checked_mul(other.denominator)?,
        )
    }

    /// `None` also for division by zero.
    pub fn checked_div(self, other: Number) -> Option<Number> {
        Number::new(
            self.numerator.checked_mul(other.denominator)?,
            self.denominator.checked_mul(other.numerator)?,
        )
    }

    /// The largest integer that is not above the number.
    #[must_use]
    pub fn floor(self) -> Number {
        Number {
            numerator: self.numerator.div_euclid(self.denominator),
            denominator: 1,
        }
    }

    /// The nearest `f64`, for plots only: comparisons use the exact value.
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Number of decimals of a finite decimal, or `None` where the decimals never end.
    fn num_decimals(self) -> Option<usize> {
        let (mut rest, mut twos, mut fives) = (self.denominator, 0, 0);
        while rest % 2 == 0 {
            rest /= 2;
            twos += 1;
        }
        while rest % 5 == 0 {
            rest /= 5;
            fives += 1;
        }
        (rest == 1).then_some(twos.max(fives))
    }
}

fn gcd(mut left: u128, mut right: u128) -> u128 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number {
            numerator: i128::from(value),
            denominator: 1,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction =
            |f: &mut fmt::Formatter<'_>| write!(f, "{}/{}", self.numerator, self.denominator);
        if self.is_integer() {
            return write!(f, "{}", self.numerator);
        }
        let Some(num_decimals) = self.num_decimals() else {
            return fraction(f);
        };
        // 10^n over the denominator is whole by the choice of n; it may still not fit.
        let scale = u32::try_from(num_decimals)
            .ok()
            .and_then(|n| 10_u128.checked_pow(n));
        let digits = scale.and_then(|scale| {
            let denominator = self.denominator.unsigned_abs();
            self.numerator
                .unsigned_abs()
                .checked_mul(scale / denominator)
        });
        let (Some(digits), Some(scale)) = (digits, scale) else {
            return fraction(f);
        };
        let sign = if self.numerator < 0 { "-" } else { "" };
        write!(
            f,
            "{sign}{}.{:0num_decimals$}",
            digits / scale,
            digits % scale
        )
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let text = String::deserialize(deserializer)?;
        scan::exact(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("expected a number, found {text:?}")))
    }
}

#[cfg(test)]
mod tests;
