//! From events to text, messages and ends, with a byte tokenizer and no engine.

use std::{pin::pin, sync::Arc};

use model::tokenizer::ModelTokenizer;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{stop::StopStrings, *};
use crate::{
    admission::{Admission, IdScope},
    backend::fake::write_tiny_model,
    convert::StopStringText,
    request::{
        Counts, EngineFailure, Event, FinishReason, Finished, TokenLogprobs, WeightsVersion,
    },
};

/// The tiny model's end-of-text token.
const EOS: u32 = crate::backend::fake::EOS;

fn tokenizer() -> ModelTokenizer {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 1);
    ModelTokenizer::load(dir.path()).unwrap()
}

fn version(number: u64) -> Arc<WeightsVersion> {
    Arc::new(WeightsVersion {
        number,
        digest: String::new(),
        checkpoint: String::new(),
    })
}

struct Setup {
    tokenizer: ModelTokenizer,
    admission: Admission,
}

impl Setup {
    fn new() -> Self {
        Self {
            tokenizer: tokenizer(),
            admission: Admission::new(1),
        }
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_text(text).unwrap()
    }

    fn generation(
        &self,
        stop: &[&str],
        stop_ids: &[u32],
        deadline: Deadline,
    ) -> (mpsc::Sender<Event>, Generation) {
        let stop_ids = Arc::new(StopIds {
            eos: vec![EOS],
            asked: stop_ids.to_vec(),
        });
        let stop = stop.iter().map(|&each| each.to_owned()).collect();
        self.generation_of(
            AnswerText::new(self.tokenizer.decode_stream(), stop, stop_ids),
            deadline,
        )
    }

    fn generation_of(
        &self,
        text: AnswerText,
        deadline: Deadline,
    ) -> (mpsc::Sender<Event>, Generation) {
        let (sender, answer) = answer(text, deadline, 9);
        (
            sender,
            Generation::new("a".to_owned(), vec![answer], self.permit()),
        )
    }

    fn permit(&self) -> Permit {
        let id = self.admission.register(IdScope::Batch(0), "a").unwrap();
        self.admission.admit(id, 1).unwrap()
    }
}

fn answer(text: AnswerText, deadline: Deadline, seed: u64) -> (mpsc::Sender<Event>, Answer) {
    let (sender, events) = mpsc::channel(100);
    let answer = Answer::new(AnswerParts {
        num_prompt_tokens: 3,
        seed,
        events,
        text,
        deadline,
        weights: version(1),
    });
    (sender, answer)
}

/// The one answer, whole.
async fn whole(generation: Generation) -> Result<Piece, RequestError> {
    let mut answers = generation.whole().await?;
    assert_eq!(answers.len(), 1);
    Ok(answers.remove(0))
}

fn tokens(ids: &[u32]) -> Event {
    Event::Tokens {
        tokens: ids.to_vec(),
        logprobs: vec![],
        weights: version(2),
    }
}

fn finished(ids: &[u32], reason: FinishReason) -> Event {
    Event::Finished(Finished {
        tokens: ids.to_vec(),
        logprobs: vec![],
        reason,
        counts: Counts::default(),
        weights: version(2),
    })
}

/// What comes out when `pieces` are pushed, and whether a stop string was found.
fn stopped(stops: &[&str], pieces: &[&str]) -> (String, bool) {
    let mut strings = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect());
    let mut out = String::new();
    for piece in pieces {
        if strings.push(piece, &mut out).is_some() {
            return (out, true);
        }
    }
    strings.finish(&mut out);
    (out, false)
}

/// A stop string is found wherever the pieces begin, and nothing of it comes out.
#[test]
fn stop_strings_are_found_across_pieces() {
    assert_eq!(
        stopped(&["\n\nQ:"], &["42\n", "\n", "Q", ": more"]),
        ("42".to_owned(), true)
    );
    assert_eq!(
        stopped(&["####"], &["a ## b ###", "# 5"]),
        ("a ## b ".to_owned(), true)
    );
    assert_eq!(stopped(&["aab"], &["aa", "ab"]), ("a".to_owned(), true));
    assert_eq!(
        stopped(&["é!"], &["caf", "é", "!"]),
        ("caf".to_owned(), true)
    );
    assert_eq!(
        stopped(&["abcdef", "cd"], &["abcdef"]),
        ("ab".to_owned(), true)
    );
}

