use std::io::Write;

use super::*;
use crate::{
    fake_server::{Act, FakeServer},
    request::Prompt,
    test_support,
};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn method(max_length: Option<u32>) -> LossMethod {
    LossMethod {
        prompt: PromptTemplate::from_text("plain", "Q: {question}\nA:").unwrap(),
        format: FormatChoice::Auto,
        max_length,
    }
}

/// The fake server gives the n-th token the log probability -n, and takes no solution that is named
/// "long".
async fn measured(text: &str, max_length: Option<u32>) -> Result<LossSummary, ClientError> {
    let server = FakeServer::start(|text, _| match text.trim() {
        "long" => Act::TooLong,
        "wrong" => Act::Refuse(tonic::Code::InvalidArgument),
        _ => Act::Say(String::new()),
    })
    .await;
    let context = test_support::context(&server).await;
    let file = file(text);
    let examples = Examples::read(file.path(), None, Annotations::Stripped)?;
    measure(&context, &method(max_length), &examples).await
}

/// The mean is over tokens, not over examples; what is too long is counted and listed.
#[tokio::test]
async fn the_mean_is_over_tokens() {
    let text = r#"{"question": "1", "answer": "one two"}

{"question": "2", "answer": "long"}
{"question": "3", "answer": "one two three four five six seven"}
"#;
    let summary = measured(text, None).await.unwrap();
    assert_eq!((summary.num_tokens, summary.num_scored), (3 + 8, 2));
    assert!(
        (summary.loss - 42.0 / 11.0).abs() < 1e-12,
        "{}",
        summary.loss
    );
    assert!((summary.perplexity - summary.loss.exp()).abs() < 1e-12);
    let left_out = |line, num_tokens| TooLong { line, num_tokens };
    assert_eq!(summary.too_long, [left_out(3, 900)]);
    assert_eq!((summary.weights.version, summary.num_examples), (1, 3));
    // With seven tokens of context the longer one has fifteen.
    let shorter = measured(text, Some(14)).await.unwrap();
    assert_eq!(shorter.too_long, [left_out(3, 900), left_out(4, 15)]);
    assert_eq!(shorter.num_tokens, 3);
    assert!((shorter.loss - 2.0).abs() < 1e-12);
    assert!(
        shorter
            .text()
            .contains("3 examples = 1 scored + 2 too long")
    );
}

/// Any other refusal ends the measurement, and so does a file with nothing to score.
#[tokio::test]
async fn refusals_end_it() {
    let error = measured(r#"{"question": "1", "answer": "wrong"}"#, None).await;
    assert!(error.unwrap_err().to_string().contains("INVALID_ARGUMENT"));
    let error = measured(r#"{"question": "1", "answer": "long"}"#, None).await;
    assert!(error.unwrap_err().to_string().contains("too long"));
}

/// Every turn of the assistant in a conversation is scored, after all that stands before it.
#[tokio::test]
async fn every_turn_is_scored() {
    let text = r#"{"messages": [{"role": "user", "content": "q"},
        {"role": "assistant", "content": "one two"}, {"role": "user", "content": "r"},
        {"role": "assistant", "content": "one two three"}]}"#;
    let text = text.replace('\n', "");
    let summary = measured(&text, None).await.unwrap();
    // Each turn and its end; the fake server begins to count anew with each score.
    assert_eq!((summary.num_tokens, summary.num_scored), (3 + 4, 1));
    assert!((summary.loss - (6.0 + 10.0) / 7.0).abs() < 1e-12);
    let file = file(&text);
    let line = &Examples::read(file.path(), None, Annotations::Stripped)
        .unwrap()
        .list[0];
    let items = examples::items(line, "n", &method(None).prompt, PromptFormat::Chat).unwrap();
    let num_messages = |item: &ScoreItem| match &item.prompt {
        Prompt::Chat(messages) => messages.len(),
        Prompt::Text(text) => panic!("{text}"),
    };
    assert_eq!(items.iter().map(num_messages).collect::<Vec<_>>(), [1, 3]);
}

/// Annotations are left out of gold solutions unless they are asked for; the result says which.
#[tokio::test]
async fn annotations_are_stripped_or_kept() {
    let server = FakeServer::start(|_, _| Act::Say(String::new())).await;
    let context = test_support::context(&server).await;
    let file = file(r#"{"question": "q", "answer": "so <<3 * 4 = 12>>12\n#### 12"}"#);
    for (annotations, num_words) in [(Annotations::Stripped, 4), (Annotations::Kept, 8)] {
        let examples = Examples::read(file.path(), None, annotations).unwrap();
        let summary = measure(&context, &method(None), &examples).await.unwrap();
        assert_eq!(summary.num_tokens, num_words + 1);
        assert!(summary.text().contains(annotations.as_str()));
    }
}

/// A question file of whatever layout gives the examples that its lines give; an answer that is only a
/// number is no solution.
#[test]
fn questions_are_examples() {
    use crate::session::Questions;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let line = r#"{"question": "What?", "answer": "One <<1+0=1>>1.\n#### 1"}"#;
    let lines = file("q.jsonl", &format!("{line}\n"));
    let array = file("q.json", &format!("[{line}]"));
    for annotations in [Annotations::Stripped, Annotations::Kept] {
        let read = Examples::read(&lines, None, annotations).unwrap();
        let of = |path: &std::path::Path| {
            Examples::of_questions(&Questions::read(path, None).unwrap(), annotations).unwrap()
        };
        assert_eq!(of(&lines), read);
        assert_eq!(of(&array).list, read.list);
    }
    let numbers = file("n.json", r#"[{"question": "What?", "answer": 1}]"#);
    let questions = Questions::read(&numbers, None).unwrap();
    let error = Examples::of_questions(&questions, Annotations::Kept).unwrap_err();
    assert!(
        error.to_string().contains("a loss needs solutions"),
        "{error}"
    );
}
