//! The demo's own world: a seeded generator of grade-school word problems in GSM8K's format, and of
//! the text that the demo's base model was pre-trained on.
//!
//! A problem is told by a family (who has what, and what happens to it) as sentences beside the
//! steps that solve it. Known families occur everywhere; unseen ones in the test split only.

mod corpus;
mod family;
mod rng;
mod solution;
mod story;
mod words;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use corpus::Corpus;

use family::Family;
use rng::Rng;

/// How many problems to write, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitSizes {
    pub num_train: usize,
    pub num_test: usize,
}

/// One line of a question file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    pub question: String,
    /// Steps with calculator annotations, then `#### n`.
    pub answer: String,
    /// The family that told it, and its number of steps: for analysis, no part of the task.
    pub family: &'static str,
    pub num_steps: usize,
}

/// The two splits; no question occurs twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits {
    pub train: Vec<Problem>,
    pub test: Vec<Problem>,
}

/// How many steps the problems of the splits have: weights for 1 to 6. Longer than the
/// pre-training text on purpose.
const STEP_WEIGHTS: [i64; 6] = [0, 25, 25, 20, 16, 14];
/// Of the test split, how many in a hundred come from families that occur nowhere else.
const UNSEEN_PERCENT: i64 = 15;

/// Writes both splits from a seed.
pub fn splits(seed: u64, sizes: SplitSizes) -> Splits {
    let mut rng = Rng::new(seed);
    let mut told = HashSet::new();
    let test = (0..sizes.num_test)
        .map(|_| {
            let unseen = rng.chance(UNSEEN_PERCENT);
            let families = if unseen {
                family::UNSEEN
            } else {
                family::KNOWN
            };
            new_problem(&mut rng, families, &mut told)
        })
        .collect();
    let train = (0..sizes.num_train)
        .map(|_| new_problem(&mut rng, family::KNOWN, &mut told))
        .collect();
    Splits { train, test }
}

fn new_problem(rng: &mut Rng, families: &[Family], told: &mut HashSet<String>) -> Problem {
    loop {
        let family = &families[rng.index(families.len())];
        let num_steps = rng.weighted(&STEP_WEIGHTS) + 1;
        let problem = family.tell(rng, num_steps);
        if told.insert(problem.question.clone()) {
            let answer = solution::reference(&problem);
            let question = problem.question;
            return Problem {
                question,
                answer,
                family: family.name,
                num_steps,
            };
        }
    }
}
