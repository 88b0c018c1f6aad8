//! The engine through its handle, on its own thread, with the fake runner.

use std::sync::Arc;

use super::{
    fake::{FakeRunner, solo_answer},
    handle::{EngineHandle, EngineSetup, SubmitError, start},
    *,
};
use crate::request::{Event, Finished, Sampling};

fn limits() -> Limits {
    Limits {
        block_size: 4,
        num_blocks: 64,
        max_num_seqs: 8,
        max_num_batched_tokens: 32,
    }
}

fn start_with(runner: FakeRunner) -> EngineHandle {
    let setup = EngineSetup {
        runner: Box::new(runner),
        limits: limits(),
        max_context_tokens: 128,
        weights: WeightsVersion {
            number: 1,
            digest: "d".into(),
            checkpoint: "base".into(),
        },
        max_num_commands: 64,
    };
    start(setup).unwrap().0
}

fn fake() -> FakeRunner {
    FakeRunner::new(64, 4, 1)
}

fn request(prompt_ids: &[u32], max_tokens: u32) -> EngineRequest {
    EngineRequest {
        prompt_ids: prompt_ids.to_vec(),
        max_tokens,
        sampling: Sampling::GREEDY,
        stop_token_ids: Arc::new([]),
        tokens_per_event: u32::MAX,
    }
}

fn only_event(mut events: tokio::sync::mpsc::Receiver<Event>) -> Option<Event> {
    let event = events.blocking_recv();
    assert_eq!(events.blocking_recv(), None, "nothing comes after the end");
    event
}

fn finished(event: Option<Event>) -> Finished {
    match event {
        Some(Event::Finished(finished)) => finished,
        other => panic!("expected an end, found {other:?}"),
    }
}

/// Requests together get what each would get alone.
#[test]
fn answers_do_not_depend_on_company() {
    let engine = start_with(fake());
    let waiting: Vec<_> = (1..20_u32)
        .map(|index| {
            (
                index,
                engine.submit(request(&[index, 2, 3], 5 + index)).unwrap(),
            )
        })
        .collect();
    for (index, events) in waiting {
        let answer = finished(only_event(events)).tokens;
        assert_eq!(answer, solo_answer(&[index, 2, 3], 5 + index as usize, 1));
    }
}

/// A request that asks for more than the context ends with it.
#[test]
fn the_context_ends_an_answer() {
    let engine = start_with(fake());
    let end = finished(only_event(
        engine.submit(request(&[1; 100], 1_000)).unwrap(),
    ));
    assert_eq!(end.tokens.len(), 28);
    assert_eq!(end.reason, crate::request::FinishReason::Length);
}

/// A step that fails ends the requests in it with a reason; later ones are served.
#[test]
fn a_failed_step_fails_only_its_requests() {
    let mut runner = fake();
    runner.failing_steps = vec![1];
    let engine = start_with(runner);
    let event = only_event(engine.submit(request(&[1], 3)).unwrap());
    assert!(
        matches!(event, Some(Event::Failed(EngineFailure::Step(_)))),
        "{event:?}"
    );
    let end = finished(only_event(engine.submit(request(&[1], 3)).unwrap()));
    assert_eq!(end.tokens, solo_answer(&[1], 3, 1));
}

/// A panic ends the engine, not its callers' patience: each hears of it, and later ones are refused.
#[test]
fn a_panic_fails_every_request() {
    let mut runner = fake();
    runner.panicking_step = Some(1);
    let engine = start_with(runner);
    let event = only_event(engine.submit(request(&[1], 3)).unwrap());
    assert_eq!(event, Some(Event::Failed(EngineFailure::Stopped)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(engine.stopped());
    assert!(!engine.is_alive());
    assert_eq!(
        engine.submit(request(&[1], 3)).unwrap_err(),
        SubmitError::Stopped
    );
}

/// After a swap answers come from the new weights and say so.
#[test]
fn a_swap_changes_answers_and_version() {
    let engine = start_with(fake());
    let staged = StagedWeights(Box::new(2_u64));
    let live = engine
        .swap(staged, "d2".to_owned(), "star/epoch_1".to_owned())
        .unwrap();
    assert_eq!(live.blocking_recv().unwrap().number, 2);
    let end = finished(only_event(engine.submit(request(&[5], 4)).unwrap()));
    assert_eq!(end.tokens, solo_answer(&[5], 4, 2));
    assert_eq!(
        (end.weights.number, &*end.weights.checkpoint),
        (2, "star/epoch_1")
    );
}
