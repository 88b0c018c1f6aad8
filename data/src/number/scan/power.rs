//! Powers of ten as people write them: `1.2 × 10^3`, `1.2 \times 10^{-3}`, `10^6`.

use super::{Unsigned, digit_run, scale_by_ten};
use crate::number::Number;

/// The number at `at`, read so far as `decimal`, with the power of ten that it has or is.
pub(super) fn power_of_ten(text: &str, at: usize, decimal: &Unsigned) -> Option<Unsigned> {
    const TIMES: [&str; 7] = ["\\times", "\\cdot", "x", "×", "*", "·", "\u{2A2F}"];
    const BASE: &str = "10^";
    if text[at..].starts_with(BASE) {
        return raised(text, Some(Number::from(1)), at + BASE.len());
    }
    let rest = text[decimal.end..].trim_start_matches(' ');
    let after = TIMES
        .into_iter()
        .find_map(|times| rest.strip_prefix(times))?;
    let exponent = after.trim_start_matches(' ').strip_prefix(BASE)?;
    raised(text, decimal.value, text.len() - exponent.len())
}

/// `value` times ten to the power that stands at `at`, in braces or not.
fn raised(text: &str, value: Option<Number>, at: usize) -> Option<Unsigned> {
    const MAX_DIGITS: usize = 3;
    let is_braced = text[at..].starts_with('{');
    let start = at + usize::from(is_braced);
    let sign_len = usize::from(text[start..].starts_with('-'));
    let run = digit_run(text, start + sign_len);
    let end = start + sign_len + run;
    if run == 0 || run > MAX_DIGITS || (is_braced && !text[end..].starts_with('}')) {
        return None;
    }
    let exponent: i32 = text[start..end].parse().ok()?;
    Some(Unsigned {
        value: value.and_then(|value| scale_by_ten(value, exponent)),
        end: end + usize::from(is_braced),
    })
}
