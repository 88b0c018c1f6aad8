//! A number written in any of the styles that answers come in reads back as the same number.

use super::Draw;
use crate::{
    answer::{FoundBy, Rule, extract},
    number::Number,
};

/// A number and one way to write it.
fn written(draw: &mut Draw) -> (Number, String) {
    match draw.below(6) {
        0 | 1 => integer(draw),
        2 => decimal(draw),
        3 => fraction(draw),
        4 => mixed(draw),
        _ => scientific(draw),
    }
}

fn sign(draw: &mut Draw) -> (i128, &'static str) {
    draw.of([(1, ""), (1, ""), (1, ""), (-1, "-"), (-1, "\u{2212}")])
}

/// Up to 10 digits, all lengths alike.
fn magnitude(draw: &mut Draw) -> i128 {
    let num_digits = 1 + draw.below(10) as u32;
    draw.below(10_usize.pow(num_digits)) as i128
}

/// Digits in groups of three.
fn grouped(magnitude: i128, separator: &str) -> String {
    let digits = magnitude.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push_str(separator);
        }
        text.push(digit);
    }
    text
}

fn separated(draw: &mut Draw, magnitude: i128) -> String {
    let separator = draw.of([
        "", "", ",", ",", "{,}", "\\,", "\u{2009}", "\u{A0}", "\u{202F}",
    ]);
    grouped(magnitude, separator)
}

/// Currency, percent, type and units: nothing that changes the number.
fn dressed(draw: &mut Draw, sign: &str, unsigned: &str) -> String {
    match draw.below(12) {
        0 => format!("{sign}${unsigned}"),
        1 => format!("${sign}{unsigned}"),
        2 => format!("{sign}\\${unsigned}"),
        3 => format!("{sign}{unsigned}$"),
        4 => format!("{sign}{unsigned} €"),
        5 => format!("£{sign}{unsigned}"),
        6 => format!("{sign}{unsigned}%"),
        7 => format!("{sign}{unsigned}\\%"),
        8 => format!("{sign}{unsigned} eggs"),
        9 => format!("{sign}{unsigned} \\text{{ eggs}}"),
        _ => format!("{sign}{unsigned}"),
    }
}

fn integer(draw: &mut Draw) -> (Number, String) {
    let ((factor, sign), magnitude) = (sign(draw), magnitude(draw));
    let digits = separated(draw, magnitude);
    let text = dressed(draw, sign, &digits);
    (Number::new(factor * magnitude, 1).unwrap(), text)
}

fn decimal(draw: &mut Draw) -> (Number, String) {
    let ((factor, sign), magnitude) = (sign(draw), magnitude(draw));
    let num_decimals = 1 + draw.below(4);
    let scale = 10_i128.pow(num_decimals as u32);
    let (whole, rest) = (magnitude / scale, magnitude % scale);
    let whole = match draw.below(3) {
        0 if whole == 0 => String::new(),
        _ => separated(draw, whole),
    };
    let digits = format!("{whole}.{rest:0num_decimals$}");
    let text = dressed(draw, sign, &digits);
    (Number::new(factor * magnitude, scale).unwrap(), text)
}

fn fraction(draw: &mut Draw) -> (Number, String) {
    let (factor, sign) = sign(draw);
    let (above, below) = (draw.below(100) as i128, 1 + draw.below(99) as i128);
    let text = match draw.below(4) {
        0 => format!("{sign}\\frac{{{above}}}{{{below}}}"),
        1 => format!("{sign}\\dfrac{{{above}}}{{{below}}}"),
        _ => format!("{sign}{above}/{below}"),
    };
    (Number::new(factor * above, below).unwrap(), text)
}

fn mixed(draw: &mut Draw) -> (Number, String) {
    let (factor, sign) = sign(draw);
    let (whole, below) = (1 + draw.below(50) as i128, 2 + draw.below(20) as i128);
    let above = 1 + draw.below(below as usize - 1) as i128;
    let half = draw.below(8) == 0;
    let (above, below) = if half { (1, 2) } else { (above, below) };
    let text = match draw.below(3) {
        0 if half => format!("{sign}{whole}½"),
        1 => format!("{sign}{whole}\\frac{{{above}}}{{{below}}}"),
        _ => format!("{sign}{whole} {above}/{below}"),
    };
    (
        Number::new(factor * (whole * below + above), below).unwrap(),
        text,
    )
}

