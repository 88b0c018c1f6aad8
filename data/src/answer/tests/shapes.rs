//! The shapes that answers come in, each with the number that is meant, what pointed at it and what
//! a reader should know: shapes reported from outputs of Llama 3.2 and of tuned models, shapes that
//! other extractors got wrong, and their neighbours.

use crate::answer::{Extraction, Flag, FoundBy, Rule, extract};

/// `18 hash`, `18 guess`, `18 boxed several`; `-` where nothing is found, `?` for a number too
/// large.
fn shown(extraction: &Extraction) -> String {
    let Some(found_by) = extraction.found_by else {
        return "-".into();
    };
    let number = extraction
        .value
        .map_or("?".into(), |value| value.to_string());
    let by = match found_by {
        FoundBy::HashMark => "hash",
        FoundBy::Boxed => "boxed",
        FoundBy::AnswerIs => "answer",
        FoundBy::LastNumber => "guess",
    };
    let flags = extraction.flags.iter().filter_map(|flag| match flag {
        // "guess" says it.
        Flag::Fallback => None,
        Flag::SeveralMarkers => Some(" several"),
        Flag::ConflictingMarkers => Some(" conflict"),
        Flag::SeveralNumbers => Some(" numbers"),
        Flag::Unrepresentable => Some(" huge"),
    });
    format!("{number} {by}{}", flags.collect::<String>())
}

