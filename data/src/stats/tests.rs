//! Statistics against published and independently computed values.

use super::*;

/// Wilson intervals in percent, from statsmodels' `proportion_confint(method="wilson")`.
#[test]
fn wilson_against_statsmodels() {
    for (k, low, high) in [
        (0, "0.000", "0.290"),
        (31, "1.661", "3.317"),
        (428, "29.976", "35.023"),
        (686, "49.311", "54.696"),
        (791, "57.300", "62.581"),
        (974, "71.405", "76.144"),
        (1009, "74.134", "78.707"),
        (1025, "75.386", "79.874"),
        (1319, "99.710", "100.000"),
    ] {
        let Interval {
            low: found_low,
            high: found_high,
        } = wilson(k, 1319);
        assert_eq!(format!("{:.3}", found_low * 100.0), low, "{k}");
        assert_eq!(format!("{:.3}", found_high * 100.0), high, "{k}");
    }
    assert_eq!(
        wilson(0, 0),
        Interval {
            low: 0.0,
            high: 1.0
        }
    );
}

fn paired(both_right: u64, only_first: u64, only_second: u64, both_wrong: u64) -> PairedCounts {
    PairedCounts {
        both_right,
        only_first,
        only_second,
        both_wrong,
    }
}

/// McNemar's exact p for pairs of OpenAI's published GSM8K model solutions (MIT licence).
#[test]
fn mcnemar_on_published_models() {
    for (counts, difference, p) in [
        (paired(222, 64, 293, 740), "17.362", "3.929e-36"),
        (paired(306, 209, 152, 652), "-4.321", "3.151e-3"),
        (paired(382, 76, 360, 501), "21.531", "2.891e-45"),
        (paired(243, 43, 499, 534), "34.572", "1.657e-99"),
    ] {
        assert_eq!(counts.num_questions(), 1319);
        assert_eq!(
            format!("{:.3}", counts.difference() * 100.0),
            difference,
            "{counts:?}"
        );
        assert_eq!(format!("{:.3e}", counts.mcnemar_exact()), p, "{counts:?}");
    }
}

/// Small cases by hand: no or balanced disagreement proves nothing; five to none is 2/2^5; a large
/// one-sided difference does not underflow before its p does.
#[test]
fn mcnemar_by_hand() {
    let p = |first, second| paired(1, first, second, 1).mcnemar_exact();
    assert_eq!(p(0, 0).to_bits(), 1.0_f64.to_bits());
    assert!((p(3, 3) - 1.0).abs() < 1e-12);
    assert!((p(5, 0) - 0.0625).abs() < 1e-12);
    assert!((p(1, 4) - 0.375).abs() < 1e-12);
    assert!((p(1000, 0).log10() - (1.0 - 1000.0) * 2.0_f64.log10()).abs() < 1e-9);
}

/// Which run is which: the second run's gain counts as positive.
#[test]
fn pairs_are_counted() {
    let pairs = [
        (true, true),
        (true, false),
        (false, true),
        (false, true),
        (false, false),
    ];
    let counts = PairedCounts::from_pairs(pairs);
    assert_eq!(counts, paired(1, 1, 2, 1));
    assert!((counts.difference() - 0.2).abs() < 1e-12);
}

/// Bonett and Price's interval, computed by hand for one case, contains the difference and stays
/// within -1 to 1 at the ends.
#[test]
fn difference_interval() {
    let interval = paired(306, 209, 152, 652).difference_interval();
    // (153 - 210) / 1321 -+ 1.96 sqrt((363/1321 - (57/1321)^2) / 1321)
    assert!((interval.low - -0.071_326).abs() < 1e-5, "{interval:?}");
    assert!((interval.high - -0.014_973).abs() < 1e-5, "{interval:?}");
    let extreme = paired(0, 0, 30, 0).difference_interval();
    assert!(extreme.low > 0.8 && extreme.high <= 1.0, "{extreme:?}");
}

/// Percentiles are linear between neighbours and do not need sorted input.
#[test]
fn percentiles() {
    let values = [40.0, 10.0, 30.0, 20.0];
    for (percent, expected) in [(0.0, 10.0), (50.0, 25.0), (90.0, 37.0), (100.0, 40.0)] {
        assert!((percentile(&values, percent).unwrap() - expected).abs() < 1e-12);
    }
    assert_eq!(percentile(&[], 50.0), None);
    assert_eq!(percentile(&[3.0], 95.0), Some(3.0));
}

