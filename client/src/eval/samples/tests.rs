use data::record::FinishReason;

use super::*;
use crate::test_support::attempt;

/// Attempts of question `id` (gold 7) with these answers; `None` has no number.
fn asked(id: &str, answers: &[Option<i64>]) -> Vec<Attempt> {
    let numbered = answers.iter().enumerate();
    numbered
        .map(|(sample, answer)| {
            let text = answer.map_or("?".to_owned(), |answer| format!("#### {answer}"));
            Attempt {
                question_id: id.to_owned(),
                sample: sample as u32,
                ..attempt(&text, 7)
            }
        })
        .collect()
}

/// By hand, from the shares 1/2, 0, 1 and 1/4: the error is that of four observations, not of
/// sixteen.
#[test]
fn the_error_is_clustered_by_question() {
    let attempts = [
        asked("a", &[Some(7), Some(7), Some(1), Some(2)]),
        asked("b", &[Some(1), Some(1), None, Some(2)]),
        asked("c", &[Some(7), Some(7), Some(7), Some(7)]),
        asked("d", &[Some(7), Some(3), Some(3), None]),
    ]
    .concat();
    let (scores, interval) = SampleScores::of(4, &attempts);
    let shares: [f64; 4] = [0.5, 0.0, 1.0, 0.25];
    let mean = 7.0 / 16.0;
    let squares: f64 = shares
        .iter()
        .map(|share| (share - mean) * (share - mean))
        .sum();
    let error = (squares / 3.0 / 4.0).sqrt();
    assert!((scores.standard_error - error).abs() < 1e-12);
    assert!((interval.low - (mean - 1.96 * error)).abs() < 1e-4);
    assert!((interval.high - (mean + 1.96 * error)).abs() < 1e-4);
    assert_eq!(scores.num_questions, 4);
    // pass@2 of 2, 0, 4 and 1 right of 4: 1 - 1/6, 0, 1, 1/2.
    let pass: Vec<(u32, f64)> = scores.pass_at.iter().map(|it| (it.k, it.share)).collect();
    let expected = [(1, mean), (2, (5.0 / 6.0 + 1.5) / 4.0), (4, 0.75)];
    for (found, expected) in pass.iter().zip(expected) {
        assert_eq!(found.0, expected.0);
        assert!((found.1 - expected.1).abs() < 1e-12, "{found:?}");
    }
    assert_eq!(pass.len(), 3);
}

/// Of tied answers the first sample's wins, in the order of the samples and not of the log; random
/// ties are an expectation. Cut samples and those without a number do not vote.
#[test]
fn ties_are_counted_and_named() {
    let mut tied = asked("tied", &[Some(7), Some(1)]);
    tied.reverse();
    let mut cut = asked("cut", &[Some(1), Some(7), Some(1)]);
    cut[0].finish_reason = FinishReason::Length;
    cut[2].finish_reason = FinishReason::Length;
    let silent = asked("silent", &[None, None]);
    let (scores, _) = SampleScores::of(2, &[tied, cut, silent].concat());
    let majority = &scores.majority;
    assert_eq!((majority.num_right, majority.num_tied), (2, 1));
    assert_eq!(majority.num_without_vote, 1);
    assert!((majority.share_with_random_ties - 0.5).abs() < 1e-12);
    let text = scores.text().join("\n");
    assert!(text.contains("tie rule: first seen"), "{text}");
    assert!(
        text.contains("1 questions tied, 1 without a vote"),
        "{text}"
    );
}

/// Questions that are all alike have no spread; the interval is not a point for that.
#[test]
fn equal_questions_leave_doubt() {
    let attempts = [asked("a", &[Some(1); 2]), asked("b", &[Some(1); 2])].concat();
    let (scores, interval) = SampleScores::of(2, &attempts);
    assert_eq!(scores.standard_error.to_bits(), 0.0_f64.to_bits());
    assert_eq!(interval, wilson(0, 2));
}

/// Powers of two, and the number of samples whatever it is.
#[test]
fn pass_is_told_for_powers_of_two() {
    let ks = |samples| -> Vec<u32> {
        let answers = vec![Some(7); samples as usize];
        let (scores, _) = SampleScores::of(samples, &asked("a", &answers));
        scores.pass_at.iter().map(|pass| pass.k).collect()
    };
    assert_eq!(ks(2), [1, 2]);
    assert_eq!(ks(5), [1, 2, 4, 5]);
    assert_eq!(ks(8), [1, 2, 4, 8]);
}
