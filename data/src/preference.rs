//! Preference pairs: for one question a right text and a wrong one, what DPO and verifiers learn
//! from.
//!
//! A view over the attempts, as the accepted set is; the attempts' order does not matter.

use crate::{
    answer::Flag,
    by_question::ByQuestion,
    conversation::{Asked, Role},
    example::ExampleText,
    prompt::{PromptError, PromptFormat, PromptTemplate},
    question::Question,
    record::{Attempt, Verdict},
    select::{Duplicates, Gate},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Which texts are paired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairPolicy {
    /// At least 1.
    pub max_per_question: usize,
    /// Which texts of one side count as the same; the first of them stays.
    pub duplicates: Duplicates,
    /// Whether right answers that no marker points at may be chosen.
    pub fallback: Gate,
    /// Whether texts that were cut may be rejected ones. They teach to be short as well.
    pub truncated: Gate,
}

impl Default for PairPolicy {
    fn default() -> PairPolicy {
        PairPolicy {
            max_per_question: 1,
            duplicates: Duplicates::Texts,
            fallback: Gate::Reject,
            truncated: Gate::Reject,
        }
    }
}

/// A right and a wrong text for one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferencePair {
    pub question: String,
    pub gold_answer: String,
    pub chosen: String,
    pub rejected: String,
    pub question_id: String,
    pub chosen_origin: Origin,
    pub rejected_origin: Origin,
}

/// Which attempt a text is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub iteration: u32,
    pub sample: u32,
    pub seed: u64,
    pub weights_digest: String,
    pub prompt_digest: String,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairOutcome {
    Paired,
    /// Texts to choose, none to reject.
    NoneWrong,
    /// Texts to reject, none to choose.
    NoneRight,
    /// Neither: cut or doubtful texts only.
    NoneUsable,
    /// No forward attempt in the log.
    NotAttempted,
}

/// The pairs and where every question went.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSet {
    /// In the order of the questions.
    pub pairs: Vec<PreferencePair>,
    /// Sums to the number of questions; outcomes that did not occur are absent.
    pub outcomes: BTreeMap<PairOutcome, usize>,
}

/// A pair in the form that TRL and others train on: keys `prompt`, `chosen` and `rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RenderedPair {
    pub prompt: Rendered,
    pub chosen: Rendered,
    pub rejected: Rendered,
}

/// Text, or a list of messages where the format is [`PromptFormat::Chat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Rendered {
    Text(String),
    Messages(Vec<RenderedMessage>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RenderedMessage {
    pub role: &'static str,
    pub content: String,
}

/// Pairs the forward attempts of each question: chosen are right ones that ended by themselves,
/// rejected are those that ended by themselves with a wrong answer or none. Each text is used as
/// rarely as the number of pairs allows.
pub fn preference_pairs(
    questions: &[Question],
    attempts: &[Attempt],
    policy: &PairPolicy,
) -> PairSet {
    let by_question = ByQuestion::new(questions, attempts);
    let mut set = PairSet {
        pairs: Vec::new(),
        outcomes: BTreeMap::new(),
    };
    for question in questions {
        let mut sides = Sides::default();
        let mut num_attempts = 0;
        for attempt in by_question.forward(question) {
            num_attempts += 1;
            sides.take(attempt, policy);
        }
        let outcome = match (sides.chosen.is_empty(), sides.rejected.is_empty()) {
            (false, false) => PairOutcome::Paired,
            (false, true) => PairOutcome::NoneWrong,
            (true, false) => PairOutcome::NoneRight,
            (true, true) if num_attempts > 0 => PairOutcome::NoneUsable,
            (true, true) => PairOutcome::NotAttempted,
        };
        *set.outcomes.entry(outcome).or_default() += 1;
        let pairs = sides.pairs(policy.max_per_question.max(1));
        set.pairs.extend(
            pairs.map(|(chosen, rejected)| PreferencePair::new(question, chosen, rejected)),
        );
    }
    set
}

/// The texts of one question, each once.
#[derive(Default)]
struct Sides<'a> {
    chosen: Vec<&'a Attempt>,
    rejected: Vec<&'a Attempt>,
    seen_chosen: HashSet<String>,
    seen_rejected: HashSet<String>,
}

