//! How tokens are drawn and when an answer ends: every field in its range, checked after defaults
//! are filled in.

use std::{collections::HashMap, ops::RangeInclusive};

use proto::genserver::v1 as pb;

use super::{
    MAX_LOGIT_BIASES, MAX_STOP_STRING_BYTES, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS, Parser,
    StopStringText, Stops,
};
use crate::request::Sampling;

/// Above it all tokens are about equally likely.
const TEMPERATURE: RangeInclusive<f32> = 0.0..=100.0;
const MIN_P: RangeInclusive<f32> = 0.0..=1.0;
/// A division by much less would overflow.
const REPETITION_PENALTY: RangeInclusive<f32> = 0.01..=100.0;
/// OpenAI's and vLLM's range.
const COUNT_PENALTY: RangeInclusive<f32> = -2.0..=2.0;
/// More than any logit: the ends forbid a token, or choose it.
const LOGIT_BIAS: RangeInclusive<f32> = -100.0..=100.0;

impl Parser<'_> {
    pub(super) fn sampling(&mut self, asked: pb::SamplingParams) -> Sampling {
        let top_p = asked.top_p.unwrap_or(1.0);
        let is_in_range = top_p > 0.0 && top_p <= 1.0;
        let temperature = self.number("temperature", asked.temperature, 0.0, TEMPERATURE);
        if !is_in_range {
            let problem = format!("expected more than 0 and at most 1, found {top_p}");
            self.refuse("sampling.top_p", problem);
        }
        let penalty = asked.repetition_penalty;
        Sampling {
            temperature,
            top_p,
            top_k: asked.top_k.unwrap_or(0),
            min_p: self.number("min_p", asked.min_p, 0.0, MIN_P),
            repetition_penalty: self.number("repetition_penalty", penalty, 1.0, REPETITION_PENALTY),
            frequency_penalty: self.number(
                "frequency_penalty",
                asked.frequency_penalty,
                0.0,
                COUNT_PENALTY,
            ),
            presence_penalty: self.number(
                "presence_penalty",
                asked.presence_penalty,
                0.0,
                COUNT_PENALTY,
            ),
            logit_bias: self.logit_bias(asked.logit_bias),
            seed: asked.seed.unwrap_or(0),
        }
    }

    /// A range also refuses what is not a number.
    fn number(
        &mut self,
        name: &str,
        asked: Option<f32>,
        default: f32,
        range: RangeInclusive<f32>,
    ) -> f32 {
        let found = asked.unwrap_or(default);
        if !range.contains(&found) {
            let problem = format!(
                "expected {} to {}, found {found}",
                range.start(),
                range.end()
            );
            self.refuse(format!("sampling.{name}"), problem);
        }
        found
    }

    /// In the order of the ids, so that equal requests are equal.
    fn logit_bias(&mut self, asked: HashMap<u32, f32>) -> Vec<(u32, f32)> {
        let field = "sampling.logit_bias";
        if asked.len() > MAX_LOGIT_BIASES {
            let found = asked.len();
            let problem = format!("expected at most {MAX_LOGIT_BIASES} ids, found {found}");
            self.refuse(field, problem);
            return Vec::new();
        }
        let mut biases: Vec<(u32, f32)> = asked.into_iter().collect();
        biases.sort_unstable_by_key(|(id, _)| *id);
        let vocab_size = self.limits.vocab_size;
        for (id, bias) in &biases {
            if *id >= vocab_size {
                let problem = format!("expected an id below {vocab_size}, found {id}");
                self.refuse(format!("{field}[{id}]"), problem);
            } else if !LOGIT_BIAS.contains(bias) {
                let (min, max) = (LOGIT_BIAS.start(), LOGIT_BIAS.end());
                let problem = format!("expected {min} to {max}, found {bias}");
                self.refuse(format!("{field}[{id}]"), problem);
            }
        }
        biases
    }

    /// `max_tokens` is resolved: the server's default where the request has none.
    pub(super) fn stopping(&mut self, asked: pb::StoppingCriteria, max_tokens: u32) -> Stops {
        if max_tokens == 0 {
            let problem = "expected at least 1, found 0; leave it out for the server's default";
            self.refuse("stopping.max_new_tokens", problem);
        }
        self.stop_strings(&asked.stop_strings);
        let num_ids = asked.stop_token_ids.len();
        if num_ids > MAX_STOP_TOKEN_IDS {
            let problem = format!("expected at most {MAX_STOP_TOKEN_IDS} ids, found {num_ids}");
            self.refuse("stopping.stop_token_ids", problem);
        }
        self.vocabulary("stopping.stop_token_ids", &asked.stop_token_ids);
        let stops = Stops {
            eos_token_ids: match asked.ignore_eos {
                Some(true) => Vec::new(),
                _ => self.limits.eos_token_ids.clone(),
            },
            token_ids: asked.stop_token_ids,
            strings: asked.stop_strings,
            string_text: match asked.include_stop_strings {
                Some(true) => StopStringText::Included,
                _ => StopStringText::LeftOut,
            },
            min_tokens: asked.min_new_tokens.unwrap_or(0),
        };
        self.min_tokens(&stops, max_tokens);
        stops
    }

    fn stop_strings(&mut self, strings: &[String]) {
        let num_strings = strings.len();
        if num_strings > MAX_STOP_STRINGS {
            let problem =
                format!("expected at most {MAX_STOP_STRINGS} strings, found {num_strings}");
            self.refuse("stopping.stop_strings", problem);
        }
        for (index, stop) in strings.iter().enumerate().take(MAX_STOP_STRINGS) {
            if !(1..=MAX_STOP_STRING_BYTES).contains(&stop.len()) {
                let found = stop.len();
                let problem = format!("expected 1 to {MAX_STOP_STRING_BYTES} bytes, found {found}");
                self.refuse(format!("stopping.stop_strings[{index}]"), problem);
            }
        }
    }

    fn min_tokens(&mut self, stops: &Stops, max_tokens: u32) {
        let (field, found) = ("stopping.min_new_tokens", stops.min_tokens);
        if found > max_tokens {
            let problem =
                format!("expected at most max_new_tokens, which is {max_tokens}, found {found}");
            self.refuse(field, problem);
        }
        let mut ids: Vec<u32> = [&stops.eos_token_ids[..], &stops.token_ids].concat();
        ids.sort_unstable();
        ids.dedup();
        if found > 0 && ids.len() >= self.limits.vocab_size as usize {
            let problem = "every token is a stop token, so that none is left to draw before them";
            self.refuse(field, problem);
        }
    }
}
