use std::{fs, path::PathBuf};

use data::record::{AcceptedRecord, Verdict};

use super::*;
use crate::{
    collect::ATTEMPTS_FILE,
    fake_server::{Act, FakeServer},
    test_support::{context, method, questions},
};

/// Forward: right for every third question. Hint: right, but for every fifth it leans on the hint.
fn script(text: &str) -> Act {
    if let Some((question, gold)) = text.split_once(" hint ") {
        let index: u64 = question.rsplit(' ').next().unwrap().parse().unwrap();
        return match index % 5 {
            0 => Act::Say(format!("Since the answer is {gold}, it is.\n#### {gold}")),
            1 => Act::Cut(format!("It is 1 + {gold}")),
            _ => Act::Say(format!(
                "We add 0 + {gold} = {gold}.\nThat is all.\n#### {gold}"
            )),
        };
    }
    let index: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
    match index % 3 {
        0 => Act::Say(format!("0 + {index} = {index}.\n#### {index}")),
        1 => Act::Say("#### -1".to_owned()),
        _ => Act::Say("No idea.".to_owned()),
    }
}

async fn run(server: &FakeServer, dir: &Path, count: u32) -> BootstrapSummary {
    let context = context(server).await;
    bootstrap(&context, method(0), Policy::sound(), &questions(count), dir)
        .await
        .unwrap()
}

