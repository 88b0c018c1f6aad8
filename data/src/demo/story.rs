//! How a word problem is put together: sentences of the question beside the steps that solve it.

use super::{rng::Rng, words};

/// The largest number that may occur. Digits are single tokens, so this bounds the arithmetic that
/// a model of a few million parameters has to learn.
const MAX_VALUE: i64 = 999;
/// The largest smaller factor of a product, and the largest divisor: the times table up to 12.
const MAX_SMALL_FACTOR: i64 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Op {
    pub(super) fn symbol(self) -> char {
        match self {
            Op::Add => '+',
            Op::Subtract => '-',
            Op::Multiply => '*',
            Op::Divide => '/',
        }
    }
}

/// One line of a solution: `{lead} {left} {op} {right} = {value} {tail}.`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) lead: String,
    pub(super) left: i64,
    pub(super) op: Op,
    pub(super) right: i64,
    pub(super) value: i64,
    pub(super) tail: String,
}

/// A question under construction. The methods return `None` where the numbers would leave the
/// range the demo allows; the caller then draws another problem.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) rng: &'a mut Rng,
    sentences: Vec<String>,
    steps: Vec<Step>,
    num_steps: usize,
}

impl<'a> Story<'a> {
    pub(super) fn new(rng: &'a mut Rng, num_steps: usize) -> Self {
        Self {
            rng,
            sentences: Vec::new(),
            steps: Vec::new(),
            num_steps,
        }
    }

    /// Steps that are still to be told to reach the wanted number.
    pub(super) fn steps_left(&self) -> usize {
        self.num_steps.saturating_sub(self.steps.len())
    }

    pub(super) fn say(&mut self, sentence: impl Into<String>) {
        self.sentences.push(sentence.into());
    }

    pub(super) fn add(&mut self, lead: &str, (left, right): (i64, i64), tail: &str) -> Option<i64> {
        self.step(lead, (left, Op::Add, right), left + right, tail)
    }

    pub(super) fn subtract(
        &mut self,
        lead: &str,
        (left, right): (i64, i64),
        tail: &str,
    ) -> Option<i64> {
        self.step(lead, (left, Op::Subtract, right), left - right, tail)
    }

    pub(super) fn multiply(
        &mut self,
        lead: &str,
        (left, right): (i64, i64),
        tail: &str,
    ) -> Option<i64> {
        if left.min(right) > MAX_SMALL_FACTOR {
            return None;
        }
        self.step(lead, (left, Op::Multiply, right), left * right, tail)
    }

    /// Exact division by a small number.
    pub(super) fn divide(
        &mut self,
        lead: &str,
        (left, right): (i64, i64),
        tail: &str,
    ) -> Option<i64> {
        if !(2..=MAX_SMALL_FACTOR).contains(&right) || left % right != 0 {
            return None;
        }
        self.step(lead, (left, Op::Divide, right), left / right, tail)
    }

    fn step(
        &mut self,
        lead: &str,
        (left, op, right): (i64, Op, i64),
        value: i64,
        tail: &str,
    ) -> Option<i64> {
        let allowed = 1..=MAX_VALUE;
        if ![left, right, value]
            .iter()
            .all(|number| allowed.contains(number))
        {
            return None;
        }
        let (lead, tail) = (lead.to_owned(), tail.to_owned());
        self.steps.push(Step {
            lead,
            left,
            op,
            right,
            value,
            tail,
        });
        Some(value)
    }

    /// A fact that has nothing to do with the question, now and then.
    fn distract(&mut self) {
        if !self.rng.chance(20) {
            return;
        }
        let name = words::person(self.rng).name;
        let number = self.rng.between(2, 60);
        let fact = match self.rng.between(0, 3) {
            0 => format!("{name} is {number} years old."),
            1 => format!("It is {number} degrees outside."),
            2 => format!("The bus ride home takes {number} minutes."),
            _ => format!("{name} lives at number {number}."),
        };
        let place = 1 + self.rng.index(self.sentences.len().max(1));
        self.sentences.insert(place.min(self.sentences.len()), fact);
    }

    /// Closes the question. `None` where it did not come to the wanted number of steps.
    pub(super) fn ask(mut self, question: impl Into<String>) -> Option<Told> {
        if self.steps.len() != self.num_steps {
            return None;
        }
        self.distract();
        self.sentences.push(question.into());
        let answer = self.steps.last()?.value;
        Some(Told {
            question: self.sentences.join(" "),
            steps: self.steps,
            answer,
        })
    }
}

/// A finished problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) question: String,
    pub(super) steps: Vec<Step>,
    pub(super) answer: i64,
}
