//! GSM8K's calculator annotations, `<<16-3-4=9>>`: finding, removing and evaluating them.
//!
//! The evaluator reads `0123456789.+-*/()`, with `//` as floor division and `%` as hundredths, and
//! works on exact numbers, so it is also the oracle for arithmetic in model outputs.

use crate::number::{Number, scan};
use std::ops::Range;

/// One `<<expression=result>>` of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation<'a> {
    /// Left of the last `=`.
    pub expression: &'a str,
    /// Right of it.
    pub result: &'a str,
    /// Byte range, brackets included.
    pub span: Range<usize>,
}

impl Annotation<'_> {
    /// Whether both sides have the same value; `None` where one of them cannot be evaluated.
    pub fn holds(&self) -> Option<bool> {
        Some(evaluate(self.expression)? == evaluate(self.result)?)
    }
}

/// All annotations of a text, from left to right. An unclosed one is not one.
pub fn annotations(text: &str) -> impl Iterator<Item = Annotation<'_>> {
    spans(text).filter_map(|span| {
        let (expression, result) = text[span.start + 2..span.end - 2].rsplit_once('=')?;
        Some(Annotation {
            expression,
            result,
            span,
        })
    })
}

/// The text without its annotations.
pub fn strip(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut end = 0;
    for span in spans(text) {
        stripped.push_str(&text[end..span.start]);
        end = span.end;
    }
    stripped.push_str(&text[end..]);
    stripped
}

/// Where the annotations stand, brackets included.
pub(crate) fn spans(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find("<<")?;
        let end = start + 2 + text[start + 2..].find(">>")? + 2;
        at = end;
        Some(start..end)
    })
}

/// The value of an arithmetic expression; `None` where it is not one, divides by zero or leaves the
/// range of [`Number`].
pub fn evaluate(expression: &str) -> Option<Number> {
    let mut parser = Parser {
        rest: expression,
        depth: 0,
    };
    let value = parser.sum()?;
    parser.rest.trim_start().is_empty().then_some(value)
}

/// Recursive descent: sum → product → factor.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// Brackets and signs nested deeper than this are refused, so that odd input cannot end the stack.
const MAX_DEPTH: usize = 64;

impl Parser<'_> {
    fn sum(&mut self) -> Option<Number> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value = value.checked_add(self.product()?)?;
            } else if self.take('-') {
                value = value.checked_sub(self.product()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<Number> {
        let mut value = self.factor()?;
        loop {
            if self.take('*') {
                value = value.checked_mul(self.factor()?)?;
            } else if self.take('/') {
                let is_floor = self.rest.starts_with('/');
                self.rest = self.rest.strip_prefix('/').unwrap_or(self.rest);
                let quotient = value.checked_div(self.factor()?)?;
                value = if is_floor { quotient.floor() } else { quotient };
            } else {
                return Some(value);
            }
        }
    }

    fn factor(&mut self) -> Option<Number> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = if self.take('-') {
            self.factor()?.checked_neg()
        } else if self.take('+') {
            self.factor()
        } else if self.take('(') {
            let inner = self.sum()?;
            self.take(')').then_some(inner)
        } else {
            self.decimal()
        };
        self.depth -= 1;
        value
    }

    fn decimal(&mut self) -> Option<Number> {
        self.rest = self.rest.trim_start();
        let is_part = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let len = self.rest.bytes().take_while(|&byte| is_part(byte)).count();
        let (digits, rest) = self.rest.split_at(len);
        self.rest = rest;
        // "2." is how some annotations write 2.
        let value = scan::exact(digits.strip_suffix('.').unwrap_or(digits))?;
        if self.take('%') {
            value.checked_div(Number::from(100))
        } else {
            Some(value)
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let Some(rest) = self.rest.trim_start().strip_prefix(wanted) else {
            return false;
        };
        self.rest = rest;
        true
    }
}

#[cfg(test)]
mod tests;
