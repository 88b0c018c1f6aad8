//! What is drawn, and that it depends on nothing it should not.

use super::*;

const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 0.0];

fn sampling(temperature: f32, top_k: u32, top_p: f32, seed: u64) -> Sampling {
    Sampling {
        temperature,
        top_p,
        top_k,
        seed,
        ..Sampling::GREEDY
    }
}

/// A draw at `position` of an answer to an empty history.
fn draw_at<'a>(sampling: &'a Sampling, stopping: &'a Stopping, position: u64) -> Draw<'a> {
    Draw {
        sampling,
        stopping,
        position,
        num_prompt_tokens: 0,
        history: &[],
    }
}

/// How often each token comes in `num_draws` positions.
fn counts(logits: &[f32], how: &Sampling, num_draws: u64) -> Vec<u64> {
    let mut counts = vec![0; logits.len()];
    let (mut scratch, stopping) = (Scratch::default(), Stopping::default());
    for position in 0..num_draws {
        let draw = draw_at(how, &stopping, position);
        counts[sample(logits, &draw, &mut scratch).unwrap() as usize] += 1;
    }
    counts
}

/// Temperature 0 is the most likely token; of equals the first.
#[test]
fn greedy_is_argmax() {
    assert_eq!(argmax(&LOGITS), Some(1));
    assert_eq!(argmax(&[2.0, 5.0, 5.0]), Some(1));
    assert_eq!(argmax(&[f32::NEG_INFINITY, -1.0]), Some(1));
}

/// Logits that are not numbers give no token instead of a wrong one.
#[test]
fn bad_logits_give_none() {
    assert_eq!(argmax(&[1.0, f32::NAN]), None);
    assert_eq!(argmax(&[f32::NAN, 1.0]), None);
    assert_eq!(argmax(&[1.0, f32::INFINITY]), None);
    assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), None);
    assert_eq!(argmax(&[]), None);
}

/// At temperature 1 tokens come as often as their softmax says: within 4 standard deviations.
#[test]
fn frequencies_are_the_softmax() {
    let num_draws = 40_000_u64;
    let counts = counts(&LOGITS, &sampling(1.0, 0, 1.0, 7), num_draws);
    let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
    for (&logit, &count) in LOGITS.iter().zip(&counts) {
        let probability = f64::from(logit).exp() / total;
        let mean = probability * num_draws as f64;
        let deviation = (mean * (1.0 - probability)).sqrt();
        assert!((count as f64 - mean).abs() < 4.0 * deviation, "{counts:?}");
    }
}

/// top_k 2 keeps the two most likely.
#[test]
fn top_k_keeps_the_most_likely() {
    let counts = counts(&LOGITS, &sampling(5.0, 2, 1.0, 3), 500);
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!(counts[1] > 0 && counts[2] > 0);
}

/// The softmax of the logits is 0.087, 0.644, 0.237, 0.032: the smallest set that reaches 0.6 is token 1
/// alone, the smallest that reaches 0.7 is tokens 1 and 2.
#[test]
fn top_p_keeps_the_smallest_set() {
    assert_eq!(
        counts(&LOGITS, &sampling(1.0, 0, 0.6, 3), 200),
        [0, 200, 0, 0]
    );
    let counts = counts(&LOGITS, &sampling(1.0, 0, 0.7, 3), 500);
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!(counts[2] > 0);
}

/// A nucleus wider than the first one that is sorted is still the right one: of 3,000 equal tokens
/// top_p 0.5 keeps exactly the first 1,500.
#[test]
fn wide_nucleus_is_found() {
    let counts = counts(&vec![0.0; 3_000], &sampling(1.0, 0, 0.5, 1), 4_000);
    let last = counts.iter().rposition(|&count| count > 0).unwrap();
    assert!((1_400..1_500).contains(&last), "{last}");
}

/// A draw is a function of seed and position: the same again, another for another seed.
#[test]
fn draws_depend_on_seed_and_position_alone() {
    let draws = |seed: u64, used: &mut Scratch| -> Vec<Option<u32>> {
        (0..64)
            .map(|position| {
                let (how, stopping) = (sampling(1.5, 0, 1.0, seed), Stopping::default());
                sample(&LOGITS, &draw_at(&how, &stopping, position), used)
            })
            .collect()
    };
    let mut used = Scratch::default();
    let first = draws(5, &mut used);
    assert_eq!(first, draws(5, &mut used));
    assert_eq!(first, draws(5, &mut Scratch::default()));
    assert_ne!(first, draws(6, &mut used));
}

