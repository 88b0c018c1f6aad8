use std::path::PathBuf;

use data::record::FinishReason;

use super::*;
use crate::test_support::attempt;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn numeric(summary: &ScoreSummary) -> RuleCounts {
    let numeric = |counts: &&RuleCounts| counts.rule == Rule::Numeric;
    *summary.rules.iter().find(numeric).unwrap()
}

fn error(path: &Path, keys: &OutputKeys) -> String {
    score_file(path, keys, None).unwrap_err().to_string()
}

/// A text without a marker is right by its last number only, and that is counted as a fallback; the
/// rule that was asked for comes first. Right, wrong and missing sum to all.
#[test]
fn rules_differ_on_the_same_text() {
    let folder = Folder::new();
    let lines = [
        r#"{"text": "so 18.", "gold": 18}"#,
        r#"{"text": "so 5 + 13 = 18\n#### 18", "gold": "reasoning\n#### 18"}"#,
        r#"{"text": "I do not know", "gold": "18"}"#,
        r#"{"text": "\n#### 3\nno:\n#### 4", "gold": "18"}"#,
    ];
    let path = folder.file("outputs.jsonl", &lines.join("\n"));
    let summary = score_file(&path, &OutputKeys::default(), Some(Rule::OpenAi)).unwrap();
    assert_eq!(summary.rules[0].rule, Rule::OpenAi);
    assert_eq!(summary.rules.len(), Rule::ALL.len());
    let openai = summary.rules[0];
    assert_eq!((openai.right, openai.wrong, openai.missing), (1, 1, 2));
    let numeric = numeric(&summary);
    assert_eq!((numeric.right, numeric.wrong, numeric.missing), (2, 1, 1));
    assert_eq!((numeric.fallback, numeric.conflicting), (1, 1));
    assert_eq!(summary.num_cut, None);
    assert!(summary.text().contains("2/4 50.00 %"), "{}", summary.text());
}

/// Attempts of this program need no key; what was cut is never right.
#[test]
fn attempts_are_known_by_themselves() {
    let folder = Folder::new();
    let cut = data::record::Attempt {
        finish_reason: FinishReason::Length,
        ..attempt("#### 7", 7)
    };
    let of = |id: &str, attempt: &data::record::Attempt| data::record::Attempt {
        question_id: id.to_owned(),
        ..attempt.clone()
    };
    let attempts = [
        attempt("#### 7", 7),
        of("q1", &attempt("#### 8", 7)),
        of("q2", &cut),
        // Logged twice, it is one attempt.
        attempt("#### 7", 7),
    ];
    let line = |attempt| serde_json::to_string(attempt).unwrap() + "\n";
    let lines: String = attempts.iter().map(line).collect();
    let path = folder.file("attempts.jsonl", &lines);
    let summary = score_file(&path, &OutputKeys::default(), None).unwrap();
    let numeric = numeric(&summary);
    assert_eq!((summary.num_outputs, summary.num_cut), (3, Some(1)));
    assert_eq!((numeric.right, numeric.wrong, numeric.missing), (1, 1, 0));
}

/// A sample file of lm-evaluation-harness: lists and nested keys, gold in the document, in a field,
/// or looked up by question, id or place.
#[test]
fn files_of_other_programs_are_read() {
    let folder = Folder::new();
    let samples = folder.file(
        "samples_gsm8k_cot.jsonl",
        "{\"doc_id\": 1, \"doc\": {\"question\": \"two?\", \"answer\": \"#### 2\"}, \"target\": \"2\", \
         \"resps\": [[\"The answer is 2.\"]], \"finish\": \"stop\", \"a.b\": \"q2\"}\n\
         {\"doc_id\": 0, \"doc\": {\"question\": \"one?\", \"answer\": \"#### 1\"}, \"target\": \"1\", \
         \"resps\": [[\"The answer is 1.\"]], \"finish\": \"length\", \"a.b\": \"q1\"}\n",
    );
    let test = folder.file(
        "test.jsonl",
        "{\"id\": \"q1\", \"question\": \"one?\", \"answer\": \"#### 1\"}\n\
         {\"id\": \"q2\", \"question\": \"two?\", \"answer\": \"#### 2\"}\n",
    );
    let key = |key: &str| GoldSource::Key(key.to_owned());
    let questions =
        |look_up: Result<LookUp, ClientError>| GoldSource::Questions(Box::new(look_up.unwrap()));
    for gold in [
        key("doc.answer"),
        key("target"),
        questions(LookUp::by_question(&test, "doc.question".into())),
        questions(LookUp::by_id(&test, "a.b".into())),
        questions(LookUp::by_index(&test, "doc_id".into())),
    ] {
        let mut keys = OutputKeys {
            text: Some("resps.0.0".to_owned()),
            gold,
            ..OutputKeys::default()
        };
        let summary = score_file(&samples, &keys, None).unwrap();
        assert_eq!(numeric(&summary).right, 2, "{keys:?}");
        keys.finish = Some("finish".to_owned());
        let summary = score_file(&samples, &keys, None).unwrap();
        assert_eq!((numeric(&summary).right, summary.num_cut), (1, Some(1)));
    }
}

