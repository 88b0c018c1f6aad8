use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn read(text: &str) -> Result<ExampleFile, ExampleError> {
    read_examples(file(text).path(), None)
}

/// `role: content` per turn, with a bar between turns.
fn shown(messages: &[Message]) -> String {
    let turn = |message: &Message| format!("{}: {}", message.role.as_str(), message.content);
    messages.iter().map(turn).collect::<Vec<_>>().join(" | ")
}

/// The keys of the first line tell the format; a star line's rationale is what is learned.
#[test]
fn format_is_told_by_the_keys() {
    let star = read("{\"question\":\"q\",\"gold_answer\":\"4\",\"rationale\":\"r\"}\n\n").unwrap();
    assert_eq!(star.format, LineFormat::Star);
    let text = ExampleText::Question {
        question: "q".into(),
        completion: "r".into(),
    };
    assert_eq!(star.lines, [ExampleLine { number: 1, text }]);
    let gsm8k = "\u{FEFF}{\"question\":\"q\",\"answer\":\"a\\u2028b #### 4\"}";
    assert_eq!(read(gsm8k).unwrap().format, LineFormat::Gsm8k);
    let ready = "\n{\"prompt\":\"p\",\"completion\":\"c\"}";
    let ready = read(ready).unwrap();
    assert_eq!(ready.format, LineFormat::PromptCompletion);
    assert_eq!(ready.lines[0].number, 2);
    let chat = "{\"messages\":[{\"role\":\"assistant\",\"content\":\"hi\"}]}";
    assert_eq!(read(chat).unwrap().format, LineFormat::Messages);
}

/// A wrong line is an error that names file, line and what was expected.
#[test]
fn bad_lines_are_named() {
    let turns = |turns: &str| format!("{{\"messages\":[{turns}]}}\n");
    let asked = "{\"role\":\"user\",\"content\":\"q\"}";
    for (text, expected) in [
        (
            "{\"question\":\"q\",\"answer\":\"a\"}\n{\"question\":\"q\"}\n".to_owned(),
            "line 2: key \"answer\" is missing",
        ),
        (
            "{\"question\":\"q\",\"answer\":\" \"}\n".to_owned(),
            "line 1: key \"answer\" is empty",
        ),
        (
            "{\"question\":\"q\",\n".to_owned(),
            "line 1: not the expected JSON object",
        ),
        (
            "{\"a\":1}\n".to_owned(),
            "line 1: its keys are of no known format",
        ),
        ("\n\n".to_owned(), "contains no examples"),
        (
            turns(asked),
            "line 1: messages: expected a turn with role \"assistant\", found none",
        ),
        (
            turns("{\"role\":\"tool\",\"content\":\"4\"}"),
            "messages[0].role: expected system, user or assistant, found \"tool\"",
        ),
        (
            turns(&format!(
                "{asked},{{\"role\":\"assistant\",\"content\":\"\"}}"
            )),
            "key \"messages[1].content\" is empty",
        ),
        (
            turns(&format!(
                "{asked},{{\"role\":\"assistant\",\"content\":null}}"
            )),
            "key \"messages[1].content\" is missing",
        ),
        (
            turns("{\"content\":\"4\"}"),
            "key \"messages[0].role\" is missing",
        ),
    ] {
        let file = file(&text);
        let error = read_examples(file.path(), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}

/// Documents are text, or prompt and completion joined.
#[test]
fn documents_join_prompt_and_completion() {
    let file = file("{\"text\":\"a\"}\n{\"prompt\":\"b\",\"completion\":\" c\"}\n");
    let mut documents = Vec::new();
    for_each_document(file.path(), |text| documents.push(text)).unwrap();
    assert_eq!(documents, ["a", "b c"]);
}

/// A question goes into the template, with one space before what is learned, or none where the
/// learned text begins a turn; a finished prompt is taken as it is.
#[test]
fn prompt_and_completion_are_joined_in_one_way() {
    let template = PromptTemplate::from_text("plain", "Q: {question}\nA:").unwrap();
    let exchange = |text: &str, format| {
        let file = read(text).unwrap();
        let exchanges = file.lines[0].text.exchanges(&template, format).unwrap();
        let [Exchange { asked, completion }] = &exchanges[..] else {
            panic!("{exchanges:?}")
        };
        let asked = match asked {
            Asked::Text(text) => text.clone(),
            Asked::Chat(messages) => shown(messages),
        };
        format!("{asked}[{completion}]")
    };
    let gsm8k = r#"{"question": "q", "answer": " a\n"}"#;
    let ready = r#"{"prompt": "p ", "completion": " c "}"#;
    assert_eq!(exchange(gsm8k, PromptFormat::Plain), "Q: q\nA:[ a]");
    assert_eq!(exchange(gsm8k, PromptFormat::Chat), "user: Q: q\nA:[a]");
    assert_eq!(exchange(ready, PromptFormat::Plain), "p [ c ]");
    assert_eq!(exchange(ready, PromptFormat::Chat), "user: p [ c ]");
}

/// A conversation has an exchange for each turn of the assistant, with all before it as what is
/// asked; the first thing that the user says is what it is about.
#[test]
fn conversations_have_an_exchange_per_turn() {
    let text = r#"{"messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "q"},
        {"role": "assistant", "content": " a "}, {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b"}]}"#;
    let file = read(&text.replace('\n', "")).unwrap();
    let template = PromptTemplate::by_name("basic").unwrap();
    let text = &file.lines[0].text;
    assert_eq!(text.question(), "q");
    let exchanges = text.exchanges(&template, PromptFormat::Chat).unwrap();
    let told: Vec<String> = exchanges
        .iter()
        .map(|exchange| match &exchange.asked {
            Asked::Chat(messages) => format!("{} [{}]", shown(messages), exchange.completion),
            Asked::Text(text) => panic!("{text}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "system: s | user: q [a]",
            "system: s | user: q | assistant:  a  | user: r [b]"
        ]
    );
}

/// A few-shot conversation stands before what is learned of a question, and only that is learned.
#[test]
fn a_question_under_a_conversation_is_one_exchange() {
    let file = read(r#"{"question": "q", "answer": " a\n"}"#).unwrap();
    let template = PromptTemplate::by_name("llama-8shot-multiturn").unwrap();
    let text = &file.lines[0].text;
    let exchanges = text.exchanges(&template, PromptFormat::Chat).unwrap();
    let [Exchange { asked, completion }] = &exchanges[..] else {
        panic!("{exchanges:?}")
    };
    assert_eq!(*asked, template.render("q", PromptFormat::Chat).unwrap());
    assert_eq!(completion, "a");
    assert!(text.exchanges(&template, PromptFormat::Plain).is_err());
}
