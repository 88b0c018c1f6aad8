//! Finds numbers in running text.
//!
//! Shapes read as one number: `1,450` and `1{,}450`, `5 000` with a thin or no-break space (with a
//! plain space only after a currency sign), `$118 000`, `-$3`, `$-3`, `.5`, `10.00`, `1.2e3`,
//! `1.2 \times 10^3`, `3/4`, `1 1/2`, `2½`, `\frac{3}{4}`. A minus is `-` or U+2212 and only where
//! it cannot be an operator or a hyphen (`16-3` holds 16 and 3; `COVID-19` holds 19); an en dash is
//! never a minus. Percent signs, currencies and units are not part of a number and never change it.

mod power;

use super::Number;
use std::ops::Range;

/// A number in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `None` where the digits do not fit [`Number`].
    pub value: Option<Number>,
    /// Byte range, the sign included.
    pub span: Range<usize>,
}

/// All numbers of a text, from left to right.
pub fn numbers(text: &str) -> Numbers<'_> {
    Numbers { text, at: 0 }
}

/// The number of a text that holds exactly one.
pub fn single(text: &str) -> Option<Number> {
    let mut all = numbers(text);
    let first = all.next()?;
    if all.next().is_some() {
        None
    } else {
        first.value
    }
}

/// The number of a text that is nothing but a number.
pub fn exact(text: &str) -> Option<Number> {
    let found = numbers(text).next()?;
    if found.span == (0..text.len()) {
        found.value
    } else {
        None
    }
}

/// The number without sign that begins at `at`, as a calculation reads it: the slash of `3/4`
/// divides.
pub(crate) fn operand(text: &str, at: usize) -> Option<Found> {
    let number = match text[at..].chars().next()? {
        '0'..='9' => unfractioned_at(text, at),
        '\\' => return None,
        _ => unsigned_at(text, at)?,
    };
    let span = at..number.end;
    let value = number.value;
    Some(Found { value, span })
}

/// See [`numbers`].
#[derive(Debug)]
pub struct Numbers<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Numbers<'a> {
    /// From a byte offset on, which must be a character's start. What stands before it still
    /// decides whether a minus is a sign.
    #[must_use]
    pub fn starting_at(self, at: usize) -> Numbers<'a> {
        Numbers { at, ..self }
    }
}

impl Iterator for Numbers<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let floor = self.at;
        while let Some(first) = self.text[self.at..].chars().next() {
            if let Some(unsigned) = unsigned_at(self.text, self.at) {
                let sign = sign_before(self.text, floor, self.at);
                let value = if sign.is_some() {
                    unsigned.value.and_then(Number::checked_neg)
                } else {
                    unsigned.value
                };
                let start = sign.unwrap_or(self.at);
                self.at = unsigned.end;
                return Some(Found {
                    value,
                    span: start..unsigned.end,
                });
            }
            self.at += first.len_utf8();
        }
        None
    }
}

/// A number without sign: its value and where it ends.
struct Unsigned {
    value: Option<Number>,
    end: usize,
}

fn unsigned_at(text: &str, at: usize) -> Option<Unsigned> {
    let first = text[at..].chars().next()?;
    if let Some(value) = Number::of_character(first) {
        return Some(Unsigned {
            value: Some(value),
            end: at + first.len_utf8(),
        });
    }
    match first {
        '0'..='9' => Some(digits_at(text, at)),
        '.' if starts_decimals(text, at) => Some(decimal_at(text, at)),
        '\\' => latex_fraction_at(text, at),
        _ => None,
    }
}

/// `.5` is a number; the dots of `3.14.15` and of `...5` are not part of one.
fn starts_decimals(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    digit_run(text, at + 1) > 0 && !before.is_some_and(|c| c.is_ascii_digit() || c == '.')
}

/// A number that begins with a digit: a decimal, a fraction or a mixed number.
fn digits_at(text: &str, at: usize) -> Unsigned {
    let number = unfractioned_at(text, at);
    if let Some(power) = power::power_of_ten(text, at, &number) {
        return power;
    }
    let is_whole = is_whole(&text[at..number.end]);
    let fraction = is_whole.then(|| slash_fraction(text, at, &number));
    fraction.flatten().unwrap_or(number)
}

/// A decimal or a mixed number.
fn unfractioned_at(text: &str, at: usize) -> Unsigned {
    let decimal = decimal_at(text, at);
    let is_whole = is_whole(&text[at..decimal.end]);
    let mixed = is_whole.then(|| mixed_fraction(text, &decimal));
    mixed.flatten().unwrap_or(decimal)
}