/// A wrong key is told with its line and with what the line has instead.
#[test]
fn wrong_keys_are_named() {
    let folder = Folder::new();
    let line = r#"{"text": "it is 1", "gold": 1, "doc": {"q": "x"}, "resps": [["t"]]}"#;
    let path = folder.file("outputs.jsonl", &format!("\n{line}\n"));
    let text = |key: &str| OutputKeys {
        text: Some(key.to_owned()),
        ..OutputKeys::default()
    };
    for (key, expected) in [
        (
            "output",
            "line 2: there is no key \"output\": the line has the keys doc, gold, resps, text",
        ),
        (
            "doc.question",
            "there is no key \"doc.question\": \"doc\" has the keys q",
        ),
        ("resps.0.1", "\"resps.0\" is a list of 1 values"),
        ("text.0", "\"text\" has no keys"),
        ("doc", "key \"doc\" is not a text"),
    ] {
        let error = error(&path, &text(key));
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("outputs.jsonl"), "{error}");
    }
    let gold = OutputKeys {
        gold: GoldSource::Key("doc.q".to_owned()),
        ..OutputKeys::default()
    };
    let error_of_gold = error(&path, &gold);
    assert!(
        error_of_gold.contains("holds no gold number"),
        "{error_of_gold}"
    );
    let questions = folder.file(
        "t.jsonl",
        "{\"question\": \"one?\", \"answer\": \"#### 1\"}\n",
    );
    let look_up = LookUp::by_question(&questions, "doc.q".to_owned()).unwrap();
    let unknown = OutputKeys {
        gold: GoldSource::Questions(Box::new(look_up)),
        ..OutputKeys::default()
    };
    let error_of_question = error(&path, &unknown);
    assert!(
        error_of_question.contains("line 2: --dataset has no question with the text \"x\""),
        "{error_of_question}"
    );
    let torn = folder.file("torn.jsonl", "{\"text\"");
    assert!(error(&torn, &OutputKeys::default()).contains("line 1: "));
    let empty = folder.file("empty.jsonl", "\n");
    assert!(error(&empty, &OutputKeys::default()).contains("no output"));
}

/// Several attempts at one question are not independent: the interval is clustered, and said to be.
#[test]
fn samples_of_a_question_are_clustered() {
    let folder = Folder::new();
    let line = |index: u32| {
        let question = index % 4;
        let text = if question < 2 { "#### 7" } else { "#### 8" };
        let one = data::record::Attempt {
            question_id: format!("q{question}"),
            sample: index / 4,
            ..attempt(text, 7)
        };
        serde_json::to_string(&one).unwrap() + "\n"
    };
    let attempts: Vec<String> = (0..8).map(line).collect();
    let path = folder.file("attempts.jsonl", &attempts.concat());
    let summary = score_file(&path, &OutputKeys::default(), None).unwrap();
    assert_eq!((summary.num_outputs, summary.num_questions), (8, Some(4)));
    // Shares 1, 1, 0, 0: variance of the mean (4 / 4 / 3) / 4 = 1/12.
    let half = 1.959_964 * (1.0_f64 / 12.0).sqrt();
    let interval = numeric(&summary).interval;
    assert!(
        (interval.low - (0.5 - half).max(0.0)).abs() < 1e-6,
        "{interval:?}"
    );
    let text = summary.text();
    assert!(text.contains("8 outputs to 4 questions"), "{text}");
    assert!(text.contains("95 % clustered"), "{text}");
}

