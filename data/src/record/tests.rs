//! Records and verdicts.

use super::*;
use crate::answer::{Rule, extract};

pub(crate) fn attempt(question_id: &str, source: Source, text: &str, gold: i64) -> Attempt {
    let gold = Number::from(gold);
    let extraction = extract(text, Rule::Numeric);
    Attempt {
        dataset_sha256: "d".into(),
        question_id: question_id.into(),
        iteration: 0,
        source,
        sample: 0,
        weights: WeightsStamp {
            version: 1,
            digest: "w".into(),
            checkpoint: "base".into(),
        },
        prompt: PromptStamp {
            name: "basic".into(),
            digest: "p".into(),
        },
        template: None,
        decoding: Decoding::greedy(256),
        seed: 0,
        text: text.into(),
        num_tokens: 9,
        finish_reason: FinishReason::Stop,
        rule: Rule::Numeric,
        verdict: Verdict::judge(&extraction, FinishReason::Stop, gold),
        value: extraction.value,
        gold,
        flags: extraction.flags,
        leaks: Vec::new(),
    }
}

/// A cut text is its own class, whatever number it contains; no number is not a wrong number.
#[test]
fn verdicts() {
    let judge = |text: &str, finish_reason| {
        Verdict::judge(
            &extract(text, Rule::Numeric),
            finish_reason,
            Number::from(18),
        )
    };
    assert_eq!(judge("#### 18", FinishReason::Stop), Verdict::Right);
    assert_eq!(judge("#### 17", FinishReason::Stop), Verdict::Wrong);
    assert_eq!(judge("eighteen", FinishReason::Stop), Verdict::NoAnswer);
    assert_eq!(judge("#### 18", FinishReason::Length), Verdict::Truncated);
    assert_eq!(
        judge("#### 18", FinishReason::TimeLimit),
        Verdict::Truncated
    );
}

/// An attempt reads back as it was written, and its words are those of the documentation.
#[test]
fn attempt_round_trip() {
    let mut written = attempt("q", Source::Hint, "about 18", 18);
    written.template = Some(TemplateStamp {
        name: "hf-llama3.2".into(),
        digest: "t".into(),
        date: "26 Jul 2024".into(),
    });
    written.leaks = vec![LeakReason::Underived];
    let line = serde_json::to_string(&written).unwrap();
    assert!(line.contains(r#""source":"hint""#), "{line}");
    assert!(line.contains(r#""verdict":"right""#), "{line}");
    assert!(
        line.contains(r#""flags":["fallback"],"leaks":["underived"]"#),
        "{line}"
    );
    assert_eq!(serde_json::from_str::<Attempt>(&line).unwrap(), written);
}

/// The key names what was asked, not what came out: another text is the same attempt, another seed,
/// sample, prompt, template, decoding or set of weights is another.
#[test]
fn keys() {
    let base = attempt("q", Source::Forward, "18", 18);
    let same = Attempt {
        text: "17".into(),
        num_tokens: 1,
        verdict: Verdict::Wrong,
        ..base.clone()
    };
    assert_eq!(same.key(), base.key());
    let restarted = WeightsStamp {
        version: 9,
        ..base.weights.clone()
    };
    assert_eq!(
        Attempt {
            weights: restarted,
            ..base.clone()
        }
        .key(),
        base.key()
    );

    let tuned = WeightsStamp {
        digest: "w2".into(),
        ..base.weights.clone()
    };
    let template = TemplateStamp {
        name: "t".into(),
        digest: "t".into(),
        date: "d".into(),
    };
    for other in [
        Attempt {
            seed: 1,
            ..base.clone()
        },
        Attempt {
            sample: 1,
            ..base.clone()
        },
        Attempt {
            iteration: 1,
            ..base.clone()
        },
        Attempt {
            source: Source::Hint,
            ..base.clone()
        },
        Attempt {
            decoding: Decoding::greedy(257),
            ..base.clone()
        },
        Attempt {
            weights: tuned,
            ..base.clone()
        },
        Attempt {
            template: Some(template),
            ..base.clone()
        },
    ] {
        assert_ne!(other.key(), base.key(), "{other:?}");
    }
}

/// The reference report's three fields alone are a record, and a record without the rest is
/// written as just these.
#[test]
fn report_format() {
    let line = r#"{"question":"q","gold_answer":"18","rationale":"r"}"#;
    let record: AcceptedRecord = serde_json::from_str(line).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), line);
}
