//! The default rule: the strongest marker there is, then exact numbers.
//!
//! In order: the last `####` line with a number (a heading `#### Step 2` is none); the last
//! `\boxed{}` with a number; the last "answer is" or "answer:" with a number in its sentence; the last
//! number of the text, flagged [`Flag::Fallback`]. Where nothing follows a marker on its line, the
//! next line that is not blank counts.
//!
//! Of a marked part, the number meant is the first one right of the last `=` that is not itself a
//! calculation: `16 - 3 = 13 eggs` gives 13, `12 = 3 * 4` gives 12.

use super::{Extraction, Flag, FoundBy, Rule};
use crate::number::scan::{self, Found};
use std::ops::Range;

pub(super) fn extract(text: &str) -> Extraction {
    by_marker(text, FoundBy::HashMark, hash_segments(text))
        .or_else(|| by_marker(text, FoundBy::Boxed, boxed_segments(text)))
        .or_else(|| by_marker(text, FoundBy::AnswerIs, answer_segments(text)))
        .or_else(|| by_last_number(text))
        .unwrap_or_else(|| Extraction::nothing(Rule::Numeric))
}

/// The last segment with a number in it.
fn by_marker(text: &str, found_by: FoundBy, segments: Vec<Range<usize>>) -> Option<Extraction> {
    let mut picked: Vec<Picked> = segments
        .into_iter()
        .filter_map(|segment| pick(text, segment))
        .collect();
    let last = picked.pop()?;
    let mut extraction = Extraction::number(Rule::Numeric, found_by, text, last.found);
    if !picked.is_empty() {
        extraction.flags.push(Flag::SeveralMarkers);
    }
    if picked
        .iter()
        .any(|other| other.found.value != extraction.value)
    {
        extraction.flags.push(Flag::ConflictingMarkers);
    }
    if last.is_unclear {
        extraction.flags.push(Flag::SeveralNumbers);
    }
    extraction.flags.sort_unstable();
    Some(extraction)
}

fn by_last_number(text: &str) -> Option<Extraction> {
    let found = scan::numbers(text).last()?;
    let mut extraction = Extraction::number(Rule::Numeric, FoundBy::LastNumber, text, found);
    extraction.flags.insert(0, Flag::Fallback);
    Some(extraction)
}

/// The number meant by a marked part.
struct Picked {
    found: Found,
    /// The part holds other numbers that no `=` explains.
    is_unclear: bool,
}

fn pick(text: &str, segment: Range<usize>) -> Option<Picked> {
    if let Some(found) = explained(text, &segment) {
        return Some(Picked {
            found,
            is_unclear: false,
        });
    }
    let sides = sides(text, segment.clone());
    let settled = sides.iter().rev().find_map(|side| {
        let mut numbers = numbers_in(text, side);
        let first = numbers.next()?;
        let is_calculation = operator_follows(&text[first.span.end..side.end]);
        (!is_calculation).then(|| Picked {
            is_unclear: sides.len() == 1 && numbers.any(|other| other.value != first.value),
            found: first,
        })
    });
    settled.or_else(|| {
        let found = numbers_in(text, &segment).next()?;
        Some(Picked {
            found,
            is_unclear: true,
        })
    })
}

/// The number that a marked part begins with, where a reason follows: `18, since 16 + 2 = 18`.
fn explained(text: &str, segment: &Range<usize>) -> Option<Found> {
    let first = numbers_in(text, segment).next()?;
    let lead = &text[segment.start..first.span.start];
    let is_first = !lead.contains(|c: char| c.is_alphanumeric() || matches!(c, '=' | '≈'));
    let rest = text[first.span.end..segment.end].trim_start_matches([' ', '%', '$', '*', ',', '(']);
    let reasons = ["since ", "because ", "as ", "for "];
    let is_explained = reasons.iter().any(|reason| rest.starts_with(reason));
    (is_first && is_explained).then_some(first)
}

fn numbers_in<'a>(text: &'a str, range: &Range<usize>) -> impl Iterator<Item = Found> + use<'a> {
    scan::numbers(&text[..range.end]).starting_at(range.start)
}

/// The parts of a segment between its equals signs.
fn sides(text: &str, segment: Range<usize>) -> Vec<Range<usize>> {
    let mut sides = Vec::new();
    let mut start = segment.start;
    for (at, sign) in text[segment.clone()].match_indices(['=', '≈']) {
        sides.push(start..segment.start + at);
        start = segment.start + at + sign.len();
    }
    sides.push(start..segment.end);
    sides
}

/// Whether an operator and another operand come next: the number before is part of a calculation.
fn operator_follows(rest: &str) -> bool {
    const DECORATION: [char; 5] = [' ', '%', '$', '\\', '*'];
    const OPERATORS: [&str; 13] = [
        "\\times", "\\cdot", "\\div", "times", "+", "-", "\u{2212}", "*", "/", "×", "÷", "x ", "x",
    ];
    let spaced = rest.trim_start_matches([' ', '%', '$']);
    let Some(operator) = OPERATORS
        .into_iter()
        .find(|operator| spaced.starts_with(operator))
    else {
        return false;
    };
    let operand = spaced[operator.len()..].trim_start_matches(DECORATION);
    // "**18**." ends here, "18 * .5" goes on.
    let operand = operand.strip_prefix('.').unwrap_or(operand);
    operand.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '(' | '€' | '£'))
}

