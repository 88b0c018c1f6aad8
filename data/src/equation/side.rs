//! One side of an equation: its text in one spelling, its value and its shape.

use super::lex::{Kind, Token};
use crate::{annotation::evaluate, number::Number};
use std::ops::Range;

/// One side, readable.
#[derive(Debug)]
pub(super) struct Side {
    /// In the characters that [`evaluate`] reads, without blanks.
    pub text: String,
    pub value: Number,
    /// What the side begins with, where that is a number.
    pub head: Option<Number>,
    pub shape: Shape,
    /// It has units, percents or an "of", or is said to be only nearly equal: no ground for a
    /// verdict.
    pub is_loose: bool,
    pub span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One number, with so many digits after the point.
    Number {
        num_decimals: usize,
    },
    /// One number with a percent sign, likewise.
    Percentage {
        num_decimals: usize,
    },
    Calculation,
}

impl Side {
    /// `None` where the tokens are no arithmetic.
    pub(super) fn read(tokens: &[&Token]) -> Option<Side> {
        let (first, last) = (tokens.first()?, tokens.last()?);
        let text = text_of(tokens);
        let value = evaluate(&text)?;
        let head = match &first.kind {
            Kind::Number(literal) => evaluate(&literal.text),
            _ => None,
        };
        let unsigned = match tokens {
            [sign, rest @ ..] if matches!(sign.kind, Kind::Operator(_)) => rest,
            all => all,
        };
        let shape = match unsigned {
            [number] => number
                .num_decimals()
                .map(|num_decimals| Shape::Number { num_decimals }),
            [number, sign] if sign.kind == Kind::Percent => number
                .num_decimals()
                .map(|num_decimals| Shape::Percentage { num_decimals }),
            _ => None,
        };
        let shape = shape.unwrap_or(Shape::Calculation);
        Some(Side {
            text,
            value,
            head,
            shape,
            is_loose: false,
            span: first.span.start..last.span.end,
        })
    }
}

impl Token {
    fn num_decimals(&self) -> Option<usize> {
        match &self.kind {
            Kind::Number(literal) => Some(literal.num_decimals),
            _ => None,
        }
    }
}

/// Neighbours without an operator between them keep a blank, which no evaluation gets over; only
/// a bracket right behind its factor multiplies: `3(4 + 5)`.
fn text_of(tokens: &[&Token]) -> String {
    let mut text = String::new();
    let mut previous: Option<&Token> = None;
    for token in tokens {
        let starts_operand = matches!(token.kind, Kind::Number(_) | Kind::Open);
        if let Some(previous) = previous.filter(|last| starts_operand && ends_operand(last)) {
            let is_factor = token.kind == Kind::Open && previous.span.end == token.span.start;
            text.push(if is_factor { '*' } else { ' ' });
        }
        match &token.kind {
            Kind::Number(literal) => text.push_str(&literal.text),
            Kind::Operator(operator) | Kind::Said(operator) => text.push(*operator),
            Kind::Percent => text.push('%'),
            Kind::Open => text.push('('),
            Kind::Close => text.push(')'),
            Kind::Equals | Kind::Nearly | Kind::Word | Kind::Annotation | Kind::Break => {}
        }
        previous = Some(token);
    }
    text
}

/// Whether a side could end here.
pub(super) fn ends_operand(token: &Token) -> bool {
    matches!(token.kind, Kind::Number(_) | Kind::Close | Kind::Percent)
}