impl<'a> Sides<'a> {
    fn take(&mut self, attempt: &'a Attempt, policy: &PairPolicy) {
        let is_guess = attempt.flags.contains(&Flag::Fallback);
        let (side, seen) = match attempt.verdict {
            Verdict::Right if is_guess && policy.fallback == Gate::Reject => return,
            Verdict::Right => (&mut self.chosen, &mut self.seen_chosen),
            Verdict::Truncated if policy.truncated == Gate::Reject => return,
            Verdict::Wrong | Verdict::NoAnswer | Verdict::Truncated => {
                (&mut self.rejected, &mut self.seen_rejected)
            }
        };
        // A text that says nothing is nothing to learn from.
        let is_blank = attempt.text.trim().is_empty();
        if !is_blank && seen.insert(policy.duplicates.key(&attempt.text)) {
            side.push(attempt);
        }
    }

    /// Different pairs, walking both sides in step. After as many pairs as it takes for the two
    /// walks to meet again where they began, one side moves on by one.
    fn pairs(&self, max_pairs: usize) -> impl Iterator<Item = (&'a Attempt, &'a Attempt)> {
        let (num_chosen, num_rejected) = (self.chosen.len(), self.rejected.len());
        let num_pairs = (num_chosen * num_rejected).min(max_pairs);
        let round = least_common_multiple(num_chosen, num_rejected);
        (0..num_pairs).map(move |index| {
            let shifted = index + index / round;
            (
                self.chosen[index % num_chosen],
                self.rejected[shifted % num_rejected],
            )
        })
    }
}

fn least_common_multiple(left: usize, right: usize) -> usize {
    let (mut divisor, mut rest) = (left, right);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    left / divisor.max(1) * right
}

impl PreferencePair {
    fn new(question: &Question, chosen: &Attempt, rejected: &Attempt) -> PreferencePair {
        PreferencePair {
            question: question.question.clone(),
            gold_answer: question.gold.to_string(),
            chosen: chosen.text.trim().to_owned(),
            rejected: rejected.text.trim().to_owned(),
            question_id: question.id.clone(),
            chosen_origin: Origin::of(chosen),
            rejected_origin: Origin::of(rejected),
        }
    }

    /// The pair behind the prompt that it is to be trained with, joined as in every training
    /// example.
    pub fn render(
        &self,
        template: &PromptTemplate,
        format: PromptFormat,
    ) -> Result<RenderedPair, PromptError> {
        let (prompt, chosen) = self.rendered(&self.chosen, template, format)?;
        let (_, rejected) = self.rendered(&self.rejected, template, format)?;
        Ok(RenderedPair {
            prompt,
            chosen,
            rejected,
        })
    }

    /// Prompt and completion.
    fn rendered(
        &self,
        completion: &str,
        template: &PromptTemplate,
        format: PromptFormat,
    ) -> Result<(Rendered, Rendered), PromptError> {
        let example = ExampleText::Question {
            question: self.question.clone(),
            completion: completion.to_owned(),
        };
        let exchange = example
            .exchanges(template, format)?
            .pop()
            .expect("a question and its completion are one exchange");
        Ok(match exchange.asked {
            Asked::Text(prompt) => (Rendered::Text(prompt), Rendered::Text(exchange.completion)),
            Asked::Chat(messages) => {
                let asked = messages.into_iter().map(|message| RenderedMessage {
                    role: message.role.as_str(),
                    content: message.content,
                });
                let answered = RenderedMessage {
                    role: Role::Assistant.as_str(),
                    content: exchange.completion,
                };
                (
                    Rendered::Messages(asked.collect()),
                    Rendered::Messages(vec![answered]),
                )
            }
        })
    }
}

impl Origin {
    fn of(attempt: &Attempt) -> Origin {
        Origin {
            iteration: attempt.iteration,
            sample: attempt.sample,
            seed: attempt.seed,
            weights_digest: attempt.weights.digest.clone(),
            prompt_digest: attempt.prompt.digest.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
