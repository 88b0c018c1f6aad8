//! Equations in the shapes that people and models write them in.

use super::{fingerprint, first_false, list};

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

/// `calculation=result` for each equation, with `!` where it is false and `?` where that is not
/// sure.
fn listed(text: &str) -> String {
    let shown = list(text).into_iter().map(|found| {
        let mark = match found.holds {
            Some(true) => "",
            Some(false) => "!",
            None => "?",
        };
        format!("{}={}{mark}", found.calculation, found.result)
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Every equality in order, in one spelling whatever the text's.
#[test]
fn equations_are_listed() {
    for (text, expected) in [
        // Chains and writing on.
        ("20 + 1/4*20 = 20 + 5 = 25", "20+1/4*20=25 20+5=25"),
        ("5 + 3 = 8 + 2 = 10", "5+3=8 8+2=10"),
        ("x = 5 + 3 = 8", "5+3=8"),
        ("So 2 * 3 = 6 (and 6 + 1 = 7).", "2*3=6 6+1=7"),
        ("She has 3 (5 - 2 = 3) left", "5-2=3"),
        ("24 = 48 / 2", "48/2=24"),
        // Spellings.
        (
            "48 ÷ 2 = 24, 3 × 4 = 12, 3 x $4 = $12",
            "48/2=24 3*4=12 3*4=12",
        ),
        ("$1,450.00 - $450 = $1,000", "1450-450=1000"),
        ("2.50*4 = 10.00", "2.5*4=10"),
        (".5 * 8 = 4", "0.5*8=4"),
        ("9 − 4 = 5 and 16 – 3 = 13", "9-4=5 16-3=13"),
        ("(2 + 3)(4) = 20, 3(1 + 1) = 6", "(2+3)*(4)=20 3*(1+1)=6"),
        ("1 1/2 * 4 = 6 and 2½ + ½ = 3", "1.5*4=6 2.5+0.5=3"),
        ("12 plus 13 equals 25", "12+13=25"),
        (
            "- 48 / 2 = 24\n* 24 - 4 = 20\n1. 5 + 3 = 8",
            "48/2=24 24-4=20 5+3=8",
        ),
        ("**48 / 2 = 24**, *3 + 4 = 7*", "48/2=24 3+4=7"),
        ("-3 + 5 = 2", "-3+5=2"),
        // LaTeX.
        ("\\(48 \\div 2 = 24\\)", "48/2=24"),
        ("$3 \\times \\$4 = \\$12$", "3*4=12"),
        ("\\frac{1}{2} \\times 48 = 24", "((1)/(2))*48=24"),
        ("12 \\div \\frac{3}{4} = 16", "12/((3)/(4))=16"),
        ("\\boxed{16 - 3 = 13}", "16-3=13"),
        ("5 \\text{ eggs} \\cdot 2 = 10", "5*2=10"),
        // Units, percent, words between.
        ("16 eggs - 3 eggs = 13 eggs", "16-3=13"),
        ("9 eggs * $2/egg = $18", "9*2=18"),
        ("35 hours/week * 2 weeks = 70 hours", "35*2=70"),
        ("20% of 50 = 10", "20%*50=10"),
        ("100% - 20% = 80%", "100%-20%=0.8"),
        ("60/80 * 100 = 75%", "60/80*100=75"),
        ("4 / 3 = 1 and 1/3 hours", "4/3=4/3"),
        ("15 pages x 1/3 = 5 pages", "15*1/3=5"),
        ("28 / 1/5 = 140", "28/0.2=140"),
        ("100 / 3 ≈ 33", "100/3=33?"),
        ("3 sprints x 3 times = 9 sprints", "3*3=9"),
        ("4 * 3 is 12. The number 5 is 3 + 2", "4*3=12 3+2=5"),
        ("5 * 4 = 21 is the total", "5*4=21!"),
        ("4 * 3 is 13", "4*3=13?"),
        ("13 / 6 = 2 full cycles with a remainder of 1", "13/6=2?"),
        (
            "8 / 3 = 2 R 2, 100 / 3 = 33 (rounded down)",
            "8/3=2? 100/3=33?",
        ),
        ("3 apples * 4 = 13", "3*4=13?"),
        // Nothing is calculated, or nobody can tell what.
        ("cost = 5, 4 = 4, x = 18", ""),
        ("3(x + 2) = 9, 2x + 3 = 7, 100/5 = 5A/5", ""),
        ("2 ** 3 = 8, √(144) = 12, 6:00+48=6:48, 2^3 = 8", ""),
        ("118 000 + 5 = 118005", ""),
        ("5 - y = 3, 3*30 = 30 + M", ""),
        ("The price of 1 bathroom = 6 * 8 = 48", "6*8=48"),
        // False.
        ("300 - 34 = 246", "300-34=246!"),
        ("2 + 2 = 5 = 5 * 1", "2+2=5! 5*1=5"),
    ] {
        assert_eq!(listed(text), expected, "{text}");
    }
}

/// An annotation is no second equation beside the one it stands in; alone it counts.
#[test]
fn annotations_count_once() {
    for (text, expected) in [
        ("16 - 3 = <<16-3=13>>13 eggs", "16-3=13"),
        ("He sold 48/2 = $<<48/2=24>>24.", "48/2=24"),
        ("There are <<16-3=13>>13 eggs.", "16-3=13"),
        (
            "half of them = <<48/2=24>>24, and 3 + 4 = <<3+4=7>>7",
            "48/2=24 3+4=7",
        ),
        ("20*.2=<<20*.2=4>>4", "20*0.2=4"),
        ("<<open = 1 + 1", ""),
    ] {
        assert_eq!(listed(text), expected, "{text}");
    }
    // A false one is found although the equation around it is true.
    check("16 - 3 = <<16-3=14>>13", Some("16-3=14"));
}

/// Right sides may be rounded to what they show, left sides are what they are.
#[test]
fn rounding() {
    for (text, expected) in [
        ("2 / 3 = 0.67", "2/3=0.67"),
        ("2 / 3 = 0.6", "2/3=0.6!"),
        ("1/3 = 33.3%", "1/3=0.333"),
        ("8.33 = 25 / 3", "25/3=8.33"),
        ("0.83 x 12 = 10.00", "0.83*12=10!"),
        ("100 / 3 = 33", "100/3=33!"),
    ] {
        assert_eq!(listed(text), expected, "{text}");
    }
}

/// What is no equation for sure is not judged by a part of it.
#[test]
fn parts_are_not_judged() {
    for text in [
        "2x - 3 + 5 = 9",
        "D3 = 2 * 322",
        "p + p/2 + 3 = 69",
        "he can park 16,0000/10=16000 cars",
        "100/5 = 5A/5",
        "21/7 = 90/x",
        "$2.50 - $2.24 = 26 cents",
        "22 - 16 = 16 + x - 16",
        "0900-0130 = 0730",
        "$100+($100*(10/100) = $110",
        "x/3 = 186/3 = 62",
        "3 (5+3) = 24",
        "4 / 3 = 1 and 1/3",
        "Remaining 10 = 62,300/10",
        "200=(5/4)x",
    ] {
        check(text, None);
    }
}

/// The span of an equation is its two sides in the text.
#[test]
fn spans() {
    let text = "é: $5 x 3 = $15 - 1 = 14. See <<7-4=3>>.";
    let spans: Vec<&str> = list(text)
        .into_iter()
        .map(|found| &text[found.span])
        .collect();
    assert_eq!(spans, ["5 x 3 = $15 - 1", "15 - 1 = 14", "7-4=3"]);
}

/// The same equations in other words are the same solution; another order, number or step is
/// another.
#[test]
fn fingerprints() {
    let base = fingerprint("Tom has 48 / 2 = 24 clips.\nSo 24 - 4 = 20.\n#### 20");
    assert_eq!(base, "48/2=24;24-4=20");
    assert_eq!(
        fingerprint("First, $48 ÷ 2 = $24. Then 24 − 4 = <<24-4=20>>20!"),
        base
    );
    assert_ne!(fingerprint("24 - 4 = 20 since 48 / 2 = 24"), base);
    assert_ne!(fingerprint("48 / 2 = 24"), base);
    let words = fingerprint("Half of them, less four, are twenty.");
    assert!(words.starts_with("text:"), "{words}");
    assert_eq!(
        fingerprint("Half of them,\n less four, are  twenty. "),
        words
    );
    assert_ne!(fingerprint("Half of them, less five, are twenty."), words);
}

/// A megabyte of any piece is read in time proportional to its length.
#[test]
fn long_texts_are_read_once() {
    for piece in [
        "1 + 1 = 2 ",
        "=",
        "(",
        "- ",
        "x ",
        "<<",
        "<<1=1",
        "<<1=1>>",
        "1 = <<1+0=1>>",
        "\\frac{",
        "}{",
        "**",
        "* ",
        "1 egg ",
        "egg ",
        "1/",
        "1 and ",
        "$",
        "1,",
        "\\text{",
        "/a",
        " ",
    ] {
        let text = piece.repeat(1_000_000 / piece.len());
        let start = std::time::Instant::now();
        let _ = (list(&text).len(), first_false(&text));
        let seconds = start.elapsed().as_secs_f64();
        // About one second; the limit leaves room for busy machines.
        assert!(seconds < 10.0, "{piece:?} took {seconds} s");
    }
}
