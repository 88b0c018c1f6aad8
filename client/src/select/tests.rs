use std::fs;

use data::{
    prompt::{PromptFormat, PromptTemplate},
    pseudo_label::VotePolicy,
    record::AcceptedRecord,
    select::{Duplicates, Policy},
};

use super::*;
use crate::{
    bootstrap::{ACCEPTED_FILE, bootstrap},
    collect::ATTEMPTS_FILE,
    fake_server::{Act, FakeServer},
    sampling::Sampling,
    test_support::{context, method, questions},
};

/// A finished run of four samples for each of three questions: 0 is always right, in the same words
/// each time; 1 half of the time; 2 never, but most of its samples agree.
async fn run(folder: &std::path::Path) {
    let asked = std::sync::Mutex::new(std::collections::HashMap::<String, u64>::new());
    let server = FakeServer::start(move |text, _| {
        let mut asked = asked.lock().unwrap();
        let nth = asked.entry(text.to_owned()).or_default();
        *nth += 1;
        Act::Say(match (text, *nth) {
            ("What is 0", _) => "0 + 0 = 0.\n#### 0".to_owned(),
            ("What is 1", nth) => format!("So {nth}.\n#### {}", nth % 2),
            (_, 1) => "#### 5".to_owned(),
            (_, nth) => format!("{nth} - {nth} + 7 = 7.\n#### 7"),
        })
    })
    .await;
    let mut method = method(0);
    method.sampling = Sampling::only(4);
    let context = context(&server).await;
    bootstrap(&context, method, Policy::sound(), &questions(3), folder)
        .await
        .unwrap();
}

fn only_counts(policy: Policy) -> Outputs {
    Outputs {
        policy,
        accepted: None,
        pairs: None,
        labels: None,
    }
}

/// The same attempts under the same policy are the same file; another policy is another set, and its
/// counts close.
#[tokio::test]
async fn the_set_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path()).await;
    let logs = [dir.path().to_owned()];
    let again = dir.path().join("again.jsonl");
    let outputs = Outputs {
        accepted: Some(again.clone()),
        ..only_counts(Policy::sound())
    };
    make(&logs, &questions(3).list, &outputs).unwrap();
    let first = fs::read(dir.path().join(ACCEPTED_FILE)).unwrap();
    assert_eq!(fs::read(&again).unwrap(), first);

    let more = Policy {
        max_per_question: 4,
        duplicates: Duplicates::Equations,
        ..Policy::sound()
    };
    let outputs = Outputs {
        policy: more,
        ..outputs
    };
    // The same log twice, once by its folder, is one log.
    let logs = [dir.path().to_owned(), dir.path().join(ATTEMPTS_FILE)];
    let made = make(&logs, &questions(3).list, &outputs).unwrap();
    assert_eq!(made.num_accepted, 1 + 2);
    let text = made.text();
    assert!(
        text.contains("3 questions = 2 accepted (forward) + 1 wrong"),
        "{text}"
    );
    assert!(
        text.contains("12 attempts = 3 kept + 3 duplicate + 6 wrong"),
        "{text}"
    );
    let records = fs::read_to_string(&again).unwrap();
    let records = records.lines().map(serde_json::from_str::<AcceptedRecord>);
    let records: Result<Vec<_>, _> = records.collect();
    assert_eq!(records.unwrap().len(), 3);
}

/// Pairs of right and wrong answers behind a prompt, and what most samples say, each with counts
/// that close.
#[tokio::test]
async fn pairs_and_labels_are_views() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path()).await;
    let (pairs, labels) = (
        dir.path().join("pairs.jsonl"),
        dir.path().join("labels.jsonl"),
    );
    let outputs = Outputs {
        pairs: Some(PairsWanted {
            path: pairs.clone(),
            policy: data::preference::PairPolicy {
                max_per_question: 2,
                ..data::preference::PairPolicy::default()
            },
            prompt: PromptTemplate::by_name("qa").unwrap(),
            format: PromptFormat::Plain,
        }),
        labels: Some((
            labels.clone(),
            VotePolicy {
                min_votes: 2,
                min_share: 0.6,
            },
        )),
        ..only_counts(Policy::sound())
    };
    let made = make(&[dir.path().to_owned()], &questions(3).list, &outputs).unwrap();
    let text = made.text();
    let paired = "3 questions = 1 paired + 1 never wrong + 1 never right";
    assert!(text.contains(paired), "{text}");
    let written: Vec<serde_json::Value> = fs::read_to_string(pairs)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(written.len(), 2);
    assert_eq!(written[0]["prompt"], "Q: What is 1\nA:");
    assert!(written[0]["chosen"].as_str().unwrap().ends_with("#### 1"));
    assert!(written[0]["rejected"].as_str().unwrap().ends_with("#### 0"));
    // 0 by all, 7 by three of four (which is wrong), and a tie.
    assert!(
        text.contains("3 questions = 2 labelled + 1 tied") && text.contains("1 of them"),
        "{text}"
    );
    let labelled = data::question::read_questions(&labels).unwrap().questions;
    let golds: Vec<String> = labelled.iter().map(|it| it.gold.to_string()).collect();
    assert_eq!(golds, ["0", "7"]);
}

/// A question file that knows none of the attempts is the wrong one.
#[tokio::test]
async fn the_wrong_question_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path()).await;
    let mut other = questions(1).list;
    other[0].id = "elsewhere".to_owned();
    let outputs = only_counts(Policy::sound());
    let error = make(&[dir.path().to_owned()], &other, &outputs).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("none of the 12 attempts"), "{text}");
    let missing = make(&[dir.path().join("absent.jsonl")], &other, &outputs);
    assert!(missing.unwrap_err().to_string().contains("absent.jsonl"));
}

/// What is read is never written over, whatever its name there; nor are two outputs one file.
#[tokio::test]
async fn inputs_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path()).await;
    let logs = [dir.path().to_owned()];
    let questions = dir.path().join("questions.jsonl");
    fs::write(&questions, "").unwrap();
    let to = |path: &str| Outputs {
        accepted: Some(dir.path().join(path)),
        ..only_counts(Policy::sound())
    };
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    let detour = format!("../{name}/{ATTEMPTS_FILE}");
    for path in [ATTEMPTS_FILE, &detour, "questions.jsonl"] {
        let error = refuse_overwriting(&logs, &questions, &to(path)).unwrap_err();
        assert!(error.to_string().contains("overwritten"), "{path}: {error}");
    }
    refuse_overwriting(&logs, &questions, &to(ACCEPTED_FILE)).unwrap();
    let votes = VotePolicy {
        min_votes: 2,
        min_share: 0.5,
    };
    let twice = Outputs {
        labels: Some((dir.path().join("new.jsonl"), votes)),
        ..to("new.jsonl")
    };
    assert!(refuse_overwriting(&logs, &questions, &twice).is_err());
}
