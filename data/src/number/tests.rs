//! What a [`Number`] promises.

use super::Number;

fn number(numerator: i128, denominator: i128) -> Number {
    Number::new(numerator, denominator).unwrap()
}

/// Equal values are equal numbers, however they were written.
#[test]
fn lowest_terms() {
    assert_eq!(number(6, -8), number(-3, 4));
    assert_eq!(number(0, -5), Number::ZERO);
    assert_eq!(number(1000, 100), Number::from(10));
    assert_eq!(Number::new(1, 0), None);
}

/// Integers, finite decimals and fractions each print in their own form and read back.
#[test]
fn display_reads_back() {
    for (value, text) in [
        (number(-7, 1), "-7"),
        (number(3, 4), "0.75"),
        (number(-1, 8), "-0.125"),
        (number(1, 3), "1/3"),
        (number(-22, 7), "-22/7"),
        (number(192_000_000, 1), "192000000"),
        (number(29_995, 1000), "29.995"),
        (
            number(i128::MAX, 1),
            "170141183460469231731687303715884105727",
        ),
        (
            number(i128::MAX, 2),
            "170141183460469231731687303715884105727/2",
        ),
    ] {
        assert_eq!(value.to_string(), text);
        assert_eq!(
            serde_json::to_string(&value).unwrap(),
            format!("\"{text}\"")
        );
        assert_eq!(
            serde_json::from_str::<Number>(&format!("\"{text}\"")).unwrap(),
            value
        );
    }
}

/// A record with a value that is no number is refused with the text that was found.
#[test]
fn deserialize_refuses_other_text() {
    for text in ["", "18 eggs", "1 2", "abc"] {
        let error = serde_json::from_str::<Number>(&format!("\"{text}\"")).unwrap_err();
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

/// What leaves the range is `None`, never a wrapped value or a panic.
#[test]
fn overflow_is_none() {
    let huge = number(i128::MAX, 1);
    let tiny = number(1, i128::MAX);
    let lowest = number(i128::MIN, 1);
    assert_eq!(huge.checked_add(Number::from(1)), None);
    assert_eq!(huge.checked_mul(huge), None);
    assert_eq!(tiny.checked_mul(tiny), None);
    assert_eq!(lowest.checked_neg(), None);
    assert_eq!(Number::new(i128::MIN, -1), None);
    assert_eq!(Number::new(i128::MIN, i128::MIN), Some(Number::from(1)));
    assert_eq!(Number::from(1).checked_div(Number::ZERO), None);
}

/// Arithmetic is exact: a third, three times, is one.
#[test]
fn arithmetic_is_exact() {
    let third = number(1, 3);
    assert_eq!(
        third.checked_add(third).unwrap().checked_add(third),
        Some(Number::from(1))
    );
    assert_eq!(
        number(83, 100).checked_mul(Number::from(12)),
        Some(number(996, 100))
    );
    assert_eq!(
        Number::from(2).checked_sub(number(1, 2)),
        Some(number(3, 2))
    );
    assert!((third.to_f64() - 0.333_333).abs() < 1e-6);
}
