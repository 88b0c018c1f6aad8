//! What is drawn, and that it depends on nothing it should not.

use super::*;

const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, 0.0];

fn sampling(temperature: f32, top_k: u32, top_p: f32, seed: u64) -> Sampling {
    Sampling {
        temperature,
        top_p,
        top_k,
        seed,
    }
}

/// How often each token comes in `num_draws` positions.
fn counts(logits: &[f32], how: &Sampling, num_draws: u64) -> Vec<u64> {
    let mut counts = vec![0; logits.len()];
    let mut scratch = Scratch::default();
    for position in 0..num_draws {
        counts[sample(logits, how, position, &mut scratch).unwrap() as usize] += 1;
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
            .map(|position| sample(&LOGITS, &sampling(1.5, 0, 1.0, seed), position, used))
            .collect()
    };
    let mut used = Scratch::default();
    let first = draws(5, &mut used);
    assert_eq!(first, draws(5, &mut used));
    assert_eq!(first, draws(5, &mut Scratch::default()));
    assert_ne!(first, draws(6, &mut used));
}
