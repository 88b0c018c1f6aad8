//! How a problem is solved in words: as a data set's reference answer, step by step, or off-hand.

use super::story::{Step, Told};

/// The reference answer, in GSM8K's form: one line a step with the calculator annotation, then
/// `#### n`.
pub(super) fn reference(told: &Told) -> String {
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
    let steps: String = told.steps.iter().map(line).collect();
    format!("{steps}#### {}", told.answer)
}

/// Every step under a heading, then the conclusion. The heading makes "to reason or not" one choice
/// of one token, and not one against as many beginnings as there are first steps.
pub(super) fn step_by_step(told: &Told) -> String {
    let line = |step: &Step| {
        let Step {
            lead,
            left,
            op,
            right,
            value,
            tail,
        } = step;
        format!("{lead} {left} {} {right} = {value} {tail}.\n", op.symbol())
    };
    let steps: String = told.steps.iter().map(line).collect();
    format!("Reasoning:\n{steps}{}", offhand(told))
}

/// The conclusion alone.
pub(super) fn offhand(told: &Told) -> String {
    format!("The final answer is {}.", told.answer)
}