mod samples {
    use crate::{
        number::Number,
        stats::samples::{majority, majority_chance, num_leading, pass_at_k},
    };

    /// pass@k over the four published OpenAI models as four samples, from the histogram of right
    /// answers per question.
    #[test]
    fn pass_at_k_on_published_models() {
        let histogram = [432, 290, 236, 205, 156];
        let expected = [
            0.379_264_594_389_689_2,
            0.532_726_813_242_356_4,
            0.617_513_267_626_990_1,
            0.672_479_150_871_872_6,
        ];
        for (k, expected) in (1..).zip(expected) {
            let sum: f64 = (0..)
                .zip(histogram)
                .map(|(right, count)| pass_at_k(4, right, k).unwrap() * f64::from(count))
                .sum();
            assert!((sum / 1319.0 - expected).abs() < 1e-12, "pass@{k}");
        }
        assert_eq!(pass_at_k(4, 2, 5), None);
        assert_eq!(pass_at_k(4, 2, 0), None);
    }

    fn answers(values: &[i64]) -> Vec<Option<Number>> {
        // 0 stands for "no answer".
        values
            .iter()
            .map(|&value| (value != 0).then(|| Number::from(value)))
            .collect()
    }

    /// The most frequent answer wins, the first seen of equals; no answer is no vote.
    #[test]
    fn majority_and_ties() {
        for (votes, winner, leading) in [
            (vec![5, 7, 7], Some(7), 1),
            (vec![7, 5, 5, 7], Some(7), 2),
            (vec![0, 0, 5], Some(5), 1),
            (vec![0, 0], None, 0),
            (vec![], None, 0),
        ] {
            assert_eq!(num_leading(&answers(&votes)), leading, "{votes:?}");
            assert_eq!(
                majority(&answers(&votes)),
                winner.map(Number::from),
                "{votes:?}"
            );
        }
    }

    /// With ties broken at random a right answer among two tied ones counts half.
    #[test]
    fn random_ties() {
        let chance = |votes: &[i64]| majority_chance(&answers(votes), Number::from(5));
        assert!((chance(&[5, 7]) - 0.5).abs() < 1e-12);
        assert!((chance(&[5, 5, 7]) - 1.0).abs() < 1e-12);
        assert!(chance(&[5, 7, 7]).abs() < 1e-12);
        assert!(chance(&[0]).abs() < 1e-12);
    }
}

mod clustered {
    use super::paired;
    use crate::stats::{
        Interval,
        clustered::{Estimate, SampleCounts, clustered_difference, clustered_mean},
        wilson,
    };

    fn counts(num_right: u64, num_samples: u64) -> SampleCounts {
        SampleCounts {
            num_right,
            num_samples,
        }
    }

    fn check(found: Option<Estimate>, mean: f64, standard_error: f64, interval: (f64, f64)) {
        let found = found.unwrap();
        let close = |left: f64, right: f64| (left - right).abs() < 1e-9;
        assert!(close(found.mean, mean), "{found:?}");
        assert!(close(found.standard_error, standard_error), "{found:?}");
        assert!(close(found.interval.low, interval.0), "{found:?}");
        assert!(close(found.interval.high, interval.1), "{found:?}");
    }

    /// By hand: means 1/4, 2/4, 2/4, 3/4 have the variance 1/24, so the error is sqrt(1/96).
    #[test]
    fn by_hand() {
        let questions = [counts(1, 4), counts(4, 8), counts(2, 4), counts(3, 4)];
        let error = (1.0_f64 / 96.0).sqrt();
        let half = 1.959_963_984_540_054 * error;
        check(
            clustered_mean(&questions),
            0.5,
            error,
            (0.5 - half, 0.5 + half),
        );
        // Four times as many samples with the same means: no more questions, the same error.
        let more = questions.map(|one| counts(one.num_right * 4, one.num_samples * 4));
        assert_eq!(clustered_mean(&more), clustered_mean(&questions));
    }

