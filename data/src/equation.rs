//! Equations in running text, such as `48 / 2 = 24` or the chain `20 + 1/4 * 20 = 20 + 5 = 25`:
//! finding the ones that are false.
//!
//! Only what is surely false counts: a side that is not plain arithmetic (a unit in the middle, a
//! letter, a percent sign) is passed over, and a result may be rounded to the decimals it shows.

use crate::{annotation::evaluate, number::Number};
use std::ops::Range;

/// The byte range of the first false equation of a text.
pub fn first_false(text: &str) -> Option<Range<usize>> {
    runs(text).find(|run| is_false(text, run))
}

/// Longest stretches that can be part of an equation and hold an equals sign.
fn runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let start = at;
            at = run_end(text, start);
            if text[start..at].contains('=') {
                return Some(start..at);
            }
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
        None
    })
}

fn run_end(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    let stops = rest.char_indices().find(|&(at, c)| {
        let next = rest[at + c.len_utf8()..].chars().next();
        match c {
            // A full stop or a comma belongs to a number only before a digit.
            '.' | ',' => !next.is_some_and(|next| next.is_ascii_digit()),
            // "3 x 4", but not "x = 4" or "boxes".
            'x' | 'X' => {
                let before = rest[..at].trim_end_matches(' ').chars().next_back();
                let after = rest[at + 1..].trim_start_matches([' ', '$']).chars().next();
                ![before, after]
                    .iter()
                    .all(|side| side.is_some_and(|c| c.is_ascii_digit()))
            }
            _ => !(c.is_ascii_digit() || "+-*/=() $×÷−".contains(c)),
        }
    });
    stops.map_or(text.len(), |(at, _)| start + at)
}

/// Whether two neighbours in a chain of sides differ.
fn is_false(text: &str, run: &Range<usize>) -> bool {
    let sides: Vec<String> = text[run.clone()].split('=').map(plain).collect();
    let last = sides.len() - 1;
    // A unit that changes the last side's value.
    let is_percent = text[run.end..].starts_with('%');
    sides.windows(2).enumerate().any(|(index, pair)| {
        let is_checked = !(is_percent && index + 1 == last);
        is_checked && differ(&pair[0], &pair[1]) == Some(true)
    })
}

/// The side in the characters that [`evaluate`] reads.
fn plain(side: &str) -> String {
    let mut plain = String::with_capacity(side.len());
    for c in side.trim().chars() {
        match c {
            '×' | 'x' | 'X' => plain.push('*'),
            '÷' => plain.push('/'),
            '−' => plain.push('-'),
            '$' | ',' => {}
            _ => plain.push(c),
        }
    }
    plain
}

/// `None` where a side is no arithmetic, or where there is nothing to calculate.
fn differ(left: &str, right: &str) -> Option<bool> {
    let has_operator = |side: &str| side.trim_start_matches('-').contains(['+', '-', '*', '/']);
    if !has_operator(left) && !has_operator(right) {
        return None;
    }
    let (left_value, right_value) = (evaluate(left)?, evaluate(right)?);
    // "5 + 3 = 8 + 2 = 10" is how people write on: the side begins with the value so far.
    let head = right
        .split(['+', '-', '*', '/', ' '])
        .next()
        .and_then(evaluate);
    Some(!equal_as_shown(left_value, right_value, right) && head != Some(left_value))
}

/// Equal, or equal once rounded to the decimals that `shown` has.
fn equal_as_shown(exact: Number, shown_value: Number, shown: &str) -> bool {
    if exact == shown_value {
        return true;
    }
    let Some((_, decimals)) = shown.split_once('.') else {
        return false;
    };
    let half_unit = u32::try_from(decimals.trim_end().len())
        .ok()
        .and_then(|digits| 10_i128.checked_pow(digits))
        .and_then(|scale| Number::new(1, scale.checked_mul(2)?));
    let distance = exact.checked_sub(shown_value).map(|difference| {
        let is_negative = difference.numerator() < 0;
        if is_negative {
            difference.checked_neg()
        } else {
            Some(difference)
        }
    });
    match (distance.flatten(), half_unit) {
        // distance <= half a unit, that is, half a unit - distance >= 0
        (Some(distance), Some(half)) => half
            .checked_sub(distance)
            .is_some_and(|slack| slack.numerator() >= 0),
        _ => true, // too large to tell
    }
}

#[cfg(test)]
mod tests;