fn scientific(draw: &mut Draw) -> (Number, String) {
    let ((factor, sign), digits) = (sign(draw), 10 + draw.below(90) as i128);
    let exponent = 1 + draw.below(6);
    let value = Number::new(factor * digits * 10_i128.pow(exponent as u32), 10);
    let power = match draw.below(6) {
        0 => format!("e{exponent}"),
        1 => format!("E{exponent}"),
        2 => format!("e+{exponent}"),
        3 => format!(" x 10^{exponent}"),
        4 => format!(" × 10^{exponent}"),
        _ => format!(" \\times 10^{{{exponent}}}"),
    };
    let text = format!("{sign}{}.{}{power}", digits / 10, digits % 10);
    (value.unwrap(), text)
}

/// What points at an answer, and the text with `_` for the number and `|` for an end.
#[rustfmt::skip]
const PLACES: [(FoundBy, &str); 22] = [
    (FoundBy::HashMark, "#### _|"),
    (FoundBy::HashMark, "####_|"),
    (FoundBy::HashMark, "#### **_**|"),
    (FoundBy::HashMark, "#### [_]|"),
    (FoundBy::HashMark, "#### x = _|"),
    (FoundBy::HashMark, "####\n_|"),
    (FoundBy::HashMark, "#### _\nQ: 7 more?"),
    (FoundBy::Boxed, "so $\\boxed{_}$|"),
    (FoundBy::Boxed, "\\[ \\boxed{x = _} \\] of 20|"),
    (FoundBy::Boxed, "The final answer is: $\\boxed{_}$|"),
    (FoundBy::AnswerIs, "The answer is _|"),
    (FoundBy::AnswerIs, "The final answer is _|"),
    (FoundBy::AnswerIs, "**Answer:** _|"),
    (FoundBy::AnswerIs, "Final Answer: **_**|"),
    (FoundBy::AnswerIs, "ANSWER: _|"),
    (FoundBy::AnswerIs, "The final answer is:\n\n_|"),
    (FoundBy::AnswerIs, "<answer>_</answer>|"),
    (FoundBy::AnswerIs, "the answer is **_**. Check 7.|"),
    (FoundBy::AnswerIs, "The answer is 5 + 3 = _|"),
    (FoundBy::LastNumber, "So she makes _|"),
    (FoundBy::LastNumber, "In all that is **_**|"),
    (FoundBy::LastNumber, "That gives x = _|"),
];

/// A text that answers with a number, and what points at it.
fn answered(draw: &mut Draw, number: &str) -> (FoundBy, String) {
    let lead = draw.of([
        "",
        "She has 16 - 3 = 13 eggs left. ",
        "First, 5 * 3 = 15.\n\nThen 15 / 4 = 3.75.\n",
        "1. Add 2 + 2 = 4\n2. Double it: 8\n\n",
        "- 20% of $50 is $10\n",
    ]);
    let end = draw.of(["", "", ".", "\n", ".\n", "!", " "]);
    let (found_by, place) = draw.of(PLACES);
    let (before, after) = place.split_once('_').unwrap();
    (
        found_by,
        format!("{lead}{before}{number}{}", after.replace('|', end)),
    )
}

/// Every style of number behind every marker.
#[test]
fn numbers_read_back() {
    let mut wrong = Vec::new();
    for seed in 0..60_000 {
        let mut draw = Draw::new(seed);
        let (number, text) = written(&mut draw);
        let (found_by, text) = answered(&mut draw, &text);
        let found = extract(&text, Rule::Numeric);
        if (found.value, found.found_by) != (Some(number), Some(found_by)) {
            wrong.push(format!(
                "seed {seed}: {text:?}\n  {number} by {found_by:?}, found {found:?}"
            ));
        }
    }
    let num_wrong = wrong.len();
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{num_wrong} wrong:\n{}", wrong.join("\n"));
}
