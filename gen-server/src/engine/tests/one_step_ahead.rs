//! The engine one step ahead of its runner, turn by turn.

use std::collections::HashSet;

use tokio::sync::mpsc::Receiver as Events;

use super::*;
use crate::request::FinishReason;

/// An engine without its thread.
struct Rig {
    engine: Engine,
    weights: watch::Receiver<Arc<WeightsVersion>>,
}

fn runner(limits: Limits) -> FakeRunner {
    let mut runner = FakeRunner::new(limits.num_blocks, limits.block_size, 1);
    runner.max_steps_in_flight = 2;
    runner
}

fn rig(limits: Limits) -> Rig {
    Rig::new(runner(limits), limits)
}

impl Rig {
    fn new(runner: FakeRunner, limits: Limits) -> Self {
        let first = WeightsVersion {
            number: 1,
            digest: "1".into(),
            checkpoint: "base".into(),
        };
        let (live_weights, weights) = watch::channel(Arc::new(first));
        let engine = Engine::new(Parts {
            runner: Box::new(runner),
            limits,
            max_context_tokens: (limits.num_blocks as usize * limits.block_size).min(128),
            commands: std::sync::mpsc::sync_channel(0).1,
            live_weights,
            gauges: Arc::new(Gauges::default()),
        });
        Self { engine, weights }
    }

    fn ask(&mut self, request: EngineRequest) -> Events<Event> {
        let (output, events) = Output::channel(&request);
        let submission = Submission { request, output };
        self.engine.take(Command::Submit(submission));
        events
    }

    fn swap(&mut self, number: u64) {
        self.engine.take(Command::Swap(Swap {
            weights: StagedWeights(Box::new(number)),
            digest: number.to_string(),
            checkpoint: "next".into(),
            committed: oneshot::channel().0,
        }));
    }

    /// One turn. Returns how many tokens the step that it submitted computes, and how many of them
    /// are carried.
    fn turn(&mut self) -> (usize, usize) {
        self.engine.batch.clear();
        self.engine.step();
        self.engine.scheduler.assert_blocks_conserved();
        let batch = &self.engine.batch;
        (batch.token_ids.len(), batch.carried.len())
    }

    fn num_under_way(&self) -> usize {
        self.engine.scheduler.num_steps_under_way()
    }

    fn version(&self) -> u64 {
        self.weights.borrow().number
    }

    fn num_free_blocks(&self) -> usize {
        self.engine.scheduler.pool().num_free()
    }

    fn finish(&mut self) {
        for _ in 0..10_000 {
            if !self.engine.has_work() {
                assert_eq!(self.num_under_way(), 0);
                assert_eq!(self.engine.scheduler.pool().num_used(), 0);
                return;
            }
            self.turn();
        }
        panic!("the engine makes no progress");
    }
}

/// The one event of a request that has ended.
fn end_of(events: &mut Events<Event>) -> Finished {
    finished(events.try_recv().ok())
}

fn is_failed(events: &mut Events<Event>) -> bool {
    matches!(events.try_recv(), Ok(Event::Failed(EngineFailure::Step(_))))
}

/// Whenever a step is waited for, the next one is with the runner already; its tokens are carried.
#[test]
fn the_next_step_is_handed_over_before_one_is_waited_for() {
    let mut rig = rig(limits());
    let mut events = rig.ask(request(&[1, 2, 3], 6));
    assert_eq!(rig.turn(), (3, 0));
    assert_eq!((rig.num_under_way(), rig.engine.num_steps), (1, 0));
    for num_steps in 1..=5 {
        assert_eq!(rig.turn(), (1, 1));
        assert_eq!((rig.num_under_way(), rig.engine.num_steps), (1, num_steps));
    }
    rig.finish();
    assert_eq!(end_of(&mut events).tokens, solo_answer(&[1, 2, 3], 6, 1));
}

/// The end by length is foreseen: no step computes anything after the last token.
#[test]
fn an_answer_takes_as_many_steps_as_tokens() {
    for max_tokens in [1, 2, 3, 8] {
        let mut rig = rig(limits());
        let mut events = rig.ask(request(&[5, 6], max_tokens));
        rig.finish();
        let end = end_of(&mut events);
        assert_eq!(end.tokens, solo_answer(&[5, 6], max_tokens as usize, 1));
        assert_eq!(end.reason, FinishReason::Length);
        assert_eq!(rig.engine.num_steps, u64::from(max_tokens));
    }
}

