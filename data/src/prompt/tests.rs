//! The prompts' exact texts.

use std::path::Path;

use super::{PromptError, PromptFormat, PromptTemplate};
use crate::{
    conversation::{Asked, Role},
    digest::sha256_hex,
    number::Number,
};

fn prompt(name: &str) -> PromptTemplate {
    PromptTemplate::by_name(name).unwrap()
}

/// The forward prompt as plain text.
fn rendered(template: &PromptTemplate, question: &str) -> String {
    text(template.render(question, PromptFormat::Plain))
}

/// The hint prompt as plain text.
fn hinted(template: &PromptTemplate, question: &str, gold: i64) -> String {
    text(template.render_hint(question, Number::from(gold), PromptFormat::Plain))
}

fn text(rendered: Result<Asked, PromptError>) -> String {
    match rendered.unwrap() {
        Asked::Text(text) => text,
        Asked::Chat(messages) => panic!("{messages:?}"),
    }
}

/// Every built-in prompt is the reference report's, to the character.
#[test]
fn built_in_texts() {
    let question = "How many?";
    assert_eq!(
        rendered(&prompt("basic"), question),
        "You are a helpful math tutor. Solve the following problem step by step. Show your reasoning \
         and then give the final answer.\n\nQ: How many?\nA:"
    );
    assert_eq!(
        rendered(&prompt("basic-forward"), question),
        "You are a helpful math tutor. Solve the following problem step by step.\nShow your reasoning \
         and then give the final answer.\n\nQ: How many?\nA:"
    );
    assert_eq!(
        rendered(&prompt("marked"), question),
        "You are an expert math tutor who explains your reasoning clearly and precisely.\nSolve the \
         following problem carefully step by step, showing your full thought process.\nAt the end of \
         your reasoning, write the final numeric answer on a new line in the format: '#### \
         [number]'.\n\nQuestion: How many?\nAnswer:"
    );
    assert_eq!(
        hinted(&prompt("hint"), question, 1450),
        "You are a helpful math tutor. The correct final answer is already known.\nExplain step by \
         step how to arrive at it, showing your reasoning clearly.\nConclude again with the final \
         answer.\n\nQ: How many?\n\nCorrect Answer: 1450\n\nA:"
    );
    assert_eq!(
        rendered(&prompt("sft"), question),
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
            "qa 34c3dc990a5934e0",
            "cot-8shot a4e9d0188344129c",
            "cot-8shot-hint 3274ae5e9a294a74",
            "llama-8shot-multiturn 93f9ae8928ddb431",
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
        "unknown prompt \"basics\"; known prompts: basic, basic-forward, marked, hint, sft, \
         qa, cot-8shot, cot-8shot-hint, llama-8shot-multiturn"
    );
}

/// Placeholders are filled in one pass: a question is never itself a template.
#[test]
fn question_is_not_a_template() {
    let template = PromptTemplate::from_text("t", "{gold}{x}{question}{").unwrap();
    let filled = hinted(&template, "{gold} {question} {", 5);
    assert_eq!(filled, "5{x}{gold} {question} {{");
}

/// A hint prompt cannot be sent without its answer, nor a forward prompt with one.
#[test]
fn forward_and_hint_are_not_mixed_up() {
    assert!(matches!(
        prompt("hint").render("q", PromptFormat::Plain),
        Err(PromptError::NeedsGold { .. })
    ));
    let refused = prompt("basic").render_hint("q", Number::from(1), PromptFormat::Plain);
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
        (template.name(), rendered(&template, "q").as_str()),
        ("terse", "q\n")
    );

    std::fs::write(&path, "no placeholder").unwrap();
    let error = PromptTemplate::from_file(&path).unwrap_err().to_string();
    assert_eq!(error, "prompt \"terse\" has no {question} placeholder");

    let missing = folder.path().join("missing.txt");
    let error = PromptTemplate::from_file(&missing).unwrap_err().to_string();
    assert!(error.contains("missing.txt"), "{error}");
}