fn accepted(dir: &Path) -> Vec<AcceptedRecord> {
    let text = fs::read_to_string(dir.join(ACCEPTED_FILE)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn attempts(dir: &Path) -> Vec<Attempt> {
    data::append_log::read_log(&dir.join(ATTEMPTS_FILE))
        .unwrap()
        .records
}

/// Every question has one outcome, every accepted rationale is verified, and the hint is asked only
/// where the forward answer was not right.
#[tokio::test]
async fn counts_close_and_rationales_are_verified() {
    let server = FakeServer::start(|text, _| script(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let summary = run(&server, dir.path(), 60).await;
    let total: u64 = summary.outcomes.iter().map(|count| count.questions).sum();
    assert_eq!(total, 60);
    assert_eq!((summary.forward.attempts, summary.forward.right), (60, 20));
    assert_eq!(summary.hint.attempts, 40);
    let records = accepted(dir.path());
    assert_eq!(records.len() as u64, summary.num_accepted);
    for record in &records {
        assert!(
            record
                .rationale
                .ends_with(&format!("#### {}", record.gold_answer))
        );
        assert!(!record.rationale.contains("Since the answer"));
    }
    // 40 hints: indices not divisible by 3; of each 5 in a row one leaks and one is cut.
    assert_eq!(summary.num_accepted, 20 + 24);
    let equation = summary.equation();
    assert!(equation.starts_with("60 questions = 20 accepted (forward) + 24 accepted (hint) + 8"));
    for attempt in attempts(dir.path()) {
        let forward_right = attempt.question_id[1..].parse::<u64>().unwrap() % 3 == 0;
        assert!(attempt.source == Source::Forward || !forward_right);
    }
}

/// A log cut at any byte (kill -9) is continued: no question lost, none doubled, the same set.
#[tokio::test]
async fn a_cut_log_is_continued() {
    let server = FakeServer::start(|text, _| script(text)).await;
    let whole_dir = tempfile::tempdir().unwrap();
    run(&server, whole_dir.path(), 12).await;
    let whole = fs::read(whole_dir.path().join(ATTEMPTS_FILE)).unwrap();
    let set = fs::read(whole_dir.path().join(ACCEPTED_FILE)).unwrap();
    let manifest = fs::read(whole_dir.path().join(crate::collect::MANIFEST_FILE)).unwrap();
    for cut in [
        0,
        1,
        whole.len() / 3,
        whole.len() / 2,
        whole.len() - 1,
        whole.len(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { dir.path().join(name) };
        fs::write(at(ATTEMPTS_FILE), &whole[..cut]).unwrap();
        fs::write(at(crate::collect::MANIFEST_FILE), &manifest).unwrap();
        let summary = run(&server, dir.path(), 12).await;
        assert_eq!(fs::read(at(ACCEPTED_FILE)).unwrap(), set, "cut at {cut}");
        let mut keys: Vec<_> = attempts(dir.path()).iter().map(Attempt::key).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "a doubled attempt after a cut at {cut}");
        assert_eq!(summary.forward.attempts, 12);
        assert_eq!(
            summary.work.num_made + summary.work.num_resumed,
            count as u64
        );
    }
}

/// Broken streams and refusals on the way change nothing in the set, and no question is asked twice
/// once it was answered.
#[tokio::test]
async fn trouble_does_not_change_the_set() {
    let calm = FakeServer::start(|text, _| script(text)).await;
    let rough = FakeServer::start(|text, times| match (text.len() * 7 + times as usize) % 11 {
        0 if times < 3 => Act::BreakStream,
        1 if times < 3 => Act::Refuse(tonic::Code::ResourceExhausted),
        _ => script(text),
    })
    .await;
    let (calm_dir, rough_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&calm, calm_dir.path(), 60).await;
    run(&rough, rough_dir.path(), 60).await;
    assert_eq!(accepted(calm_dir.path()), accepted(rough_dir.path()));
    let count = attempts(calm_dir.path()).len();
    assert_eq!(attempts(rough_dir.path()).len(), count);
}

/// With more samples allowed, sampling stops at the first that will do, and hints come last.
#[tokio::test]
async fn further_samples_come_before_hints() {
    let server = FakeServer::start(|text, _| script(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let mut method = method(0);
    method.sampling.max_forward = 3;
    method.sampling.max_hints = 2;
    bootstrap(&context, method, Policy::sound(), &questions(6), dir.path())
        .await
        .unwrap();
    let made = attempts(dir.path());
    let of = |id: &str| -> Vec<(Source, u32, Verdict)> {
        let mine = made.iter().filter(|attempt| attempt.question_id == id);
        mine.map(|attempt| (attempt.source, attempt.sample, attempt.verdict))
            .collect()
    };
    assert_eq!(of("q0"), [(Source::Forward, 0, Verdict::Right)]);
    let wrong = |sample| (Source::Forward, sample, Verdict::Wrong);
    assert_eq!(
        of("q4"),
        [
            wrong(0),
            wrong(1),
            wrong(2),
            (Source::Hint, 0, Verdict::Right)
        ]
    );
    // q5 leaks on every hint: both are tried.
    assert_eq!(of("q5").len(), 5);
    let seeds: std::collections::BTreeSet<u64> = made.iter().map(|attempt| attempt.seed).collect();
    assert_eq!(seeds.len(), made.len(), "two samples share a seed");
}

/// Question 0 is always right, question 1 at every other ask, the rest never; every answer has
/// equations of its own.
fn sampled() -> impl Fn(&str, u32) -> Act + Send + Sync {
    let asked = std::sync::Mutex::new(std::collections::HashMap::<String, u64>::new());
    move |text, _| {
        let mut asked = asked.lock().unwrap();
        let nth = asked.entry(text.to_owned()).or_default();
        *nth += 1;
        let index: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
        let is_right = index == 0 || (index == 1 && nth.is_multiple_of(2));
        let answer = if is_right { index } else { 99 };
        Act::Say(format!("{nth} + 1 = {}.\n#### {answer}", *nth + 1))
    }
}

/// All samples of a question are made whatever comes of them; one that was right sometimes gets the
/// extra ones; and different right ones are all kept, up to the cap.
#[tokio::test]
async fn samples_are_made_and_kept() {
    let server = FakeServer::start(sampled()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut method = method(0);
    method.sampling = Sampling {
        extra_samples: 6,
        ..Sampling::only(4)
    };
    let policy = Policy {
        max_per_question: 3,
        ..Policy::sound()
    };
    let context = context(&server).await;
    let set = questions(3);
    let summary = bootstrap(&context, method.clone(), policy.clone(), &set, dir.path())
        .await
        .unwrap();
    let made = attempts(dir.path());
    let count = |id: &str| made.iter().filter(|it| it.question_id == id).count();
    assert_eq!((count("q0"), count("q1"), count("q2")), (4, 10, 4));
    // Of question 1, two of the first four and three of the six extra ones are right.
    assert_eq!(summary.forward.right, 4 + 5);
    assert_eq!(summary.num_accepted, 3 + 3);
    let equation = "18 attempts = 6 kept + 3 over the cap + 9 wrong";
    assert!(summary.text().contains(equation), "{}", summary.text());

    // Samples that a killed run had not finished are made, and only those.
    let log = fs::read_to_string(dir.path().join(ATTEMPTS_FILE)).unwrap();
    let is_lost = |line: &&str| line.contains("\"q1\"") && line.contains("\"sample\":2,");
    let rest: Vec<&str> = log.lines().filter(|line| !is_lost(line)).collect();
    assert_eq!(rest.len(), 17);
    fs::write(dir.path().join(ATTEMPTS_FILE), rest.join("\n") + "\n").unwrap();
    let resumed = bootstrap(&context, method, policy, &set, dir.path()).await;
    let work = resumed.unwrap().work;
    assert_eq!((work.num_made, work.num_resumed), (1, 17));
}

/// Nothing accepted is said aloud.
#[tokio::test]
async fn an_empty_set_warns() {
    let server = FakeServer::start(|_, _| Act::Say("no idea".to_owned())).await;
    let dir = tempfile::tempdir().unwrap();
    let summary = run(&server, dir.path(), 5).await;
    assert_eq!(summary.num_accepted, 0);
    assert!(summary.text().contains("nothing was accepted"));
    assert_eq!(accepted(dir.path()), []);
}