/// Text that only began like a stop string comes out whole.
#[test]
fn held_back_text_is_given_out_at_the_end() {
    assert_eq!(
        stopped(&["\n\nQ:"], &["42\n", "\n"]),
        ("42\n\n".to_owned(), false)
    );
    assert_eq!(stopped(&[], &["a", "b"]), ("ab".to_owned(), false));
}

/// A whole answer has its text, its ids, its counts and the version that made it.
#[tokio::test]
async fn a_whole_answer_is_put_together() {
    let setup = Setup::new();
    let (events, generation) = setup.generation(&[], &[], Deadline::None);
    let ids = setup.ids("héllo");
    events.send(tokens(&ids[..2])).await.unwrap();
    events
        .send(finished(&ids[2..], FinishReason::Length))
        .await
        .unwrap();
    let whole = whole(generation).await.unwrap();
    let end = whole.end.unwrap();
    assert_eq!((whole.text.as_str(), whole.token_ids), ("héllo", ids));
    assert_eq!(
        (end.reason, end.num_generated_tokens, end.num_prompt_tokens),
        (FinishReason::Length, 6, 3)
    );
    assert_eq!((end.seed, end.weights.number), (9, 2));
}

/// The text of a stop token is not part of the answer, its id is.
#[tokio::test]
async fn a_stop_token_has_no_text() {
    let setup = Setup::new();
    let ids = setup.ids("ab.");
    let (events, generation) = setup.generation(&[], &ids[2..], Deadline::None);
    events
        .send(finished(&ids, FinishReason::Stop))
        .await
        .unwrap();
    let whole = whole(generation).await.unwrap();
    assert_eq!((whole.text.as_str(), whole.token_ids.len()), ("ab", 3));
    let reason = whole.end.unwrap().stop_reason;
    assert_eq!(reason, Some(StopReason::TokenId(ids[2])));

    let (events, generation) = setup.generation(&[], &[], Deadline::None);
    events
        .send(finished(&[ids[0], EOS], FinishReason::Stop))
        .await
        .unwrap();
    let whole = self::whole(generation).await.unwrap();
    assert_eq!(whole.text, "a");
    let reason = whole.end.unwrap().stop_reason;
    assert_eq!(reason, Some(StopReason::EosTokenId(EOS)));
}

/// A stop string ends the answer at once, cancels the rest and gives the room back.
#[tokio::test]
async fn a_stop_string_cancels_the_rest() {
    let setup = Setup::new();
    let (events, generation) = setup.generation(&["\nQ"], &[], Deadline::None);
    let ids = setup.ids("5\nQ: next");
    events.send(tokens(&ids)).await.unwrap();
    let mut messages = pin!(generation.into_messages());
    let (_, message) = messages.next().await.unwrap().unwrap();
    assert_eq!((message.text.as_str(), message.token_ids.len()), ("5", 3));
    let end = message.end.unwrap();
    assert_eq!((end.reason, end.weights.number), (FinishReason::Stop, 2));
    assert_eq!(end.stop_reason, Some(StopReason::Text("\nQ".to_owned())));
    assert!(events.is_closed());
    drop(setup.permit());
    assert!(messages.next().await.is_none());
}

/// Tokens that came since the last message travel together, and the end with the last.
#[tokio::test]
async fn stream_messages_are_coalesced() {
    let setup = Setup::new();
    let (events, generation) = setup.generation(&[], &[], Deadline::None);
    let ids = setup.ids("abcd");
    events.send(tokens(&ids[..1])).await.unwrap();
    let mut messages = pin!(generation.into_messages());
    let (_, first) = messages.next().await.unwrap().unwrap();
    assert_eq!(first.text, "a");
    for id in &ids[1..] {
        events.send(tokens(&[*id])).await.unwrap();
    }
    events
        .send(finished(&[], FinishReason::Length))
        .await
        .unwrap();
    let (_, second) = messages.next().await.unwrap().unwrap();
    assert_eq!((second.text.as_str(), second.end.is_some()), ("bcd", true));
    assert!(messages.next().await.is_none());
}

