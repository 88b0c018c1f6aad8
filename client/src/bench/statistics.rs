//! From the times of single answers to the numbers of a repetition.
//!
//! With an answer's messages at t_1 < t_2 < … carrying k_1, k_2, … tokens:
//! - time to first token (TTFT) is t_1;
//! - inter-token latency (ITL): message i > 1 gives k_i values of (t_i − t_(i−1)) / k_i. A server that
//!   sends several tokens in a message is thus taken to have made them evenly; how long a reader waits
//!   for the next message is the message gap, t_i − t_(i−1), once;
//! - time per output token (TPOT) is (t_last − t_1) / (number of tokens − k_1), one value an answer;
//! - end to end is the time of the message that ends the answer.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    Via,
    drive::{Record, Repetition, Timeline},
};

/// Mean and nearest-rank quantiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: usize,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    /// `None` where there is no value.
    pub fn of(mut values_ms: Vec<f64>) -> Option<Self> {
        values_ms.sort_by(f64::total_cmp);
        let count = values_ms.len();
        let max = *values_ms.last()?;
        // The smallest value that at least this share of all values do not exceed.
        let rank = |share: f64| values_ms[((share * count as f64).ceil() as usize).max(1) - 1];
        Some(Self {
            count,
            mean: values_ms.iter().sum::<f64>() / count as f64,
            p50: rank(0.5),
            p90: rank(0.9),
            p99: rank(0.99),
            max,
        })
    }
}

/// The numbers of one repetition. Rates are over the whole wall time and count what was answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub num_requests: usize,
    pub num_failed: usize,
    /// By code, with the first message.
    pub failures: BTreeMap<String, FailureCount>,
    pub num_prompt_tokens: u64,
    pub num_cached_tokens: u64,
    pub num_generated_tokens: u64,
    /// Of speculation: proposed, and right.
    pub num_draft_tokens: u64,
    pub num_accepted_draft_tokens: u64,
    pub wall_s: f64,
    pub generated_tokens_per_s: f64,
    pub prompt_tokens_per_s: f64,
    pub requests_per_s: f64,
    /// These four only for streams: a batch stream carries whole answers.
    pub ttft_ms: Option<Quantiles>,
    pub itl_ms: Option<Quantiles>,
    pub tpot_ms: Option<Quantiles>,
    pub message_gap_ms: Option<Quantiles>,
    pub e2e_ms: Option<Quantiles>,
}

/// How often requests failed alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureCount {
    pub count: usize,
    pub first_message: String,
}

impl Summary {
    pub(super) fn of(repetition: &Repetition, via: Via) -> Self {
        let records = &repetition.records;
        let answers: Vec<&Timeline> = records.iter().flatten().collect();
        let sum = |count: fn(&Timeline) -> u32| -> u64 {
            answers.iter().map(|answer| u64::from(count(answer))).sum()
        };
        let num_generated_tokens = sum(|answer| answer.counts.num_generated_tokens);
        let num_prompt_tokens = sum(|answer| answer.counts.num_prompt_tokens);
        let wall_s = repetition.wall.as_secs_f64();
        let per_s = |count: f64| if wall_s > 0.0 { count / wall_s } else { 0.0 };
        let times = match via {
            Via::Streams => Times::of(&answers),
            Via::Batch => Times::default(),
        };
        Self {
            num_requests: records.len(),
            num_failed: records.len() - answers.len(),
            failures: failures(records),
            num_prompt_tokens,
            num_cached_tokens: sum(|answer| answer.counts.num_cached_tokens),
            num_generated_tokens,
            num_draft_tokens: sum(|answer| answer.counts.num_draft_tokens),
            num_accepted_draft_tokens: sum(|answer| answer.counts.num_accepted_draft_tokens),
            wall_s,
            generated_tokens_per_s: per_s(num_generated_tokens as f64),
            prompt_tokens_per_s: per_s(num_prompt_tokens as f64),
            requests_per_s: per_s(answers.len() as f64),
            ttft_ms: Quantiles::of(times.first),
            itl_ms: Quantiles::of(times.between_tokens),
            tpot_ms: Quantiles::of(times.per_token),
            message_gap_ms: Quantiles::of(times.between_messages),
            e2e_ms: Quantiles::of(answers.iter().map(|answer| ms(answer.end)).collect()),
        }
    }
}

#[derive(Default)]
struct Times {
    first: Vec<f64>,
    between_tokens: Vec<f64>,
    per_token: Vec<f64>,
    between_messages: Vec<f64>,
}

