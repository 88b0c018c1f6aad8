//! What the reference report most likely did: the first number after a `####`, else the last number of
//! the text, compared as numbers.
//!
//! The report says "final number extracted, exact match" and prints no code. Its improved prompt asks
//! for `#### [number]`, sibling projects of the same exercise read the first such mark and fall back
//! to the last number; that is the reading taken here. It is not known to be the report's own rule:
//! under a rule without the fallback its first baseline would be 0 %, not 2.38 %.

use super::{Extraction, Flag, FoundBy, Rule};
use crate::number::scan;

pub(super) fn extract(text: &str) -> Extraction {
    let rule = Rule::Report;
    for (at, marker) in text.match_indices("####") {
        let start = at + marker.len();
        // Up to the next mark first: a line of a thousand marks is read once, not a thousand times.
        let until_mark = text[start..].split(marker).next().unwrap_or_default();
        let segment = until_mark.split('\n').next().unwrap_or_default();
        if let Some(found) = scan::numbers(&text[..start + segment.len()])
            .starting_at(start)
            .next()
        {
            return Extraction::number(rule, FoundBy::HashMark, text, found);
        }
    }
    let Some(found) = scan::numbers(text).last() else {
        return Extraction::nothing(rule);
    };
    let mut extraction = Extraction::number(rule, FoundBy::LastNumber, text, found);
    extraction.flags.insert(0, Flag::Fallback);
    extraction
}
