//! The leak filter.

use super::{LeakReason, find_leaks};
use crate::number::Number;

/// Each sign is found, whatever the case and the line breaks, and named by its reason.
#[test]
fn each_sign() {
    use LeakReason::{AsGiven, KnownAnswer, SinceTheAnswer, TheHint, Underived, WeKnow};
    const WORK: &str = "9 * 2 = 18. ";
    for (text, expected) in [
        ("So she makes 18.", vec![]),
        ("The answer is 18.", vec![]),
        ("The final answer is 18.", vec![]),
        ("This matches The Correct\nanswer.", vec![KnownAnswer]),
        ("The correct final answer is 18.", vec![KnownAnswer]),
        (
            "It must equal the given answer, the known answer.",
            vec![KnownAnswer],
        ),
        ("It is 18, as given.", vec![AsGiven]),
        ("We know the answer.", vec![WeKnow]),
        ("We know that the final answer is 18.", vec![WeKnow]),
        ("Since the answer is 18, stop.", vec![SinceTheAnswer]),
        ("The hint says so.", vec![TheHint]),
        ("She walked the hinterland.", vec![]),
        ("As given, the hint.", vec![AsGiven, TheHint]),
    ] {
        assert_eq!(
            find_leaks(&format!("{WORK}{text}"), Number::from(18)),
            expected,
            "{text}"
        );
    }
    assert_eq!(
        find_leaks("She sells eggs. She makes 18.", Number::from(18)),
        [Underived]
    );
}

/// A number that an equation makes is derived, also in the last sentence; one that was there before
/// is too; one that never comes is not the filter's business.
#[test]
fn derived_or_not() {
    let gold = Number::from(18);
    for text in [
        "She sells nine. She makes 9 * 2 = 18.",
        "She makes $18 a day.\n#### 18",
        "Nine eggs.\n9 * 2 = $18.00\n#### 18",
        "She makes 17.",
        "",
    ] {
        assert_eq!(find_leaks(text, gold), [], "{text:?}");
    }
    for text in [
        "18",
        "We add all of it.\n#### 18",
        "9 * 2 is a lot. So it must be 18!\n",
    ] {
        assert_eq!(find_leaks(text, gold), [LeakReason::Underived], "{text:?}");
    }
}