impl Times {
    fn of(answers: &[&Timeline]) -> Self {
        let mut times = Self::default();
        for answer in answers {
            let (Some((first, num_first)), Some((last, _))) =
                (answer.messages.first(), answer.messages.last())
            else {
                continue;
            };
            times.first.push(ms(*first));
            for pair in answer.messages.windows(2) {
                let (gap, num_tokens) = (ms(pair[1].0) - ms(pair[0].0), pair[1].1);
                times.between_messages.push(gap);
                let each = gap / f64::from(num_tokens);
                let values = std::iter::repeat_n(each, num_tokens as usize);
                times.between_tokens.extend(values);
            }
            let num_later = answer
                .counts
                .num_generated_tokens
                .saturating_sub(*num_first);
            if num_later > 0 {
                let per_token = (ms(*last) - ms(*first)) / f64::from(num_later);
                times.per_token.push(per_token);
            }
        }
        times
    }
}

fn failures(records: &[Record]) -> BTreeMap<String, FailureCount> {
    let mut failures: BTreeMap<String, FailureCount> = BTreeMap::new();
    for failure in records.iter().filter_map(|record| record.as_ref().err()) {
        failures
            .entry(failure.code.clone())
            .or_insert_with(|| FailureCount {
                count: 0,
                first_message: failure.message.clone(),
            })
            .count += 1;
    }
    failures
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::AnswerCounts;

    fn answer(messages: &[(u64, u32)]) -> Timeline {
        let at = Duration::from_millis;
        let num_generated_tokens = messages.iter().map(|(_, count)| count).sum();
        Timeline {
            messages: messages
                .iter()
                .map(|(ms, count)| (at(*ms), *count))
                .collect(),
            end: at(messages.last().unwrap().0),
            counts: AnswerCounts {
                num_prompt_tokens: 10,
                num_generated_tokens,
                num_cached_tokens: 4,
                num_draft_tokens: 3,
                num_accepted_draft_tokens: 2,
            },
            token_ids: vec![0; num_generated_tokens as usize],
        }
    }

    /// Several tokens in a message share its gap; those of the first message have none.
    #[test]
    fn tokens_of_a_message_share_its_gap() {
        let one = answer(&[(100, 2), (130, 3), (140, 1)]);
        let times = Times::of(&[&one]);
        assert_eq!(times.first, [100.0]);
        assert_eq!(times.between_tokens, [10.0, 10.0, 10.0, 10.0]);
        assert_eq!(times.between_messages, [30.0, 10.0]);
        assert_eq!(times.per_token, [10.0]);
    }

    /// Quantiles are values that occurred.
    #[test]
    fn quantiles_are_nearest_ranks() {
        let quantiles = Quantiles::of((1..=200).map(f64::from).collect()).unwrap();
        assert_eq!(
            (quantiles.p50, quantiles.p90, quantiles.p99, quantiles.max),
            (100.0, 180.0, 198.0, 200.0)
        );
        let one = Quantiles::of(vec![3.0]).unwrap();
        assert_eq!((one.p50, one.p99, one.mean), (3.0, 3.0, 3.0));
        assert_eq!(Quantiles::of(Vec::new()), None);
    }

    /// Failed requests are counted by code and leave the rates to what was answered.
    #[test]
    fn counts_close() {
        let failure = |code: &str, message: &str| {
            Err(crate::bench::Failure {
                code: code.to_owned(),
                message: message.to_owned(),
            })
        };
        let repetition = Repetition {
            records: vec![
                Ok(answer(&[(100, 4)])),
                failure("INTERNAL", "first"),
                Ok(answer(&[(100, 2), (200, 2)])),
                failure("INTERNAL", "second"),
            ],
            wall: Duration::from_secs(2),
        };
        let summary = Summary::of(&repetition, Via::Streams);
        assert_eq!((summary.num_requests, summary.num_failed), (4, 2));
        assert_eq!(summary.failures["INTERNAL"].count, 2);
        assert_eq!(summary.failures["INTERNAL"].first_message, "first");
        assert_eq!(
            (summary.num_prompt_tokens, summary.num_cached_tokens),
            (20, 8)
        );
        assert_eq!(summary.generated_tokens_per_s.to_bits(), 4.0_f64.to_bits());
        assert_eq!(summary.requests_per_s.to_bits(), 1.0_f64.to_bits());
        assert_eq!(summary.itl_ms.unwrap().count, 2);
        let summary = Summary::of(&repetition, Via::Batch);
        assert_eq!((summary.ttft_ms, summary.itl_ms), (None, None));
        assert_eq!(summary.e2e_ms.unwrap().count, 2);
    }
}
