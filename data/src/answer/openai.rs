//! OpenAI's reference rule for GSM8K: first `#### (\-?[0-9\.\,]+)`, commas removed, strings compared.

use super::{Extraction, FoundBy, Rule};
use crate::number::scan;
use std::ops::Range;

pub(super) fn extract(text: &str) -> Extraction {
    let rule = Rule::OpenAi;
    let Some(span) = first_marked(text) else {
        return Extraction::nothing(rule);
    };
    let candidate = text[span.clone()].replace(',', "");
    Extraction {
        rule,
        found_by: Some(FoundBy::HashMark),
        value: scan::exact(&candidate),
        candidate,
        span: Some(span),
        flags: Vec::new(),
    }
}

/// The group of the first match of `#### (\-?[0-9\.\,]+)`: exactly one space, no currency.
pub(super) fn first_marked(text: &str) -> Option<Range<usize>> {
    const MARKER: &str = "#### ";
    text.match_indices(MARKER).find_map(|(at, _)| {
        let start = at + MARKER.len();
        let sign_len = usize::from(text[start..].starts_with('-'));
        let digits = &text.as_bytes()[start + sign_len..];
        let is_part = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'.' | b',');
        let len = digits.iter().take_while(is_part).count();
        (len > 0).then(|| start..start + sign_len + len)
    })
}