/// What follows each `####`, up to the end of its line or the next mark.
fn hash_segments(text: &str) -> Vec<Range<usize>> {
    let starts: Vec<usize> = text
        .match_indices("####")
        .map(|(at, mark)| at + mark.len())
        .collect();
    let next_mark = |index: usize| starts.get(index + 1).map_or(text.len(), |next| next - 4);
    let segments = starts.iter().enumerate();
    let segments = segments.map(|(index, &start)| line_from(text, start..next_mark(index)));
    segments
        .filter(|segment| !is_heading(&text[segment.clone()]))
        .collect()
}

/// `#### Step 2: ...` is Markdown, not an answer.
fn is_heading(segment: &str) -> bool {
    let word = segment.trim_start_matches(|c: char| !c.is_alphanumeric());
    word.get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("step"))
}

/// The content of each closed `\boxed{...}` that holds no other one, in order.
fn boxed_segments(text: &str) -> Vec<Range<usize>> {
    const BOXED: &str = "\\boxed";
    let mut open = Vec::new();
    let mut segments: Vec<Range<usize>> = Vec::new();
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if !is_escaped => open.push(at),
            b'}' if !is_escaped => {
                let is_box = |start: &usize| {
                    let is_innermost = segments.last().is_none_or(|last| last.end < *start);
                    is_innermost && text[..*start].trim_end_matches(' ').ends_with(BOXED)
                };
                if let Some(start) = open.pop().filter(is_box) {
                    segments.push(start + 1..at);
                }
            }
            _ => {}
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    segments
}

/// What follows each "answer is", "answer:", "answer =", `<answer>` or heading "Final answer", up
/// to the end of its sentence.
fn answer_segments(text: &str) -> Vec<Range<usize>> {
    const WORD: &str = "answer";
    // ASCII lower case keeps every byte offset.
    let lower = text.to_ascii_lowercase();
    let words: Vec<usize> = lower.match_indices(WORD).map(|(at, _)| at).collect();
    let segments = words.iter().enumerate().filter_map(|(index, &at)| {
        let limit = words.get(index + 1).copied().unwrap_or(text.len());
        let after = at + WORD.len();
        let len = verb_len(&lower[after..limit])
            .or_else(|| tag_len(&lower[..at], &lower[after..limit]))
            .or_else(|| heading_len(&lower[..at], &lower[after..limit]))?;
        let start = after + len;
        let line = line_from(text, start..limit);
        let end = line.start + sentence_len(&text[line.clone()]);
        Some(line.start..end)
    });
    segments.collect()
}

/// Length of the decoration and the verb after "answer"; `None` where neither "is", `:` nor `=` comes.
fn verb_len(rest: &str) -> Option<usize> {
    const DECORATION: [char; 4] = [' ', '\t', '*', '_'];
    let verb = rest.trim_start_matches(DECORATION);
    let after = match verb.strip_prefix("is") {
        Some(after) if !after.starts_with(char::is_alphanumeric) => after,
        _ => verb.strip_prefix([':', '='])?,
    };
    let after = after.trim_start_matches(DECORATION);
    let after = after
        .strip_prefix(':')
        .unwrap_or(after)
        .trim_start_matches(DECORATION);
    Some(rest.len() - after.len())
}

/// Length of the `>` of `<answer>`; `None` for `</answer>`.
fn tag_len(before: &str, rest: &str) -> Option<usize> {
    (before.ends_with('<') && rest.starts_with('>')).then_some(1)
}

/// Length of the decoration that ends a line "**Final answer**".
fn heading_len(before: &str, rest: &str) -> Option<usize> {
    let after = rest.trim_start_matches([' ', '\t', '*', '_', '\r']);
    let is_heading = before.ends_with("final ") && after.starts_with('\n');
    is_heading.then(|| rest.len() - after.len())
}

/// The rest of the line, or the next line that is not blank where the rest is.
fn line_from(text: &str, range: Range<usize>) -> Range<usize> {
    let rest = &text[range.clone()];
    let is_blank = |c: char| c.is_whitespace() || matches!(c, '*' | '_' | ':' | '#');
    let content = range.end - rest.trim_start_matches(is_blank).len();
    let len = text[content..range.end]
        .find('\n')
        .unwrap_or(range.end - content);
    content..content + len
}

/// Length of the text up to the first full stop that ends a sentence.
fn sentence_len(text: &str) -> usize {
    let stops = text.match_indices(['.', '!', '?']);
    let mut ends = stops.map(|(at, stop)| at + stop.len());
    ends.find(|&end| text[end..].starts_with(char::is_whitespace))
        .unwrap_or(text.len())
}
