//! From events to text, messages and ends, with a byte tokenizer and no engine.

use std::sync::Arc;

use super::{stop::StopStrings, *};
use crate::{
    admission::{Admission, IdScope},
    backend::fake::write_tiny_model,
    request::Finished,
};
use model::tokenizer::ModelTokenizer;

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
        let (sender, events) = mpsc::channel(100);
        let stop = stop.iter().map(|&each| each.to_owned()).collect();
        let generation = Generation::new(Admitted {
            request_id: "a".to_owned(),
            num_prompt_tokens: 3,
            seed: 9,
            events,
            text: AnswerText::new(self.tokenizer.decode_stream(), stop, stop_ids.into()),
            deadline,
            weights: version(1),
            permit: self.admission.admit(IdScope::Batch(0), "a").unwrap(),
        });
        (sender, generation)
    }
}

fn tokens(ids: &[u32]) -> Event {
    Event::Tokens {
        tokens: ids.to_vec(),
        weights: version(2),
    }
}

fn finished(ids: &[u32], reason: FinishReason) -> Event {
    Event::Finished(Finished {
        tokens: ids.to_vec(),
        reason,
        num_cached_tokens: 0,
        weights: version(2),
    })
}

/// What comes out when `pieces` are pushed, and whether a stop string was found.
fn stopped(stops: &[&str], pieces: &[&str]) -> (String, bool) {
    let mut strings = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect());
    let mut out = String::new();
    for piece in pieces {
        if strings.push(piece, &mut out) {
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
    let whole = generation.whole().await.unwrap();
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
    let whole = generation.whole().await.unwrap();
    assert_eq!((whole.text.as_str(), whole.token_ids.len()), ("ab", 3));
}

/// A stop string ends the answer at once, cancels the rest and gives the room back.
#[tokio::test]
async fn a_stop_string_cancels_the_rest() {
    let setup = Setup::new();
    let (events, mut generation) = setup.generation(&["\nQ"], &[], Deadline::None);
    let ids = setup.ids("5\nQ: next");
    events.send(tokens(&ids)).await.unwrap();
    let message = generation.next_message().await.unwrap().unwrap();
    assert_eq!((message.text.as_str(), message.token_ids.len()), ("5", 3));
    let end = message.end.unwrap();
    assert_eq!((end.reason, end.weights.number), (FinishReason::Stop, 2));
    assert!(events.is_closed());
    setup.admission.admit(IdScope::Batch(0), "a").unwrap();
    assert_eq!(generation.next_message().await.unwrap(), None);
}

/// Tokens that came since the last message travel together, and the end with the last.
#[tokio::test]
async fn stream_messages_are_coalesced() {
    let setup = Setup::new();
    let (events, mut generation) = setup.generation(&[], &[], Deadline::None);
    let ids = setup.ids("abcd");
    events.send(tokens(&ids[..1])).await.unwrap();
    let first = generation.next_message().await.unwrap().unwrap();
    assert_eq!(first.text, "a");
    for id in &ids[1..] {
        events.send(tokens(&[*id])).await.unwrap();
    }
    events
        .send(finished(&[], FinishReason::Length))
        .await
        .unwrap();
    let second = generation.next_message().await.unwrap().unwrap();
    assert_eq!((second.text.as_str(), second.end.is_some()), ("bcd", true));
    assert_eq!(generation.next_message().await.unwrap(), None);
}

/// A time limit ends an answer with what there is, queued or running; a call's deadline fails it.
#[tokio::test]
async fn deadlines_end_answers() {
    let setup = Setup::new();
    let soon = Instant::now() + Duration::from_millis(100);
    let (events, generation) = setup.generation(&[], &[], Deadline::TimeLimit(soon));
    events.send(tokens(&setup.ids("ab"))).await.unwrap();
    let whole = generation.whole().await.unwrap();
    assert_eq!(whole.text, "ab");
    assert_eq!(whole.end.unwrap().reason, FinishReason::TimeLimit);
    assert!(events.is_closed());

    let soon = Instant::now() + Duration::from_millis(100);
    let (events, generation) = setup.generation(&[], &[], Deadline::Call(soon));
    assert_eq!(
        generation.whole().await.unwrap_err(),
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
    let error = generation.whole().await.unwrap_err();
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
