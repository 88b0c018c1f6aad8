//! Questions that changed sides between two models, a few of them in full.

use std::collections::HashMap;

use data::{
    number::Number,
    question::Question,
    record::{Attempt, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::files::sha256_hex;

/// So many are shown of each kind.
const MAX_EXAMPLES: usize = 3;
/// A longer text loses its middle.
const MAX_CHARS: usize = 1500;

/// The questions that changed to one side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flips {
    pub num_questions: u64,
    /// Those whose ids have the smallest SHA-256: nobody's choice, and the same ones each time.
    pub examples: Vec<Example>,
}

/// A question and what both models made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub question_id: String,
    pub question: String,
    pub gold: Number,
    pub before: Output,
    pub after: Output,
}

/// An answer to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Without its middle where it is long.
    pub text: String,
    pub value: Option<Number>,
    pub verdict: Verdict,
    pub num_tokens: u32,
}

impl Output {
    fn of(attempt: &Attempt) -> Self {
        Self {
            text: shorten(&attempt.text),
            value: attempt.value,
            verdict: attempt.verdict,
            num_tokens: attempt.num_tokens,
        }
    }
}

/// The questions that only the second model got right, and those that only the first did.
pub(super) fn flips(
    questions: &[Question],
    before: &[&Attempt],
    after: &[&Attempt],
) -> (Flips, Flips) {
    let by_id = |attempts: &[&Attempt]| -> HashMap<String, Attempt> {
        attempts
            .iter()
            .map(|&attempt| (attempt.question_id.clone(), attempt.clone()))
            .collect()
    };
    let (before, after) = (by_id(before), by_id(after));
    let (mut fixed, mut broken) = (Vec::new(), Vec::new());
    for question in questions {
        let (Some(before), Some(after)) = (before.get(&question.id), after.get(&question.id))
        else {
            continue;
        };
        let is_right = |attempt: &Attempt| attempt.verdict == Verdict::Right;
        match (is_right(before), is_right(after)) {
            (false, true) => fixed.push((question, before, after)),
            (true, false) => broken.push((question, before, after)),
            _ => {}
        }
    }
    (pick(fixed), pick(broken))
}

fn pick(mut flipped: Vec<(&Question, &Attempt, &Attempt)>) -> Flips {
    flipped.sort_by_cached_key(|(question, ..)| sha256_hex(question.id.as_bytes()));
    let num_questions = flipped.len() as u64;
    flipped.truncate(MAX_EXAMPLES);
    let example = |(question, before, after): (&Question, &Attempt, &Attempt)| Example {
        question_id: question.id.clone(),
        question: shorten(&question.question),
        gold: question.gold,
        before: Output::of(before),
        after: Output::of(after),
    };
    Flips {
        num_questions,
        examples: flipped.into_iter().map(example).collect(),
    }
}

/// Leaves out the middle of a long text and says how much of it.
fn shorten(text: &str) -> String {
    let num_chars = text.chars().count();
    if num_chars <= MAX_CHARS {
        return text.to_owned();
    }
    let half = MAX_CHARS / 2;
    let start: String = text.chars().take(half).collect();
    let end: String = text.chars().skip(num_chars - half).collect();
    format!(
        "{start}\n[... {} characters left out ...]\n{end}",
        num_chars - 2 * half
    )
}
