//! The two rules of lm-evaluation-harness' task `gsm8k` (version 3.0), matched and compared as there.
//!
//! `strict-match` takes the first `#### (\-?[0-9\.\,]+)`; `flexible-extract` takes the last match of
//! `(-?[$0-9.,]{2,})|(-?[0-9]+)`. Before strings are compared, `exact_match` removes commas, dollar
//! signs and one final dot. So `$29.00` is not `29` there, and a trailing `...` is "the number".

use super::{Extraction, FoundBy, Rule, openai};
use crate::number::scan;
use std::ops::Range;

pub(super) fn extract_strict(text: &str) -> Extraction {
    let found = openai::first_marked(text);
    compared(
        text,
        Rule::LmStrict,
        found.map(|span| (FoundBy::HashMark, span)),
    )
}

pub(super) fn extract_flexible(text: &str) -> Extraction {
    compared(
        text,
        Rule::LmFlexible,
        last_match(text).map(|span| (FoundBy::LastNumber, span)),
    )
}

fn compared(text: &str, rule: Rule, found: Option<(FoundBy, Range<usize>)>) -> Extraction {
    let Some((found_by, span)) = found else {
        return Extraction::nothing(rule);
    };
    let mut candidate = text[span.clone()].replace([',', '$'], "");
    if candidate.ends_with('.') {
        candidate.pop();
    }
    Extraction {
        rule,
        found_by: Some(found_by),
        value: scan::exact(&candidate),
        candidate,
        span: Some(span),
        flags: Vec::new(),
    }
}

/// The last of all non-overlapping matches of `(-?[$0-9.,]{2,})|(-?[0-9]+)`, taken from the left.
fn last_match(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut at, mut last) = (0, None);
    while at < bytes.len() {
        match match_len(&bytes[at..]) {
            0 => at += 1,
            len => {
                last = Some(at..at + len);
                at += len;
            }
        }
    }
    last
}

/// Length of the match that begins at the first byte; 0 where none does.
fn match_len(bytes: &[u8]) -> usize {
    let sign_len = usize::from(bytes.first() == Some(&b'-'));
    let unsigned = &bytes[sign_len..];
    let is_wide = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'$' | b'.' | b',');
    let wide = unsigned.iter().take_while(is_wide).count();
    let digits = unsigned
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    match (wide, digits) {
        (2.., _) => sign_len + wide,
        (_, 1..) => sign_len + digits,
        _ => 0,
    }
}
