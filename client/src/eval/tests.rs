use data::prompt::PromptTemplate;

use super::*;
use crate::{
    collect::collect,
    fake_server::{Act, FakeServer},
    test_support::{context, method, questions},
};

/// Answers question i rightly, wrongly, cut, or without a number, by i modulo 4.
fn mixed(text: &str) -> Act {
    let index: u64 = text.trim().rsplit(' ').next().unwrap().parse().unwrap();
    match index % 4 {
        0 => Act::Say(format!("So it is {index}.\n#### {index}")),
        1 => Act::Say("#### -1".to_owned()),
        // A right number in a cut answer does not count as right.
        2 => Act::Cut(format!("first {index}")),
        _ => Act::Say("I do not know.".to_owned()),
    }
}

/// Questions in = right + wrong + no answer found + truncated, and every rule is shown.
#[tokio::test]
async fn counts_close() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let summary = evaluate(&context, method(0), &questions(40), dir.path(), "eval")
        .await
        .unwrap();
    let expected = Classes {
        attempts: 40,
        right: 10,
        wrong: 10,
        no_answer: 10,
        truncated: 10,
    };
    assert_eq!(summary.counts, expected);
    assert_eq!(summary.rules.len(), Rule::ALL.len());
    let numeric = summary.rules[0];
    assert_eq!(
        (numeric.right, numeric.right_with_cut, numeric.found),
        (10, 20, 30)
    );
    assert!(summary.interval.low < 0.25 && summary.interval.high > 0.25);
    assert!((summary.truncation_rate - 0.25).abs() < 1e-12);
    let text = summary.text();
    assert!(text.contains("10/40 = 25.00 %"), "{text}");
    assert!(
        text.contains("40 questions = 10 right + 10 wrong + 10 no answer found + 10 truncated")
    );
    let written: EvalSummary = files::require_json(&dir.path().join(SUMMARY_FILE)).unwrap();
    assert_eq!(written, summary);
}

/// A second call asks nothing again and gives the same result.
#[tokio::test]
async fn a_finished_evaluation_is_not_repeated() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let first = evaluate(&context, method(0), &questions(12), dir.path(), "eval")
        .await
        .unwrap();
    let num_requests = server.num_requests();
    let second = evaluate(&context, method(0), &questions(12), dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(server.num_requests(), num_requests);
    assert_eq!((second.work.num_made, second.work.num_resumed), (0, 12));
    assert_eq!(second.counts, first.counts);
    assert_eq!(second.rules, first.rules);
}

/// A folder that holds a run with other settings is refused, and the setting is named.
#[tokio::test]
async fn other_settings_are_refused() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    evaluate(&context, method(0), &questions(4), dir.path(), "eval")
        .await
        .unwrap();
    let error = evaluate(&context, method(7), &questions(4), dir.path(), "eval")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("seed"), "{error}");
    let error = evaluate(&context, method(0), &questions(5), dir.path(), "eval")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("questions"), "{error}");
    server.swap_weights();
    let error = evaluate(&context, method(0), &questions(4), dir.path(), "eval")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("weights"), "{error}");
}

/// Answers of two weight versions never make one result.
#[tokio::test]
async fn a_swap_in_the_middle_is_noticed() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    let context = context(&server).await;
    let questions = questions(8);
    let session = Session::open(&context.server, method(0), &questions, "eval")
        .await
        .unwrap();
    server.swap_weights();
    let dir = tempfile::tempdir().unwrap();
    let mut store = AttemptStore::open(dir.path(), session.manifest()).unwrap();
    let collected = collect(
        &context,
        &session,
        &questions,
        &mut store,
        ("eval", &SamplesPlan(Sampling::only(1))),
    )
    .await;
    assert!(
        matches!(collected, Err(ClientError::WeightsChanged { .. })),
        "{collected:?}"
    );
    assert!(store.all(&questions.list).is_empty());
}

/// A question that the server refuses for good is a failure of the run, never a wrong answer.
#[tokio::test]
async fn refused_questions_do_not_vanish() {
    let server = FakeServer::start(|text, _| match text {
        text if text.ends_with('3') => Act::Refuse(tonic::Code::InvalidArgument),
        text => mixed(text),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let error = evaluate(&context, method(0), &questions(20), dir.path(), "eval")
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::ItemsFailed { count: 2, .. }),
        "{error}"
    );
    assert!(!dir.path().join(SUMMARY_FILE).exists());
}

/// Ctrl-C stops between two answers, with everything so far on disk.
#[tokio::test]
async fn an_interrupt_keeps_what_is_done() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    context.interrupt.set();
    let error = evaluate(&context, method(0), &questions(8), dir.path(), "eval")
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 75);
    let resumed = Context {
        interrupt: crate::interrupt::Interrupt::default(),
        ..context
    };
    let summary = evaluate(&resumed, method(0), &questions(8), dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(summary.counts.attempts, 8);
}