fn is_whole(shown: &str) -> bool {
    shown.bytes().all(|b| b.is_ascii_digit() || b == b',')
}

/// Digits, grouped or not, with decimals and an exponent where they follow.
fn decimal_at(text: &str, at: usize) -> Unsigned {
    let whole_end = grouped_end(text, at);
    let mut end = whole_end;
    let mut num_decimals = 0;
    if text[end..].starts_with('.') {
        num_decimals = digit_run(text, end + 1);
        if num_decimals > 0 {
            end += 1 + num_decimals;
        }
    }
    let digits = text[at..whole_end]
        .bytes()
        .chain(text[whole_end..end].bytes());
    let mut value = mantissa(digits).and_then(|mantissa| {
        let scale = u32::try_from(num_decimals)
            .ok()
            .and_then(|n| 10_i128.checked_pow(n))?;
        Number::new(mantissa, scale)
    });
    if let Some((exponent, exponent_end)) = exponent_at(text, end) {
        value = value.and_then(|value| scale_by_ten(value, exponent));
        end = exponent_end;
    }
    Unsigned { value, end }
}

fn mantissa(bytes: impl Iterator<Item = u8>) -> Option<i128> {
    bytes
        .filter(u8::is_ascii_digit)
        .try_fold(0_i128, |sum, byte| {
            sum.checked_mul(10)?.checked_add(i128::from(byte - b'0'))
        })
}

/// Number of ASCII digits from `at` on.
fn digit_run(text: &str, at: usize) -> usize {
    text.as_bytes()[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}

/// What may stand between groups of three digits: plain, LaTeX, thin and no-break spaces.
const GROUP_SEPARATORS: [&str; 6] = [",", "{,}", "\\,", "\u{2009}", "\u{A0}", "\u{202F}"];

/// End of the digits at `at`, groups of three included.
fn grouped_end(text: &str, at: usize) -> usize {
    let run = digit_run(text, at);
    let first_end = at + run;
    if run == 0 || run > 3 || text[at..].starts_with('0') {
        return first_end;
    }
    let after_currency = text[..at].trim_end_matches(' ').ends_with(is_currency);
    let separators = GROUP_SEPARATORS
        .iter()
        .chain(after_currency.then_some(&" "));
    let mut ends = separators.map(|separator| groups_end(text, first_end, separator));
    ends.find(|&end| end > first_end).unwrap_or(first_end)
}

fn groups_end(text: &str, mut end: usize, separator: &str) -> usize {
    while text[end..].starts_with(separator) && digit_run(text, end + separator.len()) == 3 {
        end += separator.len() + 3;
    }
    end
}

/// `e3`, `E-2`: the exponent and where it ends, where no letter or digit follows.
fn exponent_at(text: &str, at: usize) -> Option<(i32, usize)> {
    let after_e = text[at..].strip_prefix(['e', 'E'])?;
    let sign_len = usize::from(after_e.starts_with(['+', '-']));
    let run = digit_run(after_e, sign_len);
    let end = at + 1 + sign_len + run;
    let goes_on = text[end..].starts_with(char::is_alphanumeric);
    if run == 0 || run > 3 || goes_on {
        return None;
    }
    Some((after_e[..sign_len + run].parse().ok()?, end))
}

fn scale_by_ten(value: Number, exponent: i32) -> Option<Number> {
    let power = Number::new(10_i128.checked_pow(exponent.unsigned_abs())?, 1)?;
    if exponent < 0 {
        value.checked_div(power)
    } else {
        value.checked_mul(power)
    }
}

/// `3/4`, where it is neither part of a date (`1/2/2024`) nor of a path, nor has a zero below.
fn slash_fraction(text: &str, at: usize, numerator: &Unsigned) -> Option<Unsigned> {
    let denominator_at = numerator.end + 1;
    if !text[numerator.end..].starts_with('/') || text[..at].ends_with('/') {
        return None;
    }
    let run = digit_run(text, denominator_at);
    let end = denominator_at + run;
    let after = text.as_bytes().get(end..).unwrap_or_default();
    let goes_on = match after {
        [b'/', ..] => true,
        [b'.', next, ..] => next.is_ascii_digit(),
        _ => false,
    };
    let denominator = mantissa(text[denominator_at..end].bytes());
    if run == 0 || goes_on || denominator == Some(0) {
        return None;
    }
    let value = numerator
        .value
        .zip(denominator.and_then(|d| Number::new(d, 1)));
    Some(Unsigned {
        value: value.and_then(|(above, below)| above.checked_div(below)),
        end,
    })
}

/// The proper fraction after a whole number: `1 1/2`, `2½`, `2\frac{1}{2}`.
fn mixed_fraction(text: &str, whole: &Unsigned) -> Option<Unsigned> {
    let gap = usize::from(text[whole.end..].starts_with(' '));
    let at = whole.end + gap;
    let first = text[at..].chars().next()?;
    let fraction = if first.is_ascii_digit() && gap == 1 {
        let above = Unsigned {
            value: None,
            end: at + digit_run(text, at),
        };
        let value = mantissa(text[at..above.end].bytes()).and_then(|n| Number::new(n, 1));
        slash_fraction(text, at, &Unsigned { value, ..above })?
    } else if first == '\\' || Number::of_character(first).is_some() {
        unsigned_at(text, at)?
    } else {
        return None;
    };
    let part = fraction
        .value
        .filter(|part| part.numerator() < part.denominator())?;
    let value = whole.value.and_then(|whole| whole.checked_add(part));
    Some(Unsigned {
        value,
        end: fraction.end,
    })
}

/// `\frac{3}{4}`, `\dfrac{3}{4}`, `\tfrac{3}{4}`, `\frac34`.
fn latex_fraction_at(text: &str, at: usize) -> Option<Unsigned> {
    let rest = &text[at..];
    let name = ["\\frac", "\\dfrac", "\\tfrac"]
        .into_iter()
        .find(|name| rest.starts_with(name))?;
    let (above, middle) = latex_argument(text, at + name.len())?;
    let (below, end) = latex_argument(text, middle)?;
    Some(Unsigned {
        value: above.checked_div(below),
        end,
    })
    .filter(|found| found.value.is_some())
}

/// A number's longest sensible spelling; it also keeps the search for the closing brace short.
const MAX_ARGUMENT_BYTES: usize = 64;

/// One argument of a LaTeX command: a braced number or a single digit.
fn latex_argument(text: &str, at: usize) -> Option<(Number, usize)> {
    let start = at + text[at..].len() - text[at..].trim_start_matches(' ').len();
    let inner = text[start..].strip_prefix('{');
    let Some(inner) = inner else {
        let digit = text[start..].chars().next()?.to_digit(10)?;
        return Some((Number::from(i64::from(digit)), start + 1));
    };
    let len = inner
        .bytes()
        .take(MAX_ARGUMENT_BYTES)
        .position(|byte| byte == b'}')?;
    let argument = inner.get(..len)?.trim();
    let (digits, negative) = match argument.strip_prefix(['-', '\u{2212}']) {
        Some(digits) => (digits, true),
        None => (argument, false),
    };
    let decimal = digits
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| decimal_at(digits, 0))?;
    let value = decimal.value.filter(|_| decimal.end == digits.len())?;
    let value = if negative {
        value.checked_neg()?
    } else {
        value
    };
    Some((value, start + 1 + len + 1))
}

