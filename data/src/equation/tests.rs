use super::first_false;

fn check(text: &str, expected: Option<&str>) {
    let found = first_false(text).map(|span| text[span].trim().to_owned());
    assert_eq!(found.as_deref(), expected, "{text:?}");
}

/// Right arithmetic in any of the ways models write it passes.
#[test]
fn true_equations_pass() {
    for text in [
        "Tom has 48 / 2 = 24 clips. He gives away 4, so 24 - 4 = 20.",
        "20 + 1/4 * 20 = 20 + 5 = 25",
        "5 + 3 = 8 + 2 = 10",
        "$5 x 3 = $15 and 1,450 × 2 = 2,900.",
        "10 / 3 = 3.33",
        "x = 4, y = 5",
        "(2 + 3) * 4 = 20",
        "5 − 7 = -2",
    ] {
        check(text, None);
    }
}

/// A result that is bent to a known answer is found.
#[test]
fn false_equations_are_found() {
    check(
        "The change is 300 - 34 = 246 dollars.",
        Some("300 - 34 = 246"),
    );
    check("0.83 x 12 = $10.00 in all", Some("0.83 x 12 = $10.00"));
    check("That is 2 + 2 = 4.\nThen 4 * 3 = 13.", Some("4 * 3 = 13"));
    check("20 + 5 = 25 = 5 * 6", Some("20 + 5 = 25 = 5 * 6"));
}

/// What is no plain arithmetic is passed over, not judged.
#[test]
fn what_cannot_be_read_is_no_verdict() {
    for text in [
        "1/10 = 10%",
        "100% - 20% = 80%",
        "3 apples * 4 = 13",
        "cost = 5",
        "= 4",
        "5 / 0 = 7",
        "",
    ] {
        check(text, None);
    }
}

/// Odd bytes and lengths do no harm.
#[test]
fn no_text_panics() {
    for text in [
        "=",
        "==",
        "−=×",
        "1e9 = 2",
        "9999999999999999999999999999999999999999 * 9 = 1",
        "½ = 5 + 5",
    ] {
        let _ = first_false(text);
    }
}
