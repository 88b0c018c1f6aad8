//! Tokens per second over the last ten seconds: a ring of totals, one for each second.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::engine::handle::EngineHandle;

const INTERVAL: Duration = Duration::from_secs(1);
/// The newest and the ten before it.
const NUM_SAMPLES: usize = 11;

/// What the engine had computed at a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    totals: Totals,
}

/// Tokens since the start of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub generated: u64,
    pub prompt: u64,
}

/// Per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Speed {
    pub generated: f32,
    pub prompt: f32,
}

/// The last seconds; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates(Arc<Mutex<VecDeque<Sample>>>);

impl Rates {
    /// Takes a sample each second, until the task is aborted.
    pub(crate) fn sample(&self, engine: EngineHandle) -> JoinHandle<()> {
        // The first one now: what is computed before the task first runs counts too.
        self.push(Instant::now(), totals(&engine));
        let rates = self.clone();
        tokio::spawn(async move {
            let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                rates.push(Instant::now(), totals(&engine));
            }
        })
    }

    fn push(&self, at: Instant, totals: Totals) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == NUM_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample { at, totals });
    }

    /// Between the oldest sample and the newest; 0 before there are two.
    pub(crate) fn speed(&self) -> Speed {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Speed::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f32();
        let rate = |before: u64, after: u64| match after.saturating_sub(before) {
            0 => 0.0,
            count => count as f32 / seconds,
        };
        Speed {
            generated: rate(first.totals.generated, last.totals.generated),
            prompt: rate(first.totals.prompt, last.totals.prompt),
        }
    }
}

fn totals(engine: &EngineHandle) -> Totals {
    let totals = engine.gauges().totals();
    Totals {
        generated: totals.num_generated_tokens,
        prompt: totals.num_prompt_tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last ten seconds count, and nothing before.
    #[test]
    fn ten_seconds_count() {
        let rates = Rates::default();
        assert_eq!(rates.speed(), Speed::default());
        let start = Instant::now();
        let second = |count: u32| start + INTERVAL * count;
        let at = |generated, prompt| Totals { generated, prompt };
        rates.push(second(0), at(0, 0));
        assert_eq!(rates.speed(), Speed::default());
        for count in 1..=5_u32 {
            rates.push(second(count), at(u64::from(count) * 100, 1000));
        }
        assert_eq!(
            (rates.speed().generated, rates.speed().prompt),
            (100.0, 200.0)
        );
        for count in 6..=20 {
            rates.push(second(count), at(500, 1000));
        }
        assert_eq!(rates.speed(), Speed::default(), "nothing for ten seconds");
    }
}