fn is_currency(character: char) -> bool {
    matches!(character, '$' | '€' | '£')
}

/// Where the minus of a number that starts at `start` stands, not looking back beyond `floor`.
fn sign_before(text: &str, floor: usize, start: usize) -> Option<usize> {
    let before = &text[floor..start];
    let uncoined = before
        .trim_end_matches(' ')
        .trim_end_matches(|c| is_currency(c) || c == '\\');
    // "-3" has its minus next to the digits, "-$3" before the currency; "- 3" is a list or a
    // subtraction.
    let has_currency = before.trim_end_matches(' ').len() > uncoined.len();
    let candidate = if has_currency { uncoined } else { before };
    let without_minus = candidate.strip_suffix(['-', '\u{2212}'])?;
    is_sign(&text[..floor + without_minus.len()]).then_some(floor + without_minus.len())
}

/// Whether a minus after `before` is a sign and not an operator or a hyphen.
fn is_sign(before: &str) -> bool {
    let operand_end = |c: char| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '%');
    let spaceless = before.trim_end_matches([' ', '\t']);
    let has_space = spaceless.len() < before.len();
    match spaceless.chars().next_back() {
        None => true,
        // "$-3" is minus three, "350$-3" a subtraction.
        Some(last) if is_currency(last) => !spaceless
            .trim_end_matches(is_currency)
            .ends_with(operand_end),
        // After a space a word is no operand ("is -7"), a number or a bracket is ("16 -3").
        Some(last) if has_space => !(last.is_numeric() || matches!(last, ')' | ']' | '}' | '%')),
        Some(last) => !operand_end(last),
    }
}

#[cfg(test)]
mod tests;