/// Where the checkpoint has a chat template, `auto` uses it and the manifest names it.
#[tokio::test]
async fn the_chat_template_is_used_and_named() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    server.set_chat_template("hf-llama3.2");
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let summary = evaluate(&context, method(0), &questions(4), dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(
        summary.manifest.prompt_format,
        data::prompt::PromptFormat::Chat
    );
    assert_eq!(summary.manifest.template.unwrap().name, "hf-llama3.2");
}

/// A prompt of several turns reaches the server as it stands, with the stop strings that belong to it;
/// where there is no chat template it is refused before anything is written.
#[tokio::test]
async fn few_shot_conversations_reach_the_server() {
    let server = FakeServer::start(|_, _| Act::Say("The final answer is 1".to_owned())).await;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let context = context(&server).await;
    let method = || Method {
        prompt: PromptTemplate::by_name("llama-8shot-multiturn").unwrap(),
        hint_prompt: None,
        ..method(0)
    };
    let refused = evaluate(&context, method(), &questions(2), &out, "eval").await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("\"llama-8shot-multiturn\""), "{error}");
    assert!(error.contains("--prompt-format"), "{error}");
    assert!(!out.exists());

    server.set_chat_template("fake");
    let summary = evaluate(&context, method(), &questions(2), &out, "eval")
        .await
        .unwrap();
    let turns = server.conversation();
    assert_eq!(turns.len(), 17);
    let assistant = turns.iter().filter(|turn| turn.0 == "assistant").count();
    assert_eq!(assistant, 8);
    assert!(turns[16].1.contains("Problem: What is "), "{turns:?}");
    assert_eq!(summary.counts.right, 1);
    assert_eq!(summary.manifest.decoding.stop, method().prompt.stop());

    let stop = vec!["END".to_owned()];
    let mut own_stop = method();
    own_stop.decoding.stop.clone_from(&stop);
    let other = dir.path().join("other");
    let summary = evaluate(&context, own_stop, &questions(2), &other, "eval")
        .await
        .unwrap();
    assert_eq!(summary.manifest.decoding.stop, stop);
}

/// Four samples of each question: every answer is counted, the accuracy is the mean over questions
/// and the samples of a question are other requests. The second call asks nothing again.
#[tokio::test]
async fn several_samples_are_asked_and_counted() {
    let server = FakeServer::start(|text, _| mixed(text)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let sampled = || Method {
        sampling: Sampling::only(4),
        ..method(0)
    };
    let summary = evaluate(&context, sampled(), &questions(8), dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(server.num_requests(), 32);
    let expected = Classes {
        attempts: 32,
        right: 8,
        wrong: 8,
        no_answer: 8,
        truncated: 8,
    };
    assert_eq!(summary.counts, expected);
    assert!((summary.accuracy - 0.25).abs() < 1e-12);
    let samples = summary.samples.as_ref().unwrap();
    assert_eq!((samples.num_questions, samples.majority.num_right), (8, 2));
    let text = summary.text();
    assert!(text.contains("32 answers = 8 right"), "{text}");
    assert!(text.contains("4 of each of 8 questions"), "{text}");
    assert!(text.contains("clustered by question"), "{text}");
    let written: EvalSummary = files::require_json(&dir.path().join(SUMMARY_FILE)).unwrap();
    assert_eq!(written, summary);
    let again = evaluate(&context, sampled(), &questions(8), dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(server.num_requests(), 32);
    assert_eq!(again.samples, summary.samples);
}

/// The loss of the gold solutions is part of the result, in text and on disk.
#[tokio::test]
async fn the_loss_of_the_solutions_is_added() {
    let server = FakeServer::start(|text, _| {
        if text.contains("What is") {
            mixed(text)
        } else {
            Act::Say(String::new())
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let file = dir.path().join("solutions.jsonl");
    std::fs::write(&file, "{\"question\": \"q\", \"answer\": \"one #### 1\"}\n").unwrap();
    let summary = evaluate(&context, method(0), &questions(4), dir.path(), "eval")
        .await
        .unwrap();
    assert!(!summary.text().contains("loss"));
    let solutions = Examples::read(&file, None, crate::loss::Annotations::Stripped).unwrap();
    let how = LossMethod {
        prompt: method(0).prompt,
        format: method(0).format,
        max_length: None,
    };
    let added = add_loss(&context, summary.clone(), (&how, &solutions), dir.path());
    let with_loss = added.await.unwrap();
    // Three words and the end, with log probabilities -1 to -4.
    let loss = with_loss.loss.as_ref().unwrap();
    assert!((loss.loss - 2.5).abs() < 1e-12);
    assert!(
        with_loss
            .text()
            .contains("loss         2.500000 nats per token")
    );
    let written: EvalSummary = files::require_json(&dir.path().join(SUMMARY_FILE)).unwrap();
    assert_eq!(written, with_loss);
    // The same command without the loss does not lose it.
    let again = evaluate(&context, method(0), &questions(4), dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(again.loss, with_loss.loss);
    server.swap_weights();
    let other = add_loss(&context, summary, (&how, &solutions), dir.path());
    let error = other.await.unwrap_err();
    assert!(
        matches!(error, ClientError::WeightsChanged { .. }),
        "{error}"
    );
}
