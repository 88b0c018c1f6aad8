//! How a problem is solved in words: as a data set's reference answer, step by step, or off-hand.

use super::story::{Step, Told};

/// The reference answer, in GSM8K's form: one line a step with the calculator annotation, then
/// `#### n`.
pub(super) fn reference(told: &Told) -> String {
    let mut text = String::new();
    for step in &told.steps {
        let Step { lead, left, op, right, value, tail } = step;
        let op = op.symbol();
        text.push_str(&format!(
            "{lead} {left} {op} {right} = <<{left}{op}{right}={value}>>{value} {tail}.\n"
        ));
    }
    text.push_str(&format!("#### {}", told.answer));
    text
}

/// Every step, then the conclusion.
pub(super) fn step_by_step(told: &Told) -> String {
    let mut text = String::new();
    for step in &told.steps {
        let Step { lead, left, op, right, value, tail } = step;
        text.push_str(&format!("{lead} {left} {} {right} = {value} {tail}.\n", op.symbol()));
    }
    text.push_str(&offhand(told));
    text
}

/// The conclusion alone.
pub(super) fn offhand(told: &Told) -> String {
    format!("The final answer is {}.", told.answer)
}
