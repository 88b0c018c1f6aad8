//! Equations in running text, such as `48 / 2 = 24` or the chain `20 + 1/4 * 20 = 20 + 5 = 25`:
//! listing them, telling texts apart by them, finding the ones that are false.
//!
//! Read are decimals, thousands commas, mixed numbers, `+ - * / × x ÷ ·`, brackets, currency,
//! percent, units between number and operator, LaTeX's `\times`, `\div`, `\frac{}{}`, and GSM8K's
//! annotations. Only what is surely false counts as false: where units, percent signs or `≈` leave
//! a doubt there is no verdict, and a result may be rounded to the decimals it shows.

mod chain;
mod lex;
mod side;

use crate::{annotation, digest::sha256_hex, number::Number};
use chain::Chain;
use side::{Shape, Side};
use std::ops::Range;

/// One equality of a text in which something is calculated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equation {
    /// The side that calculates, as `20+1/4*20`: no blanks, currencies, units or separators, `*`
    /// and `/` for all ways to write them, numbers without needless zeros.
    pub calculation: String,
    /// What it is said to give. Of "5 + 3 = 8 + 2" that is 8: the writer goes on from there.
    pub result: Number,
    /// Whether it is so; `None` where that is not sure.
    pub holds: Option<bool>,
    /// Byte range of both sides.
    pub span: Range<usize>,
}

/// All equations of a text in order. A chain of n equals signs gives up to n. An annotation counts
/// where no equation around it says the same: `48 / 2 = <<48/2=24>>24` is one.
pub fn list(text: &str) -> Vec<Equation> {
    let plain = chains(text);
    let mut equations: Vec<Equation> = plain.iter().flat_map(equations_of).collect();
    let mut inner = annotated(text);
    inner.retain(|(at, _)| {
        // Neither starts nor ends go back from one equation to the next.
        let num_before = equations.partition_point(|found| found.span.start <= *at);
        !equations[..num_before]
            .last()
            .is_some_and(|found| found.span.contains(at))
    });
    equations.extend(inner.iter().flat_map(|(_, chain)| equations_of(chain)));
    equations.sort_by_key(|equation| equation.span.start);
    equations
}

/// What tells solutions of one question apart: equal for texts with the same equations in the same
/// order, whatever words stand around them (`48/2=24;24-4=20`). Texts without an equation are only
/// equal when their words are, blanks apart: for them it is `text:` and the SHA-256 of the words.
pub fn fingerprint(text: &str) -> String {
    let equations = list(text);
    if equations.is_empty() {
        let words: Vec<&str> = text.split_whitespace().collect();
        return format!("text:{}", sha256_hex(words.join(" ").as_bytes()));
    }
    let written = |equation: &Equation| format!("{}={}", equation.calculation, equation.result);
    equations.iter().map(written).collect::<Vec<_>>().join(";")
}

/// The byte range of the first chain with a false equation in it.
pub fn first_false(text: &str) -> Option<Range<usize>> {
    let inner = annotated(text).into_iter().map(|(_, chain)| chain);
    let is_false = |chain: &Chain| equations_of(chain).any(|found| found.holds == Some(false));
    let all = chains(text).into_iter().chain(inner);
    all.filter(is_false)
        .map(|chain| chain.span)
        .min_by_key(|span| span.start)
}

fn chains(text: &str) -> Vec<Chain> {
    chain::chains(text, &lex::lex(text))
}

/// The chains within annotations, each with the place of its annotation.
fn annotated(text: &str) -> Vec<(usize, Chain)> {
    let spans = annotation::spans(text);
    let inner = spans.flat_map(|span| {
        let content = span.start + 2..span.end - 2;
        let found = chains(&text[content.clone()]);
        let moved = found
            .into_iter()
            .map(move |chain| chain.moved(content.start));
        moved.map(move |chain| (span.start, chain))
    });
    inner.collect()
}

fn equations_of(chain: &Chain) -> impl Iterator<Item = Equation> {
    let pairs = chain.sides.windows(2);
    pairs.filter_map(|pair| equation(pair[0].as_ref()?, pair[1].as_ref()?))
}

/// `None` where nothing is calculated.
fn equation(left: &Side, right: &Side) -> Option<Equation> {
    // "5 + 3 = 8 + 2" is how people write on: the side begins with the value so far.
    let goes_on = right.head == Some(left.value) && right.value != left.value;
    let is_reversed = left.shape != Shape::Calculation;
    let (calculated, shown) = if is_reversed {
        (right, left)
    } else {
        (left, right)
    };
    if calculated.shape != Shape::Calculation || (is_reversed && goes_on) {
        return None;
    }
    let agreeing = if goes_on {
        Some(left.value)
    } else {
        shown
            .readings()
            .find(|&reading| shown.shows(reading, calculated.value))
    };
    let is_sure = !left.is_loose && !right.is_loose;
    // "1 bathroom = 6 * 8 = 48": the number is part of a name.
    if is_reversed && agreeing.is_none() && !is_sure {
        return None;
    }
    Some(Equation {
        calculation: calculated.text.clone(),
        result: agreeing.unwrap_or(shown.value),
        holds: match agreeing {
            Some(_) => Some(true),
            None => is_sure.then_some(false),
        },
        span: left.span.start..right.span.end,
    })
}

impl Side {
    /// What the side may mean: "= 75%" is also written for 75.
    fn readings(&self) -> impl Iterator<Item = Number> {
        let is_percentage = matches!(self.shape, Shape::Percentage { .. });
        let as_written = is_percentage.then(|| self.value.checked_mul(Number::from(100)));
        std::iter::once(self.value).chain(as_written.flatten())
    }

    /// Whether `reading` is `exact`, or is once `exact` is rounded to the decimals shown.
    fn shows(&self, reading: Number, exact: Number) -> bool {
        let num_decimals = match self.shape {
            Shape::Percentage { num_decimals } if reading == self.value => num_decimals + 2,
            Shape::Number { num_decimals } | Shape::Percentage { num_decimals } => num_decimals,
            Shape::Calculation => 0,
        };
        if reading == exact || num_decimals == 0 {
            return reading == exact;
        }
        let half_unit = u32::try_from(num_decimals)
            .ok()
            .and_then(|digits| 10_i128.checked_pow(digits))
            .and_then(|scale| Number::new(1, scale.checked_mul(2)?));
        let distance = exact.checked_sub(reading).and_then(Number::checked_abs);
        match (distance, half_unit) {
            // distance <= half a unit, that is, half a unit - distance >= 0
            (Some(distance), Some(half)) => half
                .checked_sub(distance)
                .is_some_and(|slack| slack.numerator() >= 0),
            _ => true, // too large to tell
        }
    }
}

#[cfg(test)]
mod tests;
