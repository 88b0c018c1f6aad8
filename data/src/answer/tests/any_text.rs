//! Any text is fine: whatever bytes, however long, however deep.

use super::Draw;
use crate::{
    annotation,
    answer::{Rule, extract_all},
    equation, leak,
    number::Number,
};
use std::time::Instant;

/// Pieces of everything that the rules look for.
const PIECES: [&[u8]; 52] = [
    b"####",
    b"#### ",
    b"\\boxed",
    b"{",
    b"}",
    b"\\frac",
    b"\\",
    b"answer",
    b"Answer is",
    b":",
    b"=",
    b"-",
    b"\xE2\x88\x92",
    b"$",
    b"\xE2\x82\xAC",
    b"0",
    b"1",
    b"7",
    b"12",
    b"123",
    b"999",
    b"99999999999999999999999999999999999999999999",
    b".",
    b",",
    b"/",
    b"e",
    b"E5",
    b"e-9",
    b" ",
    b"\n",
    b"\r\n",
    b"\xC2\xBD",
    b"\xC2\xA0",
    b"\xE2\x80\xA8",
    b"\xE2\x89\x88",
    b"%",
    b"*",
    b"x",
    b"\\,",
    b"{,}",
    b"\xFF",
    b"\xF0\x9F\xA5\x9A",
    b"step",
    b"\0",
    b"<answer>",
    b"</answer>",
    b"Final answer",
    b" x 10^",
    b"10^{",
    b"<<",
    b">>",
    b" since ",
];

/// Nothing panics, and spans lie in the text.
fn check(text: &str, seed: u64) {
    for extraction in extract_all(text) {
        let span = extraction.span.unwrap_or(0..0);
        assert!(
            text.get(span).is_some(),
            "seed {seed}: span outside {text:?}"
        );
    }
    for found in equation::list(text) {
        assert!(
            text.get(found.span).is_some(),
            "seed {seed}: span outside {text:?}"
        );
    }
    annotation::strip(text);
    annotation::evaluate(text);
    leak::find_leaks(text, Number::from(7));
    equation::fingerprint(text);
}

#[test]
fn markers_thrown_together() {
    for seed in 0..20_000 {
        let mut draw = Draw::new(seed);
        let pieces = (0..draw.below(40)).flat_map(|_| draw.of(PIECES));
        let bytes: Vec<u8> = pieces.copied().collect();
        check(&String::from_utf8_lossy(&bytes), seed);
    }
}

#[test]
fn random_bytes() {
    for seed in 0..20_000 {
        let mut draw = Draw::new(seed);
        let (len, limit) = (draw.below(60), draw.of([128, 256]));
        let bytes: Vec<u8> = (0..len).map(|_| draw.below(limit) as u8).collect();
        check(&String::from_utf8_lossy(&bytes), seed);
    }
}

/// Brackets as deep as the text is long are read, or refused, without recursion to that depth.
#[test]
fn deep_nesting() {
    for (open, close) in [
        ("{", "}"),
        ("\\boxed{", "}"),
        ("(", ")"),
        ("\\frac{", "}{2}"),
        ("-", ""),
        ("1 + (", ")"),
    ] {
        let text = format!("{}18{} = 3", open.repeat(20_000), close.repeat(20_000));
        check(&text, 0);
    }
    let nested = format!("{}18{}", "\\boxed{".repeat(1000), "}".repeat(1000));
    assert_eq!(extract_all(&nested)[0].value, Some(Number::from(18)));
}

/// A megabyte is read in time proportional to its length, in less than a second: run-on texts with
/// thousands of markers are no problem. (The limit leaves room for busy machines; a quadratic step
/// takes minutes.)
#[test]
fn long_texts_are_read_once() {
    const MAX_SECONDS: f64 = 10.0;
    for piece in [
        "#### ",
        "####\n",
        "#### 18\n",
        "\\boxed{",
        "\\boxed{18} ",
        "{",
        "}",
        "answer is ",
        "answer is\n",
        "answer: 18\n",
        "final answer\n",
        "<answer>",
        "- $",
        "-",
        "1/",
        "1,",
        "1 ",
        "1 1/2 ",
        "\\frac{",
        "\\frac1",
        "=",
        "1=",
        "10^",
        "1 x 10^",
        " ",
        "\n",
        "$",
        ".",
        "1.",
        "She has 16 - 3 = 13 eggs.\n",
        "½",
        "\u{2212}",
        "e",
        "1e",
        "*",
        "#",
    ] {
        let text = piece.repeat(1_000_000 / piece.len());
        let start = Instant::now();
        assert_eq!(extract_all(&text).len(), Rule::ALL.len());
        leak::find_leaks(&text, Number::from(7));
        let seconds = start.elapsed().as_secs_f64();
        assert!(seconds < MAX_SECONDS, "{piece:?}: {seconds} s");
    }
}
