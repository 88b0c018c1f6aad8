//! The text that the demo's base model is pre-trained on.
//!
//! Like text from the web it is not made for the task: most problems in it are short, few are long;
//! some kinds of questions are mostly answered off-hand, without a step (`Family::offhand_percent`);
//! explanations of an answer that is already known (the hint prompt) are always worked out; and
//! there are sums without any story. So the base model knows how to reason but does not always do
//! it, which is the gap that STaR closes, and its hints work, because explaining a known answer is
//! where it has only ever seen careful work.

use std::collections::HashSet;

use super::{
    family::{self, Family},
    rng::Rng,
    solution,
    story::Told,
};
use crate::{
    conversation::Asked,
    number::Number,
    prompt::{PromptError, PromptFormat, PromptTemplate},
};

/// How many steps the problems of the pre-training text have: weights for 1 to 6.
const STEP_WEIGHTS: [i64; 6] = [20, 34, 24, 12, 6, 4];
/// What a document is: under the forward prompt, under the hint prompt, bare sums.
const KIND_WEIGHTS: [i64; 3] = [58, 27, 15];

/// An endless, seeded stream of pre-training documents.
#[derive(Debug)]
pub struct Corpus {
    rng: Rng,
    forward: PromptTemplate,
    hint: PromptTemplate,
    /// Questions of the splits, which must not occur.
    excluded: HashSet<String>,
}

impl Corpus {
    /// Documents drawn from `seed` under the given forward and hint prompts; no question of
    /// `excluded` occurs. A prompt of the wrong kind is refused.
    pub fn new(
        seed: u64,
        (forward, hint): (PromptTemplate, PromptTemplate),
        excluded: HashSet<String>,
    ) -> Result<Self, PromptError> {
        forward.render("", PromptFormat::Plain)?;
        hint.render_hint("", Number::from(0), PromptFormat::Plain)?;
        Ok(Self {
            rng: Rng::new(seed),
            forward,
            hint,
            excluded,
        })
    }

    fn problem(&mut self) -> (&'static Family, Told) {
        loop {
            let family = &family::KNOWN[self.rng.index(family::KNOWN.len())];
            let num_steps = self.rng.weighted(&STEP_WEIGHTS) + 1;
            let told = family.tell(&mut self.rng, num_steps);
            if !self.excluded.contains(&told.question) {
                return (family, told);
            }
        }
    }

    fn forward_document(&mut self) -> String {
        let (family, told) = self.problem();
        let prompt = text(self.forward.render(&told.question, PromptFormat::Plain));
        let offhand = self.rng.chance(family.offhand_percent);
        let answer = if offhand {
            solution::offhand(&told)
        } else {
            solution::step_by_step(&told)
        };
        format!("{prompt} {answer}")
    }

    fn hint_document(&mut self) -> String {
        let (_, told) = self.problem();
        let gold = Number::from(told.answer);
        let prompt = self
            .hint
            .render_hint(&told.question, gold, PromptFormat::Plain);
        let prompt = text(prompt);
        format!("{prompt} {}", solution::step_by_step(&told))
    }

    /// Ten sums in a row.
    fn drill_document(&mut self) -> String {
        let sums: Vec<String> = (0..10).map(|_| self.sum()).collect();
        sums.join("\n")
    }

    fn sum(&mut self) -> String {
        let rng = &mut self.rng;
        match rng.between(0, 3) {
            0 => {
                let (left, right) = (rng.between(2, 500), rng.between(2, 200));
                format!("{left} + {right} = {}", left + right)
            }
            1 => {
                let (right, value) = (rng.between(2, 200), rng.between(1, 500));
                format!("{} - {right} = {value}", right + value)
            }
            2 => {
                let (left, right) = (rng.between(2, 80), rng.between(2, 12));
                format!("{left} * {right} = {}", left * right)
            }
            _ => {
                let (value, right) = (rng.between(2, 80), rng.between(2, 12));
                format!("{} / {right} = {value}", value * right)
            }
        }
    }
}

/// The text of a prompt that [`Corpus::new`] has checked.
fn text(rendered: Result<Asked, PromptError>) -> String {
    match rendered {
        Ok(Asked::Text(text)) => text,
        other => unreachable!("a plain prompt of the right kind renders as text: {other:?}"),
    }
}

impl Iterator for Corpus {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        Some(match self.rng.weighted(&KIND_WEIGHTS) {
            0 => self.forward_document(),
            1 => self.hint_document(),
            _ => self.drill_document(),
        })
    }
}
