//! Accuracy by the number of reasoning steps of the gold solution.

use std::collections::HashMap;

use data::{
    annotation::annotations,
    question::Question,
    record::{Attempt, Verdict},
    stats::{Interval, wilson},
};
use serde::{Deserialize, Serialize};

/// Questions with so many steps or more are counted together: in GSM8K's test split 2 to 11 occur,
/// and hardly any has more than 8.
pub const MAX_STEPS: u32 = 8;

/// The questions whose gold solution has so many steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepAccuracy {
    /// [`MAX_STEPS`] stands for that many and more.
    pub steps: u32,
    pub questions: u64,
    pub right: u64,
    /// Wilson's 95 % interval of the share.
    pub interval: Interval,
}

/// The steps of a gold answer: its lines before `####`; of a solution in one line, its calculator
/// annotations where it has any. `None` for an answer without reasoning.
pub fn num_steps(answer: &str) -> Option<u32> {
    let reasoning = &answer[..answer.rfind("####")?];
    let lines = reasoning.split('\n').filter(|line| !line.trim().is_empty());
    match lines.count() {
        0 => None,
        1 => Some(annotations(reasoning).count().max(1) as u32),
        lines => Some(lines as u32),
    }
}

/// Gives the questions without steps too; all together are the questions that were answered.
pub(super) fn by_steps(questions: &[Question], attempts: &[&Attempt]) -> (Vec<StepAccuracy>, u64) {
    let steps_of: HashMap<&str, Option<u32>> = questions
        .iter()
        .map(|question| (question.id.as_str(), num_steps(&question.answer)))
        .collect();
    // (questions, right) for 1 step, 2 steps, ...
    let mut counts = [(0u64, 0u64); MAX_STEPS as usize];
    let mut num_without_steps = 0;
    for attempt in attempts {
        match steps_of
            .get(attempt.question_id.as_str())
            .copied()
            .flatten()
        {
            None => num_without_steps += 1,
            Some(steps) => {
                let (questions, right) = &mut counts[steps.min(MAX_STEPS) as usize - 1];
                *questions += 1;
                *right += u64::from(attempt.verdict == Verdict::Right);
            }
        }
    }
    let rows = (1..)
        .zip(counts)
        .filter(|(_, (questions, _))| *questions > 0);
    let row = |(steps, (questions, right))| StepAccuracy {
        steps,
        questions,
        right,
        interval: wilson(right, questions),
    };
    (rows.map(row).collect(), num_without_steps)
}
