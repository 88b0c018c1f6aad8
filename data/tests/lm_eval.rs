//! The rules of other harnesses against their own definitions: regular expressions and replacements
//! as lm-evaluation-harness' task `gsm8k` (version 3.0) and OpenAI's reference code state them.

mod common;

use common::gsm8k;
use data::{
    annotation,
    answer::{Rule, extract},
    number::Number,
};
use regex::Regex;

/// What the harness finds, and how it compares.
struct Definition {
    rule: Rule,
    pattern: Regex,
    /// Which of all matches counts.
    select: fn(usize) -> usize,
    /// Removed before strings are compared, in this order, from both sides.
    ignored: Vec<Regex>,
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns are fixed")
}

fn definitions() -> [Definition; 3] {
    let exact_match = || [",", r"\$", "(?s).*#### ", r"\.$"].map(regex).to_vec();
    let marked = || regex(r"#### (\-?[0-9\.\,]+)");
    [
        Definition {
            rule: Rule::LmStrict,
            pattern: marked(),
            select: |_| 0,
            ignored: exact_match(),
        },
        Definition {
            rule: Rule::LmFlexible,
            pattern: regex(r"(-?[$0-9.,]{2,})|(-?[0-9]+)"),
            select: |num_matches| num_matches - 1,
            ignored: exact_match(),
        },
        Definition {
            rule: Rule::OpenAi,
            pattern: marked(),
            select: |_| 0,
            ignored: vec![regex(",")],
        },
    ]
}

impl Definition {
    /// The text that is compared; `None` is the harness's `[invalid]`.
    fn candidate(&self, text: &str) -> Option<String> {
        let matches: Vec<regex::Captures> = self.pattern.captures_iter(text).collect();
        let last = matches.len().checked_sub(1)?;
        let groups = &matches[(self.select)(last + 1)];
        let group = groups
            .iter()
            .skip(1)
            .flatten()
            .find(|group| !group.is_empty());
        Some(self.normalised(group?.as_str()))
    }

    fn normalised(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for ignored in &self.ignored {
            text = ignored.replace_all(&text, "").into_owned();
        }
        text.to_lowercase()
    }

    fn check(&self, text: &str) {
        let found = extract(text, self.rule);
        let candidate = self.candidate(text);
        assert_eq!(
            found.found_by.map(|_| found.candidate.clone()),
            candidate,
            "{} of {text:?}",
            self.rule
        );
        for gold in [18, -7, 1450, 0] {
            let gold = Number::from(gold);
            let is_right = candidate == Some(gold.to_string());
            assert_eq!(found.is_right(gold), is_right, "{} of {text:?}", self.rule);
        }
    }
}

/// On every gold answer of GSM8K, whole, without annotations, without its last line and cut in the
/// middle, each rule finds what its definition finds, and scores as it does against the full gold
/// text.
#[test]
fn agree_on_gold_answers() {
    let Some(sets) = gsm8k() else { return };
    for question in sets.iter().flat_map(|set| &set.questions) {
        let answer = &question.answer;
        let stripped = annotation::strip(answer);
        let solution = question.solution();
        let half: String = stripped
            .chars()
            .take(stripped.chars().count() / 2)
            .collect();
        for definition in &definitions() {
            for text in [answer, &stripped, &solution, &half] {
                definition.check(text);
            }
            let is_right = definition.candidate(answer)
                == definition.candidate(&format!("#### {}", question.gold));
            assert_eq!(
                extract(answer, definition.rule).is_right(question.gold),
                is_right
            );
            if definition.rule != Rule::OpenAi {
                assert_eq!(
                    definition.candidate(answer),
                    Some(definition.normalised(answer))
                );
            }
        }
    }
}

/// On texts of the characters that numbers and markers are made of, thrown together from a seed.
#[test]
fn agree_on_random_texts() {
    const PIECES: [&str; 28] = [
        "0", "1", "18", "7", "450", "-", "-", ".", ".", ",", ",", "$", "$", "#", "####", "#### ",
        "#### -", " ", "\n", "%", "=", "a", "\u{2212}", "½", "٣", "e", "/", "\r",
    ];
    let definitions = definitions();
    for seed in 0..40_000_u64 {
        let mut state = seed;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(0x9E37_79B9_7F4A_7C15);
            (state >> 33) as usize % below
        };
        let text: String = (0..next(24)).map(|_| PIECES[next(PIECES.len())]).collect();
        for definition in &definitions {
            definition.check(&text);
        }
    }
}