/// A time limit ends an answer with what there is, queued or running; a call's deadline fails it.
#[tokio::test]
async fn deadlines_end_answers() {
    let setup = Setup::new();
    let soon = Instant::now() + Duration::from_millis(100);
    let (events, generation) = setup.generation(&[], &[], Deadline::TimeLimit(soon));
    events.send(tokens(&setup.ids("ab"))).await.unwrap();
    let cut = whole(generation).await.unwrap();
    assert_eq!(cut.text, "ab");
    assert_eq!(cut.end.unwrap().reason, FinishReason::TimeLimit);
    assert!(events.is_closed());

    let soon = Instant::now() + Duration::from_millis(100);
    let (events, generation) = setup.generation(&[], &[], Deadline::Call(soon));
    assert_eq!(
        whole(generation).await.unwrap_err(),
        RequestError::DeadlineExceeded
    );
    assert!(events.is_closed());
}

/// An engine that goes away without a word is an error, not an endless wait.
#[tokio::test]
async fn a_closed_channel_is_an_error() {
    let setup = Setup::new();
    let (events, generation) = setup.generation(&[], &[], Deadline::None);
    drop(events);
    let error = whole(generation).await.unwrap_err();
    assert_eq!(error, RequestError::Engine(EngineFailure::Stopped));
}

/// The earlier of two deadlines counts, with its own way of ending.
#[test]
fn the_earlier_deadline_counts() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let (limit, call) = (Deadline::TimeLimit(now), Deadline::Call(later));
    assert_eq!(limit.earlier(call), limit);
    assert_eq!(call.earlier(limit), limit);
    assert_eq!(Deadline::None.earlier(call), call);
    assert_eq!(call.earlier(Deadline::None), call);
}

/// What an answer is when all of `text` has come, with `min_tokens` before which nothing stops it.
async fn stopped_after(text: &str, min_tokens: u32, string_text: StopStringText) -> Piece {
    let setup = Setup::new();
    let stop = vec!["Q:".to_owned()];
    let decode = setup.tokenizer.decode_stream();
    let answer_text = AnswerText::new(decode, stop, Arc::default());
    let answer_text = answer_text.stopping_with(string_text, min_tokens);
    let (events, generation) = setup.generation_of(answer_text, Deadline::None);
    let ids = setup.ids(text);
    events.send(tokens(&ids)).await.unwrap();
    events
        .send(finished(&[], FinishReason::Length))
        .await
        .unwrap();
    whole(generation).await.unwrap()
}

/// A stop string stays in the text where that was asked for, and nothing after it.
#[tokio::test]
async fn stop_strings_may_be_kept() {
    let left_out = stopped_after("5 Q: x", 0, StopStringText::LeftOut).await;
    assert_eq!(
        (left_out.text.as_str(), left_out.token_ids.len()),
        ("5 ", 4)
    );
    let included = stopped_after("5 Q: x", 0, StopStringText::Included).await;
    assert_eq!(
        (included.text.as_str(), included.token_ids.len()),
        ("5 Q:", 4)
    );
}

/// A stop string that is complete among the first tokens does not count; one that is complete later
/// does, wherever it began.
#[tokio::test]
async fn stop_strings_count_after_the_least_length() {
    let text = async |min_tokens| {
        let piece = stopped_after("Q:aQ:b", min_tokens, StopStringText::LeftOut).await;
        piece.text
    };
    assert_eq!(text(0).await, "");
    assert_eq!(text(1).await, "");
    assert_eq!(text(2).await, "Q:a");
    assert_eq!(text(4).await, "Q:a");
    assert_eq!(text(5).await, "Q:aQ:b");
}