/// A stop token is seen when the next step is under way: what that computes is not told, and its block
/// serves the next request.
#[test]
fn a_stop_token_is_seen_one_step_late() {
    let limits = Limits {
        num_blocks: 4,
        ..limits()
    };
    let mut rig = rig(limits);
    let answer = solo_answer(&[9, 8, 7], 8, 1);
    let mut asked = request(&[9, 8, 7], 8);
    let stop = answer[1];
    assert_ne!(answer[0], stop);
    asked.stopping = Arc::new(Stopping {
        token_ids: vec![stop],
        min_tokens: 0,
    });
    let mut events = rig.ask(asked);
    rig.turn();
    rig.turn();
    // The stop token is known after this turn; the step after it is under way.
    assert_eq!(rig.turn(), (1, 1));
    let end = end_of(&mut events);
    assert_eq!(
        (&*end.tokens, end.reason),
        (&answer[..2], FinishReason::Stop)
    );
    assert_eq!((rig.num_under_way(), rig.num_free_blocks()), (1, 4));
    let mut next = rig.ask(request(&[4; 10], 5));
    assert_eq!(rig.turn(), (10, 0));
    rig.finish();
    assert_eq!(end_of(&mut next).tokens, solo_answer(&[4; 10], 5, 1));
}

/// Who goes is dropped at once, whatever is under way; another may take the blocks in the next step.
#[test]
fn a_cancelled_sequence_leaves_at_once() {
    let limits = Limits {
        num_blocks: 5,
        ..limits()
    };
    let mut rig = rig(limits);
    let gone = rig.ask(request(&[1; 12], 7));
    let mut stays = rig.ask(request(&[2; 3], 3));
    rig.turn();
    assert_eq!((rig.num_under_way(), rig.num_free_blocks()), (1, 1));
    drop(gone);
    let mut next = rig.ask(request(&[3; 14], 2));
    rig.turn();
    assert_eq!(rig.num_free_blocks(), 0);
    rig.finish();
    assert_eq!(end_of(&mut stays).tokens, solo_answer(&[2; 3], 3, 1));
    assert_eq!(end_of(&mut next).tokens, solo_answer(&[3; 14], 2, 1));
}

/// A step that fails takes its sequences with it, also out of the step that carries tokens from it;
/// those that began in that one are answered.
#[test]
fn a_failed_step_spares_what_began_after_it() {
    let mut runner = runner(limits());
    runner.failing_steps = vec![3];
    let mut rig = Rig::new(runner, limits());
    let mut lost = rig.ask(request(&[1, 2, 3, 4, 5], 9));
    for _ in 0..3 {
        rig.turn();
    }
    let mut later = rig.ask(request(&[1, 2, 3, 4, 6], 9));
    assert_eq!(
        rig.turn(),
        (2, 1),
        "the common block was computed by step 1"
    );
    assert!(is_failed(&mut lost));
    assert_eq!(rig.num_under_way(), 1);
    rig.finish();
    let answer = solo_answer(&[1, 2, 3, 4, 6], 9, 1);
    assert_eq!(end_of(&mut later).tokens, answer);
}

/// A step that cannot even be handed over fails its sequences, and not the one under way.
#[test]
fn a_refused_step_spares_the_one_under_way() {
    let mut runner = runner(limits());
    runner.refused_steps = vec![2];
    let mut rig = Rig::new(runner, limits());
    let mut lost = rig.ask(request(&[1, 2], 9));
    let mut ends = rig.ask(request(&[3, 4], 1));
    rig.turn();
    rig.turn();
    assert!(is_failed(&mut lost));
    assert_eq!(rig.num_under_way(), 1);
    let mut later = rig.ask(request(&[5, 6], 4));
    rig.finish();
    assert_eq!(end_of(&mut ends).tokens, solo_answer(&[3, 4], 1, 1));
    assert_eq!(end_of(&mut later).tokens, solo_answer(&[5, 6], 4, 1));
}

