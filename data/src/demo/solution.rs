//! How a problem is solved in words: as a data set's reference answer, step by step, or off-hand.

use super::story::{Step, Told};
use crate::annotation;

/// The reference answer, in GSM8K's form: one line a step with the calculator annotation, then
/// `#### n`.
pub(super) fn reference(told: &Told) -> String {
    format!("{}#### {}", annotated_steps(told), told.answer)
}

/// Every step under a heading, then the conclusion. The heading makes "to reason or not" one choice
/// of one token, and not one against as many beginnings as there are first steps.
pub(super) fn step_by_step(told: &Told) -> String {
    let steps = annotation::strip(&annotated_steps(told));
    format!("Reasoning:\n{steps}{}", offhand(told))
}

/// The conclusion alone.
pub(super) fn offhand(told: &Told) -> String {
    format!("The final answer is {}.", told.answer)
}

fn annotated_steps(told: &Told) -> String {
    let line = |step: &Step| {
        let Step {
            lead,
            left,
            op,
            right,
            value,
            tail,
        } = step;
        let op = op.symbol();
        format!("{lead} {left} {op} {right} = <<{left}{op}{right}={value}>>{value} {tail}.\n")
    };
    told.steps.iter().map(line).collect()
}