/// lm-evaluation-harness writes an output once for each of its filters; counted twice, the interval
/// would be too narrow. One filter has to be chosen.
#[test]
fn filters_do_not_double_the_outputs() {
    let folder = Folder::new();
    let line = |filter: &str, text: &str| {
        format!(
            "{{\"text\": \"{text}\", \"gold\": 7, \"filter\": \"{filter}\", \"filtered_resps\": []}}\n"
        )
    };
    let lines = ["strict-match", "flexible-extract"]
        .map(|filter| line(filter, "It is 7") + &line(filter, "It is 8"));
    let path = folder.file("samples.jsonl", &lines.concat());
    let error = error(&path, &OutputKeys::default());
    assert!(error.contains("flexible-extract, strict-match"), "{error}");
    assert!(error.contains("--where filter=flexible-extract"), "{error}");
    let one = OutputKeys {
        chosen: Some(Chosen {
            key: "filter".to_owned(),
            value: "strict-match".to_owned(),
        }),
        ..OutputKeys::default()
    };
    let summary = score_file(&path, &one, None).unwrap();
    assert_eq!((summary.num_outputs, numeric(&summary).right), (2, 1));
}

/// Questions weigh the same, however many outputs they have: the interval is around the share.
#[test]
fn uneven_questions_weigh_the_same() {
    let folder = Folder::new();
    let line =
        |id: u32, text: &str| format!("{{\"id\": {id}, \"text\": \"{text}\", \"gold\": 7}}\n");
    let lines = [
        line(0, "#### 7").repeat(9),
        line(1, "#### 8"),
        line(2, "#### 8"),
    ];
    let path = folder.file("outputs.jsonl", &lines.concat());
    let untold = score_file(&path, &OutputKeys::default(), None).unwrap();
    assert_eq!((untold.num_questions, untold.uneven), (None, false));
    assert!(untold.text().contains("(--id-key)"), "{}", untold.text());
    let keys = OutputKeys {
        question: Some("id".to_owned()),
        ..OutputKeys::default()
    };
    let summary = score_file(&path, &keys, None).unwrap();
    assert_eq!((summary.num_outputs, summary.num_questions), (11, Some(3)));
    let counts = numeric(&summary);
    assert_eq!(counts.right, 9);
    assert!((counts.share - 1.0 / 3.0).abs() < 1e-12, "{counts:?}");
    assert!(counts.interval.low < counts.share && counts.share < counts.interval.high);
    let text = summary.text();
    assert!(text.contains("9/11 33.33 %"), "{text}");
    assert!(
        text.contains("over questions, each of the same weight"),
        "{text}"
    );
}

/// A folder stands for its attempts; chosen ones are still known as attempts, and hints are told.
#[test]
fn attempts_are_chosen() {
    let folder = Folder::new();
    let forward = data::record::Attempt {
        finish_reason: FinishReason::Length,
        ..attempt("#### 7", 7)
    };
    let hint = data::record::Attempt {
        source: data::record::Source::Hint,
        ..attempt("#### 7", 7)
    };
    let line = |attempt| serde_json::to_string(attempt).unwrap() + "\n";
    folder.file("attempts.jsonl", &(line(&forward) + &line(&hint)));
    let of = |value: &str| OutputKeys {
        chosen: Some(Chosen {
            key: "source".to_owned(),
            value: value.to_owned(),
        }),
        ..OutputKeys::default()
    };
    let all = score_file(folder.0.path(), &OutputKeys::default(), None).unwrap();
    assert_eq!((all.num_outputs, all.num_hints), (2, 1));
    assert!(
        all.text().contains("--where source=forward"),
        "{}",
        all.text()
    );
    let one = score_file(folder.0.path(), &of("forward"), None).unwrap();
    assert_eq!(
        (one.num_outputs, one.num_cut, one.num_hints),
        (1, Some(1), 0)
    );
    let error = error(folder.0.path(), &of("nothing"));
    assert!(error.contains("no line has source=nothing"), "{error}");
}
