//! Which spellings are one number, and which are two or none.

use super::{Found, exact, numbers};
use crate::number::Number;

/// The numbers of a text, in their printed form; `?` for one that does not fit.
fn found(text: &str) -> Vec<String> {
    numbers(text)
        .map(|Found { value, .. }| value.map_or("?".into(), |v| v.to_string()))
        .collect()
}

fn check(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(found(text), *expected, "numbers of {text:?}");
    }
}

/// Digits, groups and decimals in the spellings that answers come in.
#[test]
fn plain_numbers() {
    check(&[
        ("18", &["18"]),
        ("18.", &["18"]),
        ("007", &["7"]),
        ("10.00", &["10"]),
        ("62.50", &["62.5"]),
        (".5", &["0.5"]),
        ("so... .5 of it", &["0.5"]),
        ("wait...5", &["5"]),
        ("3.14.15", &["3.14", "15"]),
        ("1,450", &["1450"]),
        ("180,000.25", &["180000.25"]),
        ("192,000,000", &["192000000"]),
        ("1{,}450", &["1450"]),
        ("1\\,450", &["1450"]),
        ("5\u{A0}000", &["5000"]),
        ("5\u{2009}000\u{2009}000", &["5000000"]),
        ("1,2", &["1", "2"]),
        ("12,3456", &["12", "3456"]),
        ("1,450, and 3", &["1450", "3"]),
        ("0,500", &["0", "500"]),
        ("5 000", &["5", "0"]),
        ("1.2e3", &["1200"]),
        ("5E-1", &["0.5"]),
        ("3 eggs", &["3"]),
        ("3e", &["3"]),
        ("2e3x", &["2", "3"]),
        ("none", &[]),
        ("....,,,", &[]),
    ]);
}

/// Currency, percent and units leave the number as it is.
#[test]
fn decorated_numbers() {
    check(&[
        ("$18", &["18"]),
        ("\\$18", &["18"]),
        ("350$", &["350"]),
        ("€1,200.50", &["1200.5"]),
        ("$118 000", &["118000"]),
        ("$ 118 000 in", &["118000"]),
        ("$118 0000", &["118", "0"]),
        ("25%", &["25"]),
        ("25\\%", &["25"]),
        ("**18**", &["18"]),
        ("x = 18", &["18"]),
        ("\\text{18}", &["18"]),
        ("\\text{18 eggs}", &["18"]),
        ("[18]", &["18"]),
        ("Rs500", &["500"]),
        ("5x4=20", &["5", "4", "20"]),
        ("2:30", &["2", "30"]),
    ]);
}

/// A minus is a sign only where it cannot be an operator, a hyphen or a list's dash.
#[test]
fn signs() {
    check(&[
        ("-7", &["-7"]),
        ("is -7", &["-7"]),
        ("\u{2212}7", &["-7"]),
        ("-$3", &["-3"]),
        ("$-3", &["-3"]),
        ("-\\$3", &["-3"]),
        ("$\u{2212}3", &["-3"]),
        ("(-3)", &["-3"]),
        ("= -3", &["-3"]),
        ("=-3", &["-3"]),
        ("5 * -3", &["5", "-3"]),
        ("**-3**", &["-3"]),
        ("-1 1/2", &["-1.5"]),
        ("-.5", &["-0.5"]),
        ("-\\frac{1}{2}", &["-0.5"]),
        ("16-3", &["16", "3"]),
        ("16 - 3", &["16", "3"]),
        ("16 -3 = 13", &["16", "3", "13"]),
        ("$16-$3", &["16", "3"]),
        ("350$-3", &["350", "3"]),
        ("(2+3)-4", &["2", "3", "4"]),
        ("25%-5%", &["25", "5"]),
        ("COVID-19", &["19"]),
        ("5\u{2013}10", &["5", "10"]),
        ("\u{2013}10", &["10"]),
        ("- 7 eggs", &["7"]),
        ("a\n-3", &["-3"]),
    ]);
}

/// Fractions are exact, dates and paths are not fractions.
#[test]
fn fractions() {
    check(&[
        ("3/4", &["0.75"]),
        ("1/3", &["1/3"]),
        ("1,200/4", &["300"]),
        ("1 1/2", &["1.5"]),
        ("2½", &["2.5"]),
        ("2 ½", &["2.5"]),
        ("½ of 10", &["0.5", "10"]),
        ("\\frac{3}{4}", &["0.75"]),
        ("\\dfrac{-3}{4}", &["-0.75"]),
        ("\\frac34", &["0.75"]),
        ("2\\frac{1}{2}", &["2.5"]),
        ("\\frac{1,000}{4}", &["250"]),
        ("\\frac{x}{4}", &["4"]),
        ("\\frac{3}{0}", &["3", "0"]),
        ("3/0", &["3", "0"]),
        ("1/2/2024", &["1", "2", "2024"]),
        ("3/4.5", &["3", "4.5"]),
        ("60 miles/2 hours", &["60", "2"]),
        ("$2/egg", &["2"]),
        ("16 3/4 and 1", &["16.75", "1"]),
        ("16 8/4", &["16", "2"]),
    ]);
}

/// Digits beyond the range are found and said not to fit; they never turn into another number.
#[test]
fn too_large_is_found_without_value() {
    let nines = "9".repeat(60);
    check(&[
        (&nines, &["?"]),
        ("1e999", &["?"]),
        ("3 and 9e99", &["3", "?"]),
    ]);
    assert_eq!(found(&format!("0.{nines} 4")), ["?", "4"]);
}

/// A span covers sign and digits, in bytes.
#[test]
fn spans() {
    let text = "it is \u{2212}$1,450.50!";
    let span = numbers(text).next().unwrap().span;
    assert_eq!(&text[span], "\u{2212}$1,450.50");
    let span = numbers("on $3 dollars").next().unwrap().span;
    assert_eq!(span, 4..5);
}

/// `exact` reads a number and nothing beside it.
#[test]
fn exact_takes_the_whole_text() {
    assert_eq!(exact("-7"), Some(Number::from(-7)));
    assert_eq!(exact("1/3"), Number::new(1, 3));
    for text in ["", " 7", "7 ", "7.", "$7", "7 8", "--7"] {
        assert_eq!(exact(text), None, "{text:?}");
    }
}