/// A row that is not finite ends its sequence alone; nobody finds what the step after computed for it.
#[test]
fn a_row_that_is_not_finite_ends_its_sequence() {
    let mut runner = runner(limits());
    runner.not_finite_steps = vec![2];
    let mut rig = Rig::new(runner, limits());
    let mut lost = rig.ask(request(&[1, 2, 3], 9));
    rig.turn();
    rig.turn();
    let mut later = rig.ask(request(&[5, 6], 4));
    rig.finish();
    let failure = lost.try_recv().unwrap();
    assert_eq!(failure, Event::Failed(EngineFailure::NotFinite));
    assert_eq!(end_of(&mut later).tokens, solo_answer(&[5, 6], 4, 1));
}

/// New weights wait for the step under way, even if nobody listens to it any more.
#[test]
fn a_swap_waits_for_the_step_under_way() {
    let mut rig = rig(limits());
    let mut first = rig.ask(request(&[7, 7], 2));
    let gone = rig.ask(request(&[1, 2], 9));
    rig.turn();
    rig.swap(2);
    let mut second = rig.ask(request(&[7, 7], 2));
    rig.turn();
    rig.turn();
    assert_eq!(end_of(&mut first).tokens, solo_answer(&[7, 7], 2, 1));
    drop(gone);
    assert_eq!(rig.num_under_way(), 1);
    assert_eq!(rig.turn(), (0, 0));
    assert_eq!((rig.num_under_way(), rig.version()), (0, 1));
    assert_eq!(rig.turn(), (2, 0));
    assert_eq!(rig.version(), 2);
    rig.finish();
    assert_eq!(end_of(&mut second).tokens, solo_answer(&[7, 7], 2, 2));
}

/// When blocks run out the step under way is waited for, and only then one gives way.
#[test]
fn nobody_gives_way_while_a_step_is_under_way() {
    let limits = Limits {
        num_blocks: 6,
        ..limits()
    };
    let mut rig = rig(limits);
    let mut asked: Vec<_> = (1..4)
        .map(|token| (token, rig.ask(request(&[token; 4], 17))))
        .collect();
    let mut num_waits = 0;
    while rig.engine.has_work() {
        let before = rig.engine.scheduler.num_preemptions_total();
        let num_under_way = rig.num_under_way();
        let (num_tokens, num_carried) = rig.turn();
        num_waits += u64::from(num_tokens == 0 && num_under_way == 1);
        if rig.engine.scheduler.num_preemptions_total() > before {
            assert_eq!((num_under_way, num_carried), (0, 0));
        }
    }
    assert!(rig.engine.scheduler.num_preemptions_total() >= 2);
    assert!(num_waits >= 2);
    for (token, events) in &mut asked {
        assert_eq!(end_of(events).tokens, solo_answer(&[*token; 4], 17, 1));
    }
}

/// Penalties look at the last token: such a sequence has a part in every other step beside others, and
/// alone is computed step by step.
#[test]
fn penalties_wait_for_the_last_token() {
    let mut rig = rig(limits());
    let mut asked = request(&[1, 2], 4);
    asked.sampling = Arc::new(Sampling {
        presence_penalty: 1.0,
        ..Sampling::GREEDY
    });
    let mut penalised = rig.ask(asked);
    let mut other = rig.ask(request(&[3, 4], 4));
    let turns: Vec<_> = (0..4).map(|_| rig.turn()).collect();
    assert_eq!(turns, [(4, 0), (1, 1), (2, 1), (1, 1)]);
    rig.finish();
    assert_eq!(end_of(&mut penalised).tokens, solo_answer(&[1, 2], 4, 1));
    assert_eq!(end_of(&mut other).tokens, solo_answer(&[3, 4], 4, 1));
}

/// Guesses are made from the last token: with speculation there is one step at a time.
#[test]
fn speculation_makes_one_step_at_a_time() {
    let limits = Limits {
        max_draft_tokens: 4,
        ..limits()
    };
    let mut rig = rig(limits);
    let mut events = rig.ask(request(&[1, 2, 3], 40));
    while rig.engine.has_work() {
        assert_eq!(rig.turn().1, 0);
        assert_eq!(rig.num_under_way(), 0);
    }
    let end = end_of(&mut events);
    assert_eq!(end.tokens, solo_answer(&[1, 2, 3], 40, 1));
    assert!(end.counts.num_accepted_draft_tokens > 0);
}

