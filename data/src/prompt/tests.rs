//! The prompts' exact texts.

use super::{PromptError, PromptTemplate};
use crate::number::Number;

fn prompt(name: &str) -> PromptTemplate {
    PromptTemplate::by_name(name).unwrap()
}

/// Every built-in prompt is the reference report's, to the character.
#[test]
fn built_in_texts() {
    let question = "How many?";
    assert_eq!(
        prompt("basic").render(question).unwrap(),
        "You are a helpful math tutor. Solve the following problem step by step. Show your reasoning \
         and then give the final answer.\n\nQ: How many?\nA:"
    );
    assert_eq!(
        prompt("basic-forward").render(question).unwrap(),
        "You are a helpful math tutor. Solve the following problem step by step.\nShow your reasoning \
         and then give the final answer.\n\nQ: How many?\nA:"
    );
    assert_eq!(
        prompt("marked").render(question).unwrap(),
        "You are an expert math tutor who explains your reasoning clearly and precisely.\nSolve the \
         following problem carefully step by step, showing your full thought process.\nAt the end of \
         your reasoning, write the final numeric answer on a new line in the format: '#### \
         [number]'.\n\nQuestion: How many?\nAnswer:"
    );
    assert_eq!(
        prompt("hint")
            .render_hint(question, Number::from(1450))
            .unwrap(),
        "You are a helpful math tutor. The correct final answer is already known.\nExplain step by \
         step how to arrive at it, showing your reasoning clearly.\nConclude again with the final \
         answer.\n\nQ: How many?\n\nCorrect Answer: 1450\n\nA:"
    );
    assert_eq!(
        prompt("sft").render(question).unwrap(),
        "You are a helpful math tutor. Solve step by step.\n\nQ: How many?\n\nA:"
    );
}

/// A prompt whose text changes is another prompt: its digest is pinned here, so that results made
/// with one text are never compared with another's in silence.
#[test]
fn digests_are_pinned() {
    let digests: Vec<String> = PromptTemplate::names()
        .map(|name| format!("{name} {}", &prompt(name).digest()[..16]))
        .collect();
    expect_test::expect![[r#"
        [
            "basic eab4be48cc2f585d",
            "basic-forward cfd08cfd07441852",
            "marked 8480de4c6be15678",
            "hint 2bb6ac3a24c47639",
            "sft 8aa0184632dcaa2e",
        ]
    "#]]
    .assert_debug_eq(&digests);
}

/// An unknown name is answered with the known ones.
#[test]
fn unknown_name_lists_the_known() {
    let error = PromptTemplate::by_name("basics").unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown prompt \"basics\"; known prompts: basic, basic-forward, marked, hint, sft"
    );
}

/// Placeholders are filled in one pass: a question is never itself a template.
#[test]
fn question_is_not_a_template() {
    let template = PromptTemplate::from_text("t", "{gold}{x}{question}{").unwrap();
    let filled = template
        .render_hint("{gold} {question} {", Number::from(5))
        .unwrap();
    assert_eq!(filled, "5{x}{gold} {question} {{");
}

/// A hint prompt cannot be sent without its answer, nor a forward prompt with one.
#[test]
fn forward_and_hint_are_not_mixed_up() {
    assert!(matches!(
        prompt("hint").render("q"),
        Err(PromptError::NeedsGold { .. })
    ));
    let refused = prompt("basic").render_hint("q", Number::from(1));
    assert!(matches!(refused, Err(PromptError::NoGold { .. })));
}

/// A file is a template under its own name; without `{question}` it is refused.
#[test]
fn template_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("terse.txt");
    std::fs::write(&path, "{question}\n").unwrap();
    let template = PromptTemplate::from_file(&path).unwrap();
    assert_eq!(
        (template.name(), template.render("q").unwrap().as_str()),
        ("terse", "q\n")
    );

    std::fs::write(&path, "no placeholder").unwrap();
    let error = PromptTemplate::from_file(&path).unwrap_err().to_string();
    assert_eq!(error, "prompt \"terse\" has no {question} placeholder");

    let missing = folder.path().join("missing.txt");
    let error = PromptTemplate::from_file(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.txt"), "{error}");
}
