//! Calculator annotations.

use super::{annotations, evaluate, strip};
use crate::number::Number;

/// Annotations go, the text around them stays as it is.
#[test]
fn strip_removes_annotations_only() {
    assert_eq!(
        strip("16 - 3 = <<16-3=13>>13 eggs\n#### 13"),
        "16 - 3 = 13 eggs\n#### 13"
    );
    assert_eq!(strip("<<1=1>><<2=2>>"), "");
    assert_eq!(strip("a << b"), "a << b");
    assert_eq!(strip("é<<½>>é"), "éé");
}

/// Sums, products, brackets, signs; exact division.
#[test]
fn evaluate_is_exact() {
    for (expression, value) in [
        ("16-3-4", (9, 1)),
        ("2+3*4", (14, 1)),
        ("(2+3)*4", (20, 1)),
        ("1/3*3", (1, 1)),
        ("-(2-5)", (3, 1)),
        ("+30+46", (76, 1)),
        ("12/8", (3, 2)),
        ("12//8", (1, 1)),
        ("-1//2", (-1, 1)),
        (".5*2.", (1, 1)),
        (" 80000 * 1.5 ", (120_000, 1)),
    ] {
        assert_eq!(
            evaluate(expression),
            Number::new(value.0, value.1),
            "{expression}"
        );
    }
}

/// What is not arithmetic has no value, and deep nesting does not end the stack.
#[test]
fn evaluate_refuses() {
    for expression in [
        "", "2+", "2 3", "(2", "2)", "1/0", "x", "1..2", "2**3", "1,000",
    ] {
        assert_eq!(evaluate(expression), None, "{expression}");
    }
    assert_eq!(evaluate(&"(".repeat(100_000)), None);
    assert_eq!(evaluate(&"-".repeat(100_000)), None);
}

/// Both sides are compared by value.
#[test]
fn holds_compares_values() {
    let text = "<<3/4=0.75>> <<2+2=5>> <<x=1>> <<no equals sign>> <<open=1";
    let verdicts: Vec<Option<bool>> = annotations(text).map(|found| found.holds()).collect();
    assert_eq!(verdicts, [Some(true), Some(false), None]);
}