/// The softmax of the logits is 0.087, 0.644, 0.237, 0.032: min_p 0.3 keeps what reaches 0.193.
#[test]
fn min_p_keeps_what_is_likely_enough() {
    let how = Sampling {
        min_p: 0.3,
        ..sampling(1.0, 0, 1.0, 3)
    };
    let counts = counts(&LOGITS, &how, 500);
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!(counts[1] > 0 && counts[2] > 0);
}

/// What greedy says after `history`, of which `num_prompt_tokens` are the prompt.
fn greedy_after(how: &Sampling, history: &[u32], num_prompt_tokens: usize) -> u32 {
    let stopping = Stopping::default();
    let draw = Draw {
        num_prompt_tokens,
        history,
        ..draw_at(how, &stopping, history.len() as u64)
    };
    sample(&LOGITS, &draw, &mut Scratch::default()).unwrap()
}

/// Logits are 1, 3, 2, 0. The repetition penalty counts prompt and answer, once: 3 / 1.6 < 2. A
/// frequency penalty counts each time, a presence penalty once, and both the answer alone.
#[test]
fn penalties_look_where_they_should() {
    let repetition = Sampling {
        repetition_penalty: 1.6,
        ..Sampling::GREEDY
    };
    assert_eq!(greedy_after(&repetition, &[], 0), 1);
    assert_eq!(greedy_after(&repetition, &[1], 1), 2);
    assert_eq!(greedy_after(&repetition, &[1, 1, 2], 1), 1);
    let frequency = Sampling {
        frequency_penalty: 0.6,
        ..Sampling::GREEDY
    };
    assert_eq!(greedy_after(&frequency, &[1, 1], 2), 1);
    assert_eq!(greedy_after(&frequency, &[1], 0), 1);
    assert_eq!(greedy_after(&frequency, &[1, 1], 0), 2);
    let presence = Sampling {
        presence_penalty: 1.2,
        ..Sampling::GREEDY
    };
    assert_eq!(greedy_after(&presence, &[1, 1], 2), 1);
    assert_eq!(greedy_after(&presence, &[1, 1], 1), 2);
    assert_eq!(greedy_after(&presence, &[1, 2], 0), 1);
}

/// A negative logit is made smaller by a repetition penalty, not larger.
#[test]
fn a_repetition_penalty_never_favours() {
    let how = Sampling {
        repetition_penalty: 2.0,
        ..Sampling::GREEDY
    };
    let stopping = Stopping::default();
    let draw = Draw {
        history: &[0],
        ..draw_at(&how, &stopping, 1)
    };
    let token = sample(&[-1.0, -1.5], &draw, &mut Scratch::default());
    assert_eq!(token, Some(1));
}

/// A bias is added to the logit, also for a greedy answer.
#[test]
fn biases_are_added() {
    let how = Sampling {
        logit_bias: vec![(3, 3.5), (1, -0.5)],
        ..Sampling::GREEDY
    };
    assert_eq!(greedy_after(&how, &[], 0), 3);
}

/// No stop token before min_tokens; from there on it may come.
#[test]
fn stop_tokens_wait_for_min_tokens() {
    let stopping = Stopping {
        token_ids: vec![1],
        min_tokens: 2,
    };
    let greedy = |position| {
        let how = Sampling::GREEDY;
        let draw = draw_at(&how, &stopping, position);
        sample(&LOGITS, &draw, &mut Scratch::default())
    };
    assert_eq!(
        (greedy(0), greedy(1), greedy(2)),
        (Some(2), Some(2), Some(1))
    );
}

/// Log probabilities are the log softmax of the model's own logits; ranks and candidates follow them.
#[test]
fn logprobs_are_the_log_softmax() {
    let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
    let told = logprobs::of(&LOGITS, 2, 3);
    let expected = |token: usize| (f64::from(LOGITS[token]) - total.ln()) as f32;
    assert!((told.logprob - expected(2)).abs() < 1e-6);
    assert_eq!(told.rank, 2);
    let tokens: Vec<u32> = told.candidates.iter().map(|each| each.0).collect();
    assert_eq!(tokens, [1, 2, 0]);
    for (token, logprob) in told.candidates {
        assert!((logprob - expected(token as usize)).abs() < 1e-6);
    }
    assert_eq!(logprobs::of(&[1.0, 1.0], 1, 0).rank, 1);
    assert_eq!(logprobs::of(&[1.0, 1.0], 1, 9).candidates.len(), 2);
}
