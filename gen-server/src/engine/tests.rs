//! The engine through its handle, on its own thread, with the fake runner.

mod one_step_ahead;

use std::sync::Arc;

use super::{
    fake::{FakeRunner, solo_answer, solo_scores},
    handle::{EngineHandle, EngineSetup, SubmitError, start},
    *,
};
use crate::request::{Event, Finished, PrefixCache, Sampling, Stopping, Task};

fn limits() -> Limits {
    Limits {
        block_size: 4,
        num_blocks: 64,
        max_num_seqs: 8,
        max_num_batched_tokens: 32,
        max_draft_tokens: 0,
        prefix_cache: PrefixCache::Use,
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
        task: Task::Generate { max_tokens },
        sampling: Arc::new(Sampling::GREEDY),
        stopping: Arc::new(Stopping::default()),
        num_candidates: None,
        priority: 0,
        prefix_cache: PrefixCache::Use,
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
    assert_stopped(&engine);
}

/// So does a device that is gone: the step's requests hear why, all others that the engine has stopped.
#[test]
fn a_lost_device_fails_every_request() {
    for max_steps_in_flight in [1, 2] {
        let mut runner = fake();
        runner.breaking_step = Some(2);
        runner.max_steps_in_flight = max_steps_in_flight;
        let engine = start_with(runner);
        let first = engine.submit(request(&[1], 3)).unwrap();
        let others: Vec<_> = (0..20)
            .map_while(|_| engine.submit(request(&[1, 2], 3)).ok())
            .collect();
        let last = only_event(first);
        assert!(
            matches!(
                last,
                Some(Event::Failed(
                    EngineFailure::Step(_) | EngineFailure::Stopped
                ))
            ),
            "{last:?}"
        );
        for other in others {
            let event = only_event(other);
            assert!(matches!(event, Some(Event::Failed(_))), "{event:?}");
        }
        assert_stopped(&engine);
    }
}

fn assert_stopped(engine: &EngineHandle) {
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

/// A second request with the same first tokens finds them computed, gets the same answer, and says so.
#[test]
fn a_known_prefix_is_not_computed_again() {
    let engine = start_with(fake());
    let prompt: Vec<u32> = (0..30).collect();
    let first = finished(only_event(engine.submit(request(&prompt, 6)).unwrap()));
    let second = finished(only_event(engine.submit(request(&prompt, 6)).unwrap()));
    assert_eq!(first.tokens, second.tokens);
    assert_eq!(
        (
            first.counts.num_cached_tokens,
            second.counts.num_cached_tokens
        ),
        (0, 28)
    );
}

/// A score tells how likely each of its tokens was, whatever else runs.
#[test]
fn scores_come_with_the_end() {
    let engine = start_with(fake());
    let prompt: Vec<u32> = (0..50).map(|place| place * 3 % 97).collect();
    let mut asked = request(&prompt, 1);
    asked.task = Task::Score { from: 7 };
    asked.num_candidates = Some(2);
    let other = engine.submit(request(&prompt, 20)).unwrap();
    let end = finished(only_event(engine.submit(asked).unwrap()));
    assert_eq!(end.logprobs, solo_scores(&prompt, 7, 2, 1));
    assert_eq!(end.reason, crate::request::FinishReason::Scored);
    assert!(end.tokens.is_empty());
    drop(other);
}