    /// By hand: differences 0, 1/2, 1/2, 1 have the mean 1/2 and the variance 1/6. What both runs
    /// find hard or easy alike does not count.
    #[test]
    fn difference_by_hand() {
        let questions = [
            (counts(4, 4), counts(2, 2)),
            (counts(1, 4), counts(3, 4)),
            (counts(0, 4), counts(1, 2)),
            (counts(0, 1), counts(4, 4)),
        ];
        let error = (1.0_f64 / 24.0).sqrt();
        let half = 1.959_963_984_540_054 * error;
        check(
            clustered_difference(&questions),
            0.5,
            error,
            (0.5 - half, 0.5 + half),
        );
        let swapped = questions.map(|(first, second)| (second, first));
        check(
            clustered_difference(&swapped),
            -0.5,
            error,
            (-0.5 - half, -0.5 + half),
        );
    }

    /// Intervals end where scores do; without a spread each question is one trial.
    #[test]
    fn ends() {
        let extreme = clustered_mean(&[counts(0, 2), counts(2, 2)]).unwrap();
        let all = Interval {
            low: 0.0,
            high: 1.0,
        };
        assert_eq!(extreme.interval, all);
        let certain = clustered_mean(&[counts(2, 2), counts(3, 3)]).unwrap();
        assert!(certain.standard_error.abs() < 1e-12);
        assert_eq!(certain.interval, wilson(2, 2));
        assert_eq!(
            clustered_mean(&[counts(2, 2)]).unwrap().interval,
            wilson(1, 1)
        );
        let better = [(counts(1, 4), counts(2, 4)); 3];
        let votes = paired(0, 0, 3, 0).difference_interval();
        let found = clustered_difference(&better).unwrap();
        assert!((found.mean - 0.25).abs() < 1e-12);
        assert!((found.interval.low - votes.low * 0.25).abs() < 1e-12);
        assert!((found.interval.high - votes.high * 0.25).abs() < 1e-12);
        assert_eq!(clustered_mean(&[]), None);
        assert_eq!(clustered_difference(&[]), None);
    }

    /// With one sample a question it is the sample standard deviation over the root of n, as
    /// lm-evaluation-harness prints it for 993 of 1319.
    #[test]
    fn one_sample_each() {
        let right = (0..1319).map(|index| counts(u64::from(index < 993), 1));
        let found = clustered_mean(&right.collect::<Vec<_>>()).unwrap();
        assert_eq!(
            format!("{:.4} {:.4}", found.mean, found.standard_error),
            "0.7528 0.0119"
        );
    }

    /// The four published OpenAI models as four samples: the mean is pass@1.
    #[test]
    fn four_samples_each() {
        let histogram = [432, 290, 236, 205, 156];
        let questions = (0..)
            .zip(histogram)
            .flat_map(|(right, count)| std::iter::repeat_n(counts(right, 4), count));
        let found = clustered_mean(&questions.collect::<Vec<_>>());
        let mean = 0.379_264_594_389_689_2;
        // Of the histogram, by Python.
        let error = 0.009_554_821_364_076;
        check(
            found,
            mean,
            error,
            (0.360_537_488_638_627, 0.397_991_700_141_992),
        );
    }

    /// Pairs of the published models: pairing takes a sixth to a quarter off the error.
    #[test]
    fn pairing_pays() {
        for (counted, paired, unpaired) in [
            ([222, 64, 293, 740], "1.35", "1.76"),
            ([306, 209, 152, 652], "1.44", "1.88"),
            ([382, 76, 360, 501], "1.47", "1.89"),
            ([243, 43, 499, 534], "1.49", "1.78"),
        ] {
            let kinds = [(1, 1), (1, 0), (0, 1), (0, 0)];
            let questions: Vec<(SampleCounts, SampleCounts)> = kinds
                .into_iter()
                .zip(counted)
                .flat_map(|((first, second), count)| {
                    std::iter::repeat_n((counts(first, 1), counts(second, 1)), count)
                })
                .collect();
            let error = |found: Option<Estimate>| found.unwrap().standard_error;
            let (first, second): (Vec<_>, Vec<_>) = questions.iter().copied().unzip();
            let apart = error(clustered_mean(&first)).hypot(error(clustered_mean(&second)));
            let together = error(clustered_difference(&questions));
            assert_eq!(format!("{:.2}", together * 100.0), paired, "{counted:?}");
            assert_eq!(format!("{:.2}", apart * 100.0), unpaired, "{counted:?}");
        }
    }
}
