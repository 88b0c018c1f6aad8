//! How often a question is tried, and which of its tries are still to be made.

use data::record::{Attempt, Source};
use serde::{Deserialize, Serialize};

use crate::session::Ask;

/// How often a question is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// Forward samples that are made whatever comes of them.
    #[serde(default = "one")]
    pub samples: u32,
    /// Forward samples until one will do, `samples` included.
    pub max_forward: u32,
    /// Hint attempts until one will do.
    pub max_hints: u32,
}

fn one() -> u32 {
    1
}

impl Sampling {
    /// `samples` forward samples and nothing else: what an evaluation makes.
    pub fn only(samples: u32) -> Self {
        Self {
            samples,
            max_forward: samples,
            max_hints: 0,
        }
    }

    /// The forward samples that are made in any case and are not among the attempts.
    pub fn missing(&self, attempts: &[Attempt]) -> Vec<Ask> {
        let is_made = |sample: &u32| {
            attempts
                .iter()
                .any(|attempt| attempt.source == Source::Forward && attempt.sample == *sample)
        };
        (0..self.samples)
            .filter(|sample| !is_made(sample))
            .map(|sample| Ask {
                source: Source::Forward,
                sample,
            })
            .collect()
    }

    /// One more try of a question for which none of its tries did.
    pub fn next_try(&self, attempts: &[Attempt]) -> Option<Ask> {
        let made = |source: Source| {
            attempts
                .iter()
                .filter(|attempt| attempt.source == source)
                .count() as u32
        };
        let (num_forward, num_hints) = (made(Source::Forward), made(Source::Hint));
        let ask = |source, sample| Some(Ask { source, sample });
        if num_forward < self.max_forward {
            ask(Source::Forward, num_forward)
        } else if num_hints < self.max_hints {
            ask(Source::Hint, num_hints)
        } else {
            None
        }
    }
}