/// What lm-evaluation-harness 0.4.13 sends for gsm8k_cot with its eight examples, and where it
/// stops. The digest is of its own rendering of this question.
#[test]
fn cot_8shot_is_the_harness_prompt() {
    let template = prompt("cot-8shot");
    let rendered = rendered(&template, "How many?");
    assert!(rendered.starts_with("Q: There are 15 trees in the grove."));
    assert!(rendered.ends_with("The answer is 8.\n\nQ: How many?\nA:"));
    assert_eq!(template.stop(), ["Q:", "</s>", "<|im_end|>"]);
    assert_eq!(
        sha256_hex(rendered.as_bytes()),
        "6b14c4d235e15899ca784c8336c2a28e008b360e4b21d34391bc0dd1c2da78a2"
    );
}

/// What lm-evaluation-harness 0.4.13 sends for gsm8k_cot_llama with its examples as turns. The
/// digest is of the roles and contents of its own rendering, each followed by a line break.
#[test]
fn llama_8shot_is_the_harness_conversation() {
    let template = prompt("llama-8shot-multiturn");
    let Asked::Chat(messages) = template.render("How many?", PromptFormat::Chat).unwrap() else {
        panic!("a conversation");
    };
    assert_eq!(messages.len(), 17);
    let roles = messages.iter().map(|message| message.role);
    let in_turn = [Role::User, Role::Assistant].into_iter().cycle().take(17);
    assert!(roles.eq(in_turn));
    assert_eq!(
        messages[16].content,
        "Given the following problem, reason and give a final answer to the problem.\nProblem: How \
         many?\nYour response should end with \"The final answer is [answer]\" where [answer] is the \
         response to the problem.\n"
    );
    let turns: String = messages
        .iter()
        .map(|message| format!("{}\n{}\n", message.role.as_str(), message.content))
        .collect();
    assert_eq!(
        sha256_hex(turns.as_bytes()),
        "bf48bd2f546f81bac83811200748ecca3790670322b15b54f5e18a4c8a70b401"
    );
}

/// A conversation is never flattened into a text: the error names the prompt and the flag.
#[test]
fn conversations_need_a_chat_template() {
    let refused = prompt("llama-8shot-multiturn").render("q", PromptFormat::Plain);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("\"llama-8shot-multiturn\" is a conversation"));
    assert!(error.contains("--prompt-format chat"), "{error}");
}

/// A JSON template has a text or turns, and stop strings that make it another prompt; a text alone
/// is the prompt that the text file would be.
#[test]
fn json_template_files() {
    let template = |json: &str| PromptTemplate::from_json("own", json, Path::new("own.json"));
    let digest = |json: &str| template(json).unwrap().digest().to_owned();
    let bare = digest(r#"{"text": "{question}"}"#);
    assert_eq!(bare, sha256_hex(b"{question}"));
    let stopped = template(r#"{"text": "{question}", "stop": ["Q:"]}"#).unwrap();
    assert_eq!(stopped.stop(), ["Q:"]);
    assert_ne!(stopped.digest(), bare);
    let turns = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "{question}"}]}"#;
    let other_role = turns.replace("system", "assistant");
    assert_ne!(digest(turns), digest(&other_role));

    for (json, expected) in [
        ("{}", "own.json: expected one of the keys text and messages"),
        (
            r#"{"text": "{question}", "stops": []}"#,
            "unknown field `stops`",
        ),
        (
            r#"{"text": "{question}", "stop": [""]}"#,
            "stop string is empty",
        ),
        (r#"{"text": "no"}"#, "has no {question} placeholder"),
        (
            r#"{"messages": [{"role": "tool", "content": "{question}"}]}"#,
            "messages[0].role: expected system, user or assistant, found \"tool\"",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "{question}"}]}"#,
            "its last turn must be the user's, with {question} in it",
        ),
    ] {
        let error = template(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