/// A head is found once the step that computed it was collected, not before.
#[test]
fn a_prefix_is_published_when_its_step_is_over() {
    let mut rig = rig(limits());
    let mut first = rig.ask(request(&[6; 9], 2));
    assert_eq!(rig.turn(), (9, 0));
    let mut second = rig.ask(request(&[6; 9], 2));
    assert_eq!(rig.turn(), (1, 1), "the second waits for what is under way");
    assert_eq!(rig.turn(), (1, 0), "and computes the rest");
    rig.finish();
    let ends = [end_of(&mut first), end_of(&mut second)];
    let answer = solo_answer(&[6; 9], 2, 1);
    assert!(ends.iter().all(|end| end.tokens == answer));
    assert_eq!(ends.map(|end| end.counts.num_cached_tokens), [0, 8]);
}

/// What a step was to compute is not found after it has failed, also if the step before it was collected
/// while it was under way.
#[test]
fn a_failed_step_publishes_nothing() {
    let mut runner = runner(limits());
    runner.failing_steps = vec![2];
    let mut rig = Rig::new(runner, limits());
    let prompt: Vec<u32> = (0..45).collect();
    let mut lost = rig.ask(request(&prompt, 2));
    assert_eq!(rig.turn(), (32, 0));
    assert_eq!(rig.turn(), (13, 0));
    rig.finish();
    assert!(is_failed(&mut lost));
    let mut again = rig.ask(request(&prompt, 2));
    rig.finish();
    let end = end_of(&mut again);
    assert_eq!(end.tokens, solo_answer(&prompt, 2, 1));
    assert_eq!(end.counts.num_cached_tokens, 32);
}

#[derive(Clone, Copy)]
enum Arrival {
    /// Many are under way together.
    Crowd,
    /// Each comes when the one before has ended.
    OneByOne,
}

/// What random requests are told at either depth.
fn answers(seed: u64, arrival: Arrival, max_steps_in_flight: usize) -> Vec<Finished> {
    let limits = Limits {
        num_blocks: 2000,
        ..limits()
    };
    let mut runner = runner(limits);
    runner.max_steps_in_flight = max_steps_in_flight;
    let mut rig = Rig::new(runner, limits);
    let mut rolls = 0;
    let mut roll = |sides: u64| {
        rolls += 1;
        (sampler::mix(sampler::mix(seed) ^ rolls) % sides) as u32
    };
    let mut asked = Vec::new();
    for _ in 0..20 {
        let (head, len) = (roll(3), 2 + roll(40));
        let mut prompt: Vec<_> = (0..len).map(|place| head + place % 7).collect();
        prompt.push(roll(97));
        let mut request = request(&prompt, 1 + roll(30));
        if roll(4) == 0 {
            request.task = Task::Score {
                from: 1 + roll(u64::from(len)),
            };
        }
        request.num_candidates = (roll(2) == 0).then_some(1);
        request.sampling = Arc::new(Sampling {
            presence_penalty: roll(2) as f32,
            ..Sampling::GREEDY
        });
        request.stopping = Arc::new(Stopping {
            token_ids: (0..3).map(|_| roll(97)).collect(),
            min_tokens: 0,
        });
        asked.push(rig.ask(request));
        match arrival {
            Arrival::Crowd if roll(2) == 0 => drop(rig.turn()),
            Arrival::Crowd => {}
            Arrival::OneByOne => rig.finish(),
        }
    }
    rig.finish();
    asked.iter_mut().map(end_of).collect()
}

/// The same tokens, log probabilities, reasons and counts, whether one step ahead or not.
#[test]
fn answers_do_not_depend_on_the_depth() {
    let mut reasons = HashSet::new();
    let mut num_cached = 0;
    for seed in 0..200 {
        let plain = answers(seed, Arrival::OneByOne, 1);
        assert_eq!(plain, answers(seed, Arrival::OneByOne, 2), "seed {seed}");
        reasons.extend(plain.iter().map(|end| format!("{:?}", end.reason)));
        let counts = plain.iter().map(|end| end.counts.num_cached_tokens);
        num_cached += counts.sum::<u32>();
    }
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(num_cached > 10_000);
}

/// Nor in a crowd. How much of a prompt was found computed may: who overtakes whom while a head is being
/// computed is a matter of steps.
#[test]
fn answers_in_a_crowd_do_not_depend_on_the_depth() {
    let told = |seed, depth| {
        let mut ends = answers(seed, Arrival::Crowd, depth);
        for end in &mut ends {
            end.counts.num_cached_tokens = 0;
        }
        ends
    };
    for seed in 0..200 {
        assert_eq!(told(seed, 1), told(seed, 2), "seed {seed}");
    }
}
