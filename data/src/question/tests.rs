//! Reading question files.

use super::{QuestionSet, parse_questions, read_questions};
use crate::number::Number;
use std::path::Path;

fn read(text: &str) -> Result<QuestionSet, String> {
    parse_questions(text.as_bytes(), Path::new("set.jsonl")).map_err(|error| error.to_string())
}

const TWO: &str = r#####"{"question": "How many eggs?", "answer": "16 - 3 = <<16-3=13>>13\n#### 13"}
{"question": "How much?", "answer": "#### 1,450"}
"#####;

/// Questions come out in the file's order, with their gold numbers.
#[test]
fn gsm8k_format() {
    let set = read(TWO).unwrap();
    assert_eq!(set.questions.len(), 2);
    assert_eq!(set.questions[0].gold, Number::from(13));
    assert_eq!(set.questions[0].solution(), "16 - 3 = 13");
    assert_eq!(set.questions[1].gold, Number::from(1450));
    assert_eq!(set.questions[1].solution(), "");
}

/// Ids survive reordering: they come from the question's text, not from its place.
#[test]
fn ids_do_not_depend_on_order() {
    let forward = read(TWO).unwrap();
    let reversed: Vec<&str> = TWO.lines().rev().collect();
    let reversed = read(&reversed.join("\n")).unwrap();
    assert_eq!(forward.questions[0].id, reversed.questions[1].id);
    assert_ne!(forward.sha256, reversed.sha256);
}

/// A file's own ids are used; the same text twice still gives two ids.
#[test]
fn own_ids_and_equal_texts() {
    let set = read(
        r#####"{"id": "a", "question": "q", "answer": "#### 1"}
{"id": 7, "question": "q", "answer": "#### 1", "cleaning_status": "consensus"}
{"question": "q", "answer": "#### 1"}
{"question": "q", "answer": "#### 1"}"#####,
    )
    .unwrap();
    let ids: Vec<&str> = set
        .questions
        .iter()
        .map(|question| question.id.as_str())
        .collect();
    assert_eq!(
        ids,
        ["a", "7", "q-8e35c2cd3bf6641b", "q-8e35c2cd3bf6641b-2"]
    );
}

/// U+2028 inside a text does not end a line; CRLF, blank lines and a missing final newline are fine.
#[test]
fn line_ends() {
    let set = read(
        "\u{FEFF}{\"question\": \"a\u{2028}b\", \"answer\": \"#### 1\"}\r\n\r\n\
         {\"question\": \"c\", \"answer\": \"#### 2\"}",
    )
    .unwrap();
    assert_eq!(set.questions.len(), 2);
    assert_eq!(set.questions[0].question, "a\u{2028}b");
}

/// Sets that give only the number are read too.
#[test]
fn bare_answers() {
    let set =
        read("{\"question\": \"a\", \"answer\": 5}\n{\"question\": \"b\", \"answer\": \"-5\"}");
    let golds: Vec<Number> = set.unwrap().questions.iter().map(|q| q.gold).collect();
    assert_eq!(golds, [Number::from(5), Number::from(-5)]);
}

/// Every kind of bad line is named by file, line number and problem.
#[test]
fn bad_lines_are_named() {
    let good = "{\"question\": \"a\", \"answer\": \"#### 1\"}\n";
    for (line, expected) in [
        ("{", "set.jsonl, line 2: expected a JSON object"),
        ("[1]", "set.jsonl, line 2: expected a JSON object"),
        ("{\"question\": \"b\"}", "missing field `answer`"),
        (
            "{\"question\": \" \", \"answer\": \"#### 1\"}",
            "line 2: \"question\" is empty",
        ),
        (
            "{\"question\": \"b\", \"answer\": \"one\"}",
            "line 2: expected \"answer\" to end in \"#### <number>\", found \"one\"",
        ),
        (
            "{\"question\": \"b\", \"answer\": \"#### \"}",
            "#### <number>",
        ),
        (
            "{\"question\": \"b\", \"answer\": \"#### 1 or 2\"}",
            "#### <number>",
        ),
    ] {
        let error = read(&format!("{good}{line}\n")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
        assert!(
            !error.contains("at line 1"),
            "one line number is enough: {error}"
        );
    }
    let twice = "{\"id\": \"x\", \"question\": \"a\", \"answer\": \"#### 1\"}\n".repeat(2);
    let error = read(&twice).unwrap_err();
    assert_eq!(
        error,
        "set.jsonl, line 2: id \"x\" is already used on line 1"
    );

    let error = parse_questions(b"{\"question\": \"\xFF\"}", Path::new("set.jsonl")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "set.jsonl, line 1: not valid UTF-8 at byte 14 of the line"
    );
}

/// An empty file and a missing one are errors that name the file.
#[test]
fn no_questions() {
    assert_eq!(read("\n\n").unwrap_err(), "set.jsonl contains no questions");
    let error = read_questions(Path::new("no/such/file.jsonl"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("no/such/file.jsonl"), "{error}");
}
