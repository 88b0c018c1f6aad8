//! What a question set is known by.

use super::*;
use crate::{
    fake_server::{Act, FakeServer},
    test_support::{context, method, questions},
};

/// The choice of questions is told by their ids, their order and their gold answers: another answer
/// field of the same file is another set, although the file's digest is the same.
#[test]
fn other_gold_answers_are_another_choice() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("q.jsonl");
    let lines = "{\"question\": \"a?\", \"answer\": \"1\", \"other\": 2}\n\
                 {\"question\": \"b?\", \"answer\": \"3\", \"other\": 3}\n";
    std::fs::write(&file, lines).unwrap();
    let stamp = |answer: Option<&str>, limit| {
        let keys = Keys {
            question: None,
            answer: answer.map(str::to_owned),
        };
        Questions::read_keys(&file, &keys, limit).unwrap().stamp()
    };
    let (plain, other) = (stamp(None, None), stamp(Some("other"), None));
    let named = stamp(Some("answer"), None);
    assert_eq!(plain.selection_sha256, named.selection_sha256);
    assert_eq!(plain.sha256, other.sha256);
    assert_ne!(plain.selection_sha256, other.selection_sha256);
    assert_ne!(
        plain.selection_sha256,
        stamp(None, Some(1)).selection_sha256
    );
}

/// Each prompt's answers end where that prompt says, and everywhere else where the settings do.
#[tokio::test]
async fn each_prompt_has_its_own_stops() {
    let server = FakeServer::start(|_, _| Act::Say(String::new())).await;
    let context = context(&server).await;
    let set = questions(1);
    let hint = load_prompt("cot-8shot-hint").unwrap();
    let stops = async |given: &[&str]| {
        let mut method = method(0);
        method.prompt = load_prompt("basic").unwrap();
        method.hint_prompt = Some(hint.clone());
        method.decoding.stop = given.iter().map(ToString::to_string).collect();
        let session = Session::open(&context.server, method, &set, "bootstrap").await;
        let session = session.unwrap();
        [Source::Forward, Source::Hint].map(|source| {
            let item = session.item(&set.list[0], Ask { source, sample: 0 });
            item.unwrap().decoding.stop
        })
    };
    assert_eq!(stops(&[]).await, [Vec::new(), hint.stop().to_vec()]);
    let given = vec!["END".to_owned()];
    assert_eq!(stops(&["END"]).await, [given.clone(), given]);
}