fn check(table: &[(&str, &str)]) {
    let found = table.iter().map(|(text, expected)| {
        let found = shown(&extract(text, Rule::Numeric));
        (found != *expected).then(|| format!("{text:?}: expected {expected}, found {found}"))
    });
    let wrong: Vec<String> = found.flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How a number is written, behind the marker that leaves no doubt.
#[test]
fn numbers() {
    #[rustfmt::skip]
    check(&[
        ("#### 18",                     "18 hash"),
        ("#### 0",                      "0 hash"),
        ("#### -0",                     "0 hash"),
        ("#### 007",                    "7 hash"),
        ("#### 18.",                    "18 hash"),
        ("#### 18.\n",                  "18 hash"),
        ("#### 18,",                    "18 hash"),
        ("#### 18;",                    "18 hash"),
        ("#### 18!",                    "18 hash"),
        ("#### 18...",                  "18 hash"),
        ("#### 18…",                    "18 hash"),
        ("#### 18\r\n",                 "18 hash"),
        ("#### 18<|eot_id|>",           "18 hash"),
        ("#### 18</s>",                 "18 hash"),
        ("#### 10.00",                  "10 hash"),
        ("#### 57.00",                  "57 hash"),
        ("#### 62.50",                  "62.5 hash"),
        ("#### .5",                     "0.5 hash"),
        ("#### 0.5",                    "0.5 hash"),
        ("#### -.5",                    "-0.5 hash"),
        ("#### 5.",                     "5 hash"),
        ("#### 1,450",                  "1450 hash"),
        ("#### 1,450.00",               "1450 hash"),
        ("#### 180,000",                "180000 hash"),
        ("#### 2,880,000",              "2880000 hash"),
        ("#### 192,000,000",            "192000000 hash"),
        ("#### 1{,}450",                "1450 hash"),
        ("#### 1\\,450",                "1450 hash"),
        ("#### 1\u{202F}450",           "1450 hash"),
        ("#### 1\u{2009}450",           "1450 hash"),
        ("#### 1\u{A0}450",             "1450 hash"),
        ("#### $118 000",               "118000 hash"),
        ("#### -7",                     "-7 hash"),
        ("#### \u{2212}7",              "-7 hash"),
        ("#### -$3",                    "-3 hash"),
        ("#### $-3",                    "-3 hash"),
        ("#### -1,450.25",              "-1450.25 hash"),
        ("#### +18",                    "18 hash"),
    ]);
}

/// What may stand around a number behind that marker.
#[test]
fn dressed_numbers() {
    #[rustfmt::skip]
    check(&[
        ("#### $18",                    "18 hash"),
        ("#### $ 18",                   "18 hash"),
        ("#### \\$18",                  "18 hash"),
        ("#### $29.00",                 "29 hash"),
        ("#### US$18",                  "18 hash"),
        ("#### 350$",                   "350 hash"),
        ("#### 18 dollars",             "18 hash"),
        ("#### €18",                    "18 hash"),
        ("#### 18€",                    "18 hash"),
        ("#### 18 €",                   "18 hash"),
        ("#### £18.50",                 "18.5 hash"),
        ("#### 25%",                    "25 hash"),
        ("#### 25 %",                   "25 hash"),
        ("#### 25\\%",                  "25 hash"),
        ("#### 3/4",                    "0.75 hash"),
        ("#### -3/4",                   "-0.75 hash"),
        ("#### 1 1/2",                  "1.5 hash"),
        ("#### 1½",                     "1.5 hash"),
        ("#### ½",                      "0.5 hash"),
        ("#### \\frac{3}{4}",           "0.75 hash"),
        ("#### -\\frac{3}{4}",          "-0.75 hash"),
        ("#### \\dfrac34",              "0.75 hash"),
        ("#### \\frac34",               "0.75 hash"),
        ("#### 2\\frac{1}{2}",          "2.5 hash"),
        ("#### 1/3",                    "1/3 hash"),
        ("#### 1.2e3",                  "1200 hash"),
        ("#### 5E-1",                   "0.5 hash"),
        ("#### 1.2 \\times 10^3",       "1200 hash"),
        ("#### 1.2 x 10^3",             "1200 hash"),
        ("#### 1.5 × 10^{-2}",          "0.015 hash"),
        ("#### 10^6",                   "1000000 hash"),
        ("#### 3 \\cdot 10^{3}",        "3000 hash"),
        ("#### 3 * 10 = 30",            "30 hash"),
        ("#### 3 * 10^x",               "3 hash numbers"),
        ("#### 18 eggs",                "18 hash"),
        ("#### 18eggs",                 "18 hash"),
        ("#### 18 \\text{ eggs}",       "18 hash"),
        ("#### \\text{18}",             "18 hash"),
        ("#### $18$",                   "18 hash"),
        ("#### $\\$18$",                "18 hash"),
        ("#### \\(18\\)",               "18 hash"),
        ("#### [18]",                   "18 hash"),
        ("#### (18)",                   "18 hash"),
        ("#### {18}",                   "18 hash"),
        ("#### <18>",                   "18 hash"),
        ("#### '18'",                   "18 hash"),
        ("#### `18`",                   "18 hash"),
        ("#### **18**",                 "18 hash"),
        ("#### __18__",                 "18 hash"),
        ("#### ~18",                    "18 hash"),
        ("#### = 18",                   "18 hash"),
        ("#### x = 18",                 "18 hash"),
        ("#### x=18",                   "18 hash"),
        ("#### x = -18",                "-18 hash"),
        ("#### ≈ 18",                   "18 hash"),
        ("#### eighteen (18)",          "18 hash"),
        ("#### 18 (eighteen)",          "18 hash"),
        ("#### 18/1",                   "18 hash"),
        ("#### 6:48",                   "6 hash numbers"),
        ("#### 18-20",                  "18 hash numbers"),
        ("#### 18 or 20",               "18 hash numbers"),
        ("#### 18, 20",                 "18 hash numbers"),
        ("#### 5 + 6",                  "5 hash numbers"),
        ("#### 99999999999999999999999999999999999999999", "? hash huge"),
    ]);
}

/// Where the answer stands after `####`, and what is no answer.
#[test]
fn hash_marks() {
    #[rustfmt::skip]
    check(&[
        ("13 + 5 = 18\n#### 18",        "18 hash"),
        ("13 + 5 = 18 #### 18",         "18 hash"),
        ("####18",                      "18 hash"),
        ("####  18",                    "18 hash"),
        ("####\t18",                    "18 hash"),
        ("####: 18",                    "18 hash"),
        ("#### : 18",                   "18 hash"),
        ("##### 18",                    "18 hash"),
        ("####\n18",                    "18 hash"),
        ("####\n\n**18**",              "18 hash"),
        ("#### \\boxed{18}",            "18 hash"),
        ("#### Answer: 18",             "18 hash"),
        ("#### The final answer is 18", "18 hash"),
        ("#### Final answer\n18",       "18 answer"),
        ("#### 18 since 20 - 2 = 18 and 3 + 1 = 4", "18 hash"),
        ("#### Total = 16 + 2 = 18",    "18 hash"),
        ("#### 9 * 2 = 18 eggs",        "18 hash"),
        ("#### 18 = 9 * 2",             "18 hash"),
        ("#### 12 (16 - 4 = 12)",       "12 hash"),
        ("#### 18 #### 18",             "18 hash several"),
        ("#### 18\n#### 18\n#### 18",   "18 hash several"),
        ("#### 5\nQ: next?\n#### 9",    "9 hash several conflict"),
        ("#### 18\nThe answer is 20",   "18 hash"),
        ("\\boxed{20}\n#### 18",        "18 hash"),
        ("#### 18\n\\boxed{20}",        "18 hash"),
        ("#### Step 1: take 5\n#### 18", "18 hash"),
        ("#### Step 2: add\nIt is 18.", "18 guess"),
        ("#### **Step 3**: 5\nThe answer is 18", "18 answer"),
        ("#### none\nThe answer is 18", "18 answer"),
        ("### 18",                      "18 guess"),
        ("# 18",                        "18 guess"),
        ("####",                        "-"),
        ("####\n\n\n",                  "-"),
        ("#### eighteen",               "-"),
    ]);
}

#[test]
fn boxes() {
    #[rustfmt::skip]
    check(&[
        ("\\boxed{18}",                         "18 boxed"),
        ("$\\boxed{18}$",                       "18 boxed"),
        ("\\[ \\boxed{18} \\]",                 "18 boxed"),
        ("\\boxed {18}",                        "18 boxed"),
        ("\\boxed{ 18 }",                       "18 boxed"),
        ("\\boxed{\\$18}",                      "18 boxed"),
        ("\\boxed{$18}",                        "18 boxed"),
        ("\\boxed{\\$1{,}450}",                 "1450 boxed"),
        ("\\boxed{1,450.00}",                   "1450 boxed"),
        ("\\boxed{-7}",                         "-7 boxed"),
        ("\\boxed{-\\$7}",                      "-7 boxed"),
        ("\\boxed{25\\%}",                      "25 boxed"),
        ("\\boxed{\\frac{3}{4}}",               "0.75 boxed"),
        ("\\boxed{\\dfrac{3}{4}}",              "0.75 boxed"),
        ("\\boxed{1\\frac{1}{2}}",              "1.5 boxed"),
        ("\\boxed{x = 18}",                     "18 boxed"),
        ("\\boxed{9 \\times 2 = 18}",           "18 boxed"),
        ("\\boxed{18\\text{ eggs}}",            "18 boxed"),
        ("\\boxed{\\text{18 eggs}}",            "18 boxed"),
        ("\\boxed{\\textbf{18}}",               "18 boxed"),
        ("\\boxed{18 \\, \\text{dollars}}",     "18 boxed"),
        ("\\boxed{\\text{The answer is } 18}",  "18 boxed"),
        ("\\boxed{18^\\circ}",                  "18 boxed"),
        ("so $\\boxed{18}$ of 20 eggs",         "18 boxed"),
        ("The answer is $\\boxed{18}$. 2 left", "18 boxed"),
        ("\\boxed{5} then \\boxed{18}",         "18 boxed several conflict"),
        ("\\boxed{18}, that is \\boxed{18.00}", "18 boxed several"),
        ("\\boxed{\\boxed{18}}",                "18 boxed"),
        ("\\boxed{x} then \\boxed{7}, not 8",   "7 boxed"),
        ("\\boxed{} the answer is 18",          "18 answer"),
        ("\\boxed{18 and 20",                   "20 guess"),
        ("\\boxed{16, 18}",                     "16 boxed numbers"),
        ("\\boxed 18",                          "18 guess"),
    ]);
}

#[test]
fn answer_sentences() {
    #[rustfmt::skip]
    check(&[
        ("The answer is 18",                        "18 answer"),
        ("The answer is 18.",                       "18 answer"),
        ("The answer is: 18",                       "18 answer"),
        ("The answer is $18.00.",                   "18 answer"),
        ("the ANSWER IS 18",                        "18 answer"),
        ("The final answer is 18. 2 are left.",     "18 answer"),
        ("The final answer is $\\$18$.",            "18 answer"),
        ("The final answer is **18**.",             "18 answer"),
        ("**The final answer is 18**",              "18 answer"),
        ("Therefore, the answer is -7 degrees.",    "-7 answer"),
        ("The answer is \u{2212}7",                 "-7 answer"),
        ("The answer is 1,450 dollars.",            "1450 answer"),
        ("The answer is 3.5 hours. Then 4.",        "3.5 answer"),
        ("The answer is x = 18.",                   "18 answer"),
        ("The answer is 16 + 2 = 18.",              "18 answer"),
        ("The answer is 18 = 16 + 2.",              "18 answer"),
        ("Answer: 18",                              "18 answer"),
        ("Answer = 18",                             "18 answer"),
        ("ANSWER: $18",                             "18 answer"),
        ("**Answer:** $1,450",                      "1450 answer"),
        ("**Answer**: 18",                          "18 answer"),
        ("*Final Answer*: 18",                      "18 answer"),
        ("Final Answer:\n\n**18**\n(of 20)",        "18 answer"),
        ("Final Answer: The final answer is 18. I hope it is correct.", "18 answer"),
        ("Final Answer: The final answer is $\\boxed{18}$.", "18 boxed"),
        ("### Final Answer\n18",                    "18 answer"),
        ("**Final Answer**\n\n$18 a day\n\n(of 20)", "18 answer"),
        ("Final answer\n\nnone, but 3 eggs",         "3 answer"),
        ("We get the answer\n5 + 3 = 8, of 9",      "9 guess"),
        ("<answer>18</answer> of 20",               "18 answer"),
        ("<think>5</think>\n<answer>\n18\n</answer>\n20", "18 answer"),
        ("</answer> 20",                            "20 guess"),
        ("The answer is 18, since 20 - 2 = 18 and 3 + 1 = 4.", "18 answer"),
        ("The answer is $18 because 3 + 1 = 4.",    "18 answer"),
        ("The answer is 5 eggs * 3 = 15.",          "15 answer"),
        ("Answer: 16 - 3 = 13 eggs. See 4",         "13 answer"),
        ("Answer: She makes $18 a day of 24 hours", "18 answer numbers"),
        ("The answer is 5. Wait: the answer is 18", "18 answer several conflict"),
        ("The answer is 18. Yes, the answer is 18", "18 answer several"),
        ("The answer is clear. We get 5",           "5 guess"),
        ("The answer is not 5",                     "5 answer"),
        ("Answers: 3 and 4",                        "4 guess"),
        ("Question 3 asks for the answer. 18",      "18 guess"),
        ("The answer, in dollars, is 18",           "18 guess"),
        ("The answer isn't 5 but 18",               "18 guess"),
        ("Answer:",                                 "-"),
        ("The answer is",                           "-"),
    ]);
}

#[test]
fn no_marker() {
    #[rustfmt::skip]
    check(&[
        ("She has 18 eggs",                     "18 guess"),
        ("So she makes 9 * 2 = $18.",           "18 guess"),
        ("x = 18",                              "18 guess"),
        ("18",                                  "18 guess"),
        ("\\frac{3}{4}",                        "0.75 guess"),
        ("it is 18...",                         "18 guess"),
        ("18, so ...",                          "18 guess"),
        ("$118 000",                            "118000 guess"),
        ("118 000",                             "0 guess"),
        ("a loss of -$3",                       "-3 guess"),
        ("a loss of $-3",                       "-3 guess"),
        ("16-3",                                "3 guess"),
        ("16 - 3",                              "3 guess"),
        ("5–10 eggs",                           "10 guess"),
        ("COVID-19",                            "19 guess"),
        ("on 1/2/2024",                         "2024 guess"),
        ("version 3.14.15",                     "15 guess"),
        ("half of 3/4",                         "0.75 guess"),
        ("the 18th day",                        "18 guess"),
        ("twenty",                              "-"),
        ("no number at all",                    "-"),
        ("...",                                 "-"),
        ("$",                                   "-"),
        ("\u{FFFD}",                            "-"),
        (" \n ",                                "-"),
        ("",                                    "-"),
    ]);
}