/// Log probabilities travel with their tokens, and end where the answer does.
#[tokio::test]
async fn logprobs_end_with_the_answer() {
    let setup = Setup::new();
    let ids = setup.ids("ab.cd");
    let logprobs = ids.iter().map(|&id| TokenLogprobs {
        logprob: -(id as f32),
        rank: id,
        candidates: vec![],
    });
    let (events, generation) = setup.generation(&["."], &[], Deadline::None);
    let event = Event::Tokens {
        tokens: ids.clone(),
        logprobs: logprobs.collect(),
        weights: version(2),
    };
    events.send(event).await.unwrap();
    let whole = whole(generation).await.unwrap();
    let ranks: Vec<u32> = whole.logprobs.iter().map(|each| each.rank).collect();
    assert_eq!(
        (ranks, whole.token_ids),
        (ids[..3].to_vec(), ids[..3].to_vec())
    );
}

/// The parts of several answers come as they are ready, under their index, and the stream ends when
/// the last of them has ended.
#[tokio::test]
async fn answers_interleave() {
    let setup = Setup::new();
    let ids = setup.ids("ab");
    let text = || AnswerText::new(setup.tokenizer.decode_stream(), vec![], Arc::default());
    let (first, one) = answer(text(), Deadline::None, 1);
    let (second, two) = answer(text(), Deadline::None, 2);
    let generation = Generation::new("a".to_owned(), vec![one, two], setup.permit());
    let mut messages = pin!(generation.into_messages());
    second
        .send(finished(&ids[..1], FinishReason::Length))
        .await
        .unwrap();
    let (index, message) = messages.next().await.unwrap().unwrap();
    assert_eq!((index, message.text.as_str()), (1, "a"));
    assert_eq!(message.end.unwrap().seed, 2);
    first.send(tokens(&ids[..1])).await.unwrap();
    let (index, message) = messages.next().await.unwrap().unwrap();
    assert_eq!((index, message.text.as_str()), (0, "a"));
    first
        .send(finished(&ids[1..], FinishReason::Length))
        .await
        .unwrap();
    let (index, message) = messages.next().await.unwrap().unwrap();
    assert_eq!((index, message.text.as_str()), (0, "b"));
    assert!(messages.next().await.is_none());
}

/// One answer that fails ends the request, and the others with it.
#[tokio::test]
async fn one_failure_ends_all_answers() {
    let setup = Setup::new();
    let text = || AnswerText::new(setup.tokenizer.decode_stream(), vec![], Arc::default());
    let (first, one) = answer(text(), Deadline::None, 1);
    let (second, two) = answer(text(), Deadline::None, 2);
    let generation = Generation::new("a".to_owned(), vec![one, two], setup.permit());
    let failure = EngineFailure::NotFinite;
    second.send(Event::Failed(failure.clone())).await.unwrap();
    assert_eq!(generation.whole().await.unwrap_err(), failure.into());
    assert!(first.is_closed());
}

/// An abort ends whole answers, streams and scores with its own error and cancels their sequences.
#[tokio::test]
async fn aborts_end_requests() {
    let setup = Setup::new();
    let ids = ["a".to_owned()];
    let (events, generation) = setup.generation(&[], &[], Deadline::None);
    assert_eq!(setup.admission.abort(&ids), 1);
    assert_eq!(generation.whole().await.unwrap_err(), RequestError::Aborted);
    assert!(events.is_closed());

    let (events, generation) = setup.generation(&[], &[], Deadline::None);
    let mut messages = Box::pin(generation.into_messages());
    setup.admission.abort(&ids);
    let error = messages.next().await.unwrap().unwrap_err();
    assert_eq!(error, RequestError::Aborted);
    assert!(messages.next().await.is_none());
    assert!(events.is_closed());

    let (events, receiver) = mpsc::channel(1);
    let score = scored(receiver, Deadline::None, setup.permit());
    setup.admission.abort(&ids);
    assert_eq!(score.await.unwrap_err(), RequestError::Aborted);
    assert!(events.is_closed());
}

/// A score that is not done in time has no part to show.
#[tokio::test]
async fn late_scores_fail() {
    let setup = Setup::new();
    let (_events, receiver) = mpsc::channel(1);
    let limit = Deadline::TimeLimit(Instant::now() + Duration::from_millis(20));
    let score = scored(receiver, limit.of_the_whole(), setup.permit());
    assert_eq!(score.await.unwrap_err(), RequestError::DeadlineExceeded);
}
