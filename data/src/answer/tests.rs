//! What each rule makes of the shapes that answers come in.

mod any_text;
mod round_trip;
mod shapes;

use super::{Extraction, Flag, FoundBy, Rule, extract, extract_all};
use crate::number::Number;

/// Numbers from a seed.
struct Draw(u64);

impl Draw {
    fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        (self.0 >> 24) as usize % limit
    }

    fn of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }
}

/// What a rule compares, for the table below; `-` where it finds nothing, `?` for a number too large.
fn shown(extraction: &Extraction) -> String {
    match (extraction.found_by, extraction.rule) {
        (None, _) => "-".into(),
        (_, Rule::Numeric | Rule::Report) => extraction
            .value
            .map_or("?".into(), |value| value.to_string()),
        _ => extraction.candidate.clone(),
    }
}

/// One row a shape: what numeric, openai, lm-strict, lm-flexible and report compare.
///
/// The columns of the other harnesses keep their harness's faults on purpose (`29.00`, `...`, a lost
/// currency answer), which is what makes them comparable with published numbers.
#[test]
fn shapes() {
    #[rustfmt::skip]
    let table: &[(&str, [&str; 5])] = &[
        // After ####.
        ("13 + 5 = 18\n#### 18",                ["18", "18", "18", "18", "18"]),
        ("#### 1,450",                          ["1450", "1450", "1450", "1450", "1450"]),
        ("#### -7",                             ["-7", "-7", "-7", "-7", "-7"]),
        ("#### \u{2212}7",                      ["-7", "-", "-", "7", "-7"]),
        ("#### 57.00",                          ["57", "57.00", "57.00", "57.00", "57"]),
        ("#### 18.",                            ["18", "18.", "18", "18", "18"]),
        ("#### $18",                            ["18", "-", "-", "18", "18"]),
        ("#### $29.00",                         ["29", "-", "-", "29.00", "29"]),
        ("#### 350$",                           ["350", "350", "350", "350", "350"]),
        ("#### 25%",                            ["25", "25", "25", "25", "25"]),
        ("#### 3/4",                            ["0.75", "3", "3", "4", "0.75"]),
        ("#### [18]",                           ["18", "-", "-", "18", "18"]),
        ("#### **18**",                         ["18", "-", "-", "18", "18"]),
        ("#### 18 eggs",                        ["18", "18", "18", "18", "18"]),
        ("#### x = 18",                         ["18", "-", "-", "18", "18"]),
        ("####18",                              ["18", "-", "-", "18", "18"]),
        ("####\n\n18",                          ["18", "-", "-", "18", "18"]),
        ("#### 5\nQ: next?\n#### 9",            ["9", "5", "5", "9", "5"]),
        ("#### 12 (16 - 4 = 12)",               ["12", "12", "12", "12", "12"]),
        ("#### 9 * 2 = 18",                     ["18", "9", "9", "18", "9"]),
        ("#### 12 = 3 * 4",                     ["12", "12", "12", "4", "12"]),
        ("#### Step 2: add\nIt is 18.",         ["18", "-", "-", "18", "2"]),
        ("#### none\nThe answer is 18",         ["18", "-", "-", "18", "18"]),
        // \boxed{}.
        ("so $\\boxed{18}$ of 20",              ["18", "-", "-", "20", "20"]),
        ("\\boxed{\\$1{,}450}",                 ["1450", "-", "-", "450", "1450"]),
        ("\\boxed{\\frac{3}{4}}",               ["0.75", "-", "-", "4", "0.75"]),
        ("\\boxed{\\text{18 eggs}}",            ["18", "-", "-", "18", "18"]),
        ("\\boxed{x} then \\boxed{7}, not 8",   ["7", "-", "-", "8", "8"]),
        ("\\boxed{18 and 20",                   ["20", "-", "-", "20", "20"]),
        // "answer is".
        ("The final answer is 18. 2 are left.", ["18", "-", "-", "2", "2"]),
        ("**Answer:** $1,450",                  ["1450", "-", "-", "$1,450", "1450"]),
        ("Answer: 16 - 3 = 13 eggs. See 4",     ["13", "-", "-", "4", "4"]),
        ("The answer is clear. We get 5",       ["5", "-", "-", "5", "5"]),
        ("Final Answer:\n\n**18**\n(of 20)",    ["18", "-", "-", "20", "20"]),
        ("Answers: 3 and 4",                    ["4", "-", "-", "4", "4"]),
        // No marker.
        ("She has 18 eggs",                     ["18", "-", "-", "18", "18"]),
        ("$118 000",                            ["118000", "-", "-", "000", "118000"]),
        ("a loss of -$3",                       ["-3", "-", "-", "-$3", "-3"]),
        ("16-3",                                ["3", "-", "-", "-3", "3"]),
        ("it is 18...",                         ["18", "-", "-", "18..", "18"]),
        ("18, so ...",                          ["18", "-", "-", "..", "18"]),
        ("no number at all",                    ["-", "-", "-", "-", "-"]),
        ("",                                    ["-", "-", "-", "-", "-"]),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let found = extract_all(text).map(|extraction| shown(&extraction));
        // What `exact_match` removes before it compares.
        let expected = [0, 1, 2, 3, 4].map(|column| match column {
            3 => expected[column].replace(['$', ','], ""),
            _ => expected[column].to_owned(),
        });
        if found != expected {
            wrong.push(format!(
                "{text:?}\n  found    {found:?}\n  expected {expected:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Numbers are compared as numbers by our rules, as strings by the rules of others.
#[test]
fn right_under_its_own_rule() {
    let gold = Number::from(29);
    let right = extract_all("#### 29.00").map(|extraction| extraction.is_right(gold));
    assert_eq!(right, [true, false, false, false, true]);
    let right = extract_all("#### 29").map(|extraction| extraction.is_right(gold));
    assert_eq!(right, [true; 5]);
    let right = extract_all("nothing").map(|extraction| extraction.is_right(gold));
    assert_eq!(right, [false; 5]);
}

/// The marker that was used is named, and a guess is flagged as one.
#[test]
fn found_by_and_fallback() {
    for (text, found_by, flags) in [
        ("#### 5", FoundBy::HashMark, vec![]),
        ("\\boxed{5} 6", FoundBy::Boxed, vec![]),
        ("the answer is 5", FoundBy::AnswerIs, vec![]),
        ("it costs 5", FoundBy::LastNumber, vec![Flag::Fallback]),
        (
            "#### 5\n#### 5",
            FoundBy::HashMark,
            vec![Flag::SeveralMarkers],
        ),
        (
            "#### 4\n#### 5",
            FoundBy::HashMark,
            vec![Flag::SeveralMarkers, Flag::ConflictingMarkers],
        ),
        ("#### 5 or 6", FoundBy::HashMark, vec![Flag::SeveralNumbers]),
        ("#### 5 + 6", FoundBy::HashMark, vec![Flag::SeveralNumbers]),
    ] {
        let extraction = extract(text, Rule::Numeric);
        assert_eq!(extraction.found_by, Some(found_by), "{text:?}");
        assert_eq!(
            extraction.value.unwrap().numerator().rem_euclid(100),
            5,
            "{text:?}"
        );
        assert_eq!(extraction.flags, flags, "{text:?}");
    }
}

/// A number too large to hold is a wrong answer, not a missing one and not an earlier number.
#[test]
fn too_large_is_wrong() {
    let text = format!("from 5 we get\n#### {}", "9".repeat(50));
    let extraction = extract(&text, Rule::Numeric);
    assert_eq!(
        (extraction.value, extraction.found_by),
        (None, Some(FoundBy::HashMark))
    );
    assert_eq!(extraction.flags, [Flag::Unrepresentable]);
}

/// The span points at the number in the original text.
#[test]
fn span_is_in_the_text() {
    let text = "½ of it…\nThe ANSWER is **$1,450**.";
    for extraction in extract_all(text) {
        if let Some(span) = extraction.span {
            assert!(text[span].ends_with("1,450") || extraction.rule == Rule::LmFlexible);
        }
    }
}

/// Rules are named on the command line and in files by the same words.
#[test]
fn rule_names() {
    for rule in Rule::ALL {
        assert_eq!(rule.name().parse(), Ok(rule));
        assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
    }
    assert_eq!(
        "strict".parse::<Rule>().unwrap_err().to_string(),
        "unknown extraction rule \"strict\"; \
         known rules: numeric, openai, lm-strict, lm-flexible, report"
    );
}
