//! How often a question is tried, and which of its tries are still to be made.

use std::ops::Range;

use data::record::{Attempt, Source, Verdict};
use serde::{Deserialize, Serialize};

use crate::{error::ClientError, session::Ask};

/// Of each kind: as many as the largest study of repeated sampling made (Brown et al. 2024, arXiv
/// 2407.21787). All samples of a question are in memory at a time.
pub const MAX_SAMPLES: u32 = 10_000;

/// How often a question is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// Forward samples that are made whatever comes of them.
    #[serde(default = "one")]
    pub samples: u32,
    /// More forward samples for a question that some of the first `samples` got right and some did
    /// not: there, another sample says most.
    #[serde(default)]
    pub extra_samples: u32,
    /// Forward samples until one will do, those above included.
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
            extra_samples: 0,
            max_forward: samples,
            max_hints: 0,
        }
    }

    /// Refuses what would be asked for in vain; the flags at fault are named. `temperature` is that of
    /// every sample but a prompt's first.
    pub fn check(&self, temperature: f32) -> Result<(), ClientError> {
        if self.extra_samples > 0 && self.samples < 2 {
            return Err(ClientError::Usage(format!(
                "--extra-samples {} with --samples {}: they are for questions that some of the first \
                 samples got right and some did not. Give --samples 2 or more",
                self.extra_samples, self.samples
            )));
        }
        if temperature == 0.0 && self.max_forward.max(self.max_hints) > 1 {
            return Err(ClientError::Usage(
                "--resample-temperature 0 with several attempts at a question: greedy samples of a \
                 prompt are all the same. Give a temperature above 0, or one attempt of each kind"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The forward samples that are made whatever an earlier one of them gave, and that are not among
    /// the attempts. Whether there are extra ones is decided once, when all of the first are there.
    pub fn missing(&self, attempts: &[Attempt]) -> Vec<Ask> {
        let first = missing_of(0..self.samples, attempts);
        if first.is_empty() && self.is_mixed(attempts) {
            missing_of(self.samples..self.samples + self.extra_samples, attempts)
        } else {
            first
        }
    }

    /// Right sometimes, but not always.
    fn is_mixed(&self, attempts: &[Attempt]) -> bool {
        let first = forward(attempts).filter(|attempt| attempt.sample < self.samples);
        let num_right = first.filter(|it| it.verdict == Verdict::Right).count() as u32;
        (1..self.samples).contains(&num_right)
    }

    /// One more try of a question for which none of its tries did.
    pub fn next_try(&self, attempts: &[Attempt]) -> Option<Ask> {
        let num_forward = forward(attempts).count() as u32;
        let num_hints = attempts.len() as u32 - num_forward;
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

fn missing_of(samples: Range<u32>, attempts: &[Attempt]) -> Vec<Ask> {
    let is_made = |sample: &u32| forward(attempts).any(|attempt| attempt.sample == *sample);
    let ask = |sample| Ask {
        source: Source::Forward,
        sample,
    };
    samples.filter(|sample| !is_made(sample)).map(ask).collect()
}

fn forward(attempts: &[Attempt]) -> impl Iterator<Item = &Attempt> {
    attempts
        .iter()
        .filter(|attempt| attempt.source == Source::Forward)
}
