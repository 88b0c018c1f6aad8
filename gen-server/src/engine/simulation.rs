//! Whole histories of the engine from seeds: random limits, arrivals, lengths, shared heads,
//! priorities, scores, cancels, deadlines, failing steps and swaps, without threads, clocks or tensors,
//! step by step and one step ahead.
//! After every step blocks add up and limits hold; at the end every request has had exactly one
//! terminal event, and each answer is what the request alone would get under the one version that it
//! names.

mod oracle;

use std::sync::{
    Arc,
    mpsc::{SyncSender, sync_channel},
};

use tokio::sync::{mpsc, oneshot, watch};

use self::oracle::{Tally, check_answer};
use super::{fake::FakeRunner, *};
use crate::request::{Event, FinishReason, PrefixCache, Sampling, Stopping, Task};

/// Steps that all worlds of one depth make together, at least.
const MIN_NUM_STEPS: u64 = 1_000_000;
const NUM_WORLDS: u64 = 256;
const TURNS_PER_WORLD: u64 = 4_000;

/// Random numbers of one history.
struct Dice {
    seed: u64,
    rolls: u64,
}

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.rolls += 1;
        sampler::mix(sampler::mix(self.seed) ^ self.rolls) % sides
    }
}

struct Asked {
    request: EngineRequest,
    /// The turn at which the caller's patience ends.
    deadline: Option<u64>,
    /// `None` once cancelled.
    events: Option<mpsc::Receiver<Event>>,
}

struct World {
    dice: Dice,
    engine: Engine,
    limits: Limits,
    commands: SyncSender<Command>,
    max_context_tokens: usize,
    turn: u64,
    /// Not yet ended, as far as the world has looked.
    asked: Vec<Asked>,
    swaps: Vec<oneshot::Receiver<Arc<WeightsVersion>>>,
    num_failing_steps: usize,
    tally: Tally,
}

impl World {
    fn new(seed: u64, max_steps_in_flight: usize) -> Self {
        let mut dice = Dice { seed, rolls: 0 };
        let block_size = 1 + dice.roll(6) as usize;
        let num_blocks = 4 + dice.roll(60) as u32;
        let max_num_seqs = 1 + dice.roll(12) as usize;
        let limits = Limits {
            block_size,
            num_blocks,
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + dice.roll(24) as usize,
            max_draft_tokens: dice.roll(2) as usize * dice.roll(6) as usize,
            prefix_cache: [PrefixCache::Use, PrefixCache::Use, PrefixCache::Bypass]
                [dice.roll(3) as usize],
        };
        let max_context_tokens = (num_blocks as usize * block_size).min(48);
        let mut runner = FakeRunner::new(num_blocks, block_size, 1);
        runner.max_steps_in_flight = max_steps_in_flight;
        let num_failing_steps = if dice.roll(4) == 0 { 3 } else { 0 };
        for steps in [
            &mut runner.failing_steps,
            &mut runner.refused_steps,
            &mut runner.not_finite_steps,
        ] {
            steps.extend((0..num_failing_steps).map(|_| 1 + dice.roll(200)));
        }
        let (commands, receiver) = sync_channel(1024);
        let first = WeightsVersion {
            number: 1,
            digest: "1".into(),
            checkpoint: "base".into(),
        };
        let engine = Engine::new(Parts {
            runner: Box::new(runner),
            limits,
            max_context_tokens,
            commands: receiver,
            live_weights: watch::channel(Arc::new(first)).0,
            gauges: Arc::new(Gauges::default()),
        });
        Self {
            dice,
            engine,
            limits,
            commands,
            max_context_tokens,
            turn: 0,
            asked: Vec::new(),
            swaps: Vec::new(),
            num_failing_steps,
            tally: Tally::default(),
        }
    }

    /// Often one of three heads, then tokens of its own.
    fn prompt(&mut self) -> Vec<u32> {
        let most = self.max_context_tokens as u64 - 1;
        let num_tokens = 1 + self.dice.roll(most) as usize;
        let head = self.dice.roll(5) as u32;
        let num_head_tokens = if head < 3 {
            self.dice.roll(30) as usize
        } else {
            0
        };
        (0..num_tokens)
            .map(|place| {
                if place < num_head_tokens {
                    head + place as u32 % 7
                } else {
                    self.dice.roll(97) as u32
                }
            })
            .collect()
    }

    fn request(&mut self) -> EngineRequest {
        let prompt_ids = self.prompt();
        let num_prompt_tokens = prompt_ids.len() as u64;
        let task = if num_prompt_tokens > 1 && self.dice.roll(5) == 0 {
            Task::Score {
                from: 1 + self.dice.roll(num_prompt_tokens - 1) as u32,
            }
        } else {
            let room = self.max_context_tokens as u64 - num_prompt_tokens;
            Task::Generate {
                max_tokens: 1 + self.dice.roll(room) as u32,
            }
        };
        let stop_token = (self.dice.roll(3) == 0).then(|| self.dice.roll(97) as u32);
        EngineRequest {
            prompt_ids,
            task,
            sampling: Arc::new(Sampling {
                // The fake draws as it likes, but checks the history that penalties would see.
                presence_penalty: self.dice.roll(2) as f32,
                ..Sampling::GREEDY
            }),
            stopping: Arc::new(Stopping {
                token_ids: stop_token.into_iter().collect(),
                min_tokens: 0,
            }),
            num_candidates: (self.dice.roll(4) == 0).then(|| self.dice.roll(3) as u32),
            priority: if self.dice.roll(4) == 0 {
                self.dice.roll(7) as i32 - 3
            } else {
                0
            },
            prefix_cache: if self.dice.roll(8) == 0 {
                PrefixCache::Bypass
            } else {
                PrefixCache::Use
            },
            tokens_per_event: 1 + self.dice.roll(5) as u32,
        }
    }

    fn ask(&mut self) {
        let request = self.request();
        let (output, events) = Output::channel(&request);
        self.commands
            .try_send(Command::Submit(Submission {
                request: request.clone(),
                output,
            }))
            .unwrap();
        let deadline = (self.dice.roll(6) == 0).then(|| self.turn + self.dice.roll(60));
        self.asked.push(Asked {
            request,
            deadline,
            events: Some(events),
        });
    }

    fn swap(&mut self) {
        let number = self.swaps.len() as u64 + 2;
        let (committed, receiver) = oneshot::channel();
        self.commands
            .try_send(Command::Swap(Swap {
                weights: StagedWeights(Box::new(number)),
                digest: number.to_string(),
                checkpoint: format!("epoch_{number}"),
                committed,
            }))
            .unwrap();
        self.swaps.push(receiver);
    }

    /// One turn: something may arrive or leave, then the engine makes a step.
    fn turn(&mut self) {
        self.turn += 1;
        match self.dice.roll(8) {
            0..2 => self.ask(),
            2 if self.dice.roll(30) == 0 => (0..20).for_each(|_| self.ask()),
            3 if !self.asked.is_empty() => {
                let index = self.dice.roll(self.asked.len() as u64) as usize;
                self.asked[index].events = None;
            }
            4 if self.is_swap_committed() && self.dice.roll(20) == 0 => self.swap(),
            _ => {}
        }
        for asked in &mut self.asked {
            if asked.deadline.is_some_and(|deadline| deadline <= self.turn) {
                self.tally.num_deadlines += u64::from(asked.events.is_some());
                asked.events = None;
            }
        }
        self.step();
        if self.turn.is_multiple_of(64) {
            self.look_at_answers();
        }
    }

    /// Whether the last swap that was asked for, if any, is live: they come one at a time.
    fn is_swap_committed(&self) -> bool {
        self.engine.live_weights.borrow().number == self.swaps.len() as u64 + 1
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.engine.commands.try_recv() {
            self.engine.take(command);
        }
    }

    fn step(&mut self) {
        if self.engine.has_work() || self.dice.roll(2) == 0 {
            self.take_commands();
            self.engine.batch.clear();
            self.engine.step();
            self.tally.num_carried_tokens += self.engine.batch.carried.len() as u64;
            let batch = &self.engine.batch;
            assert!(batch.token_ids.len() <= self.limits.max_num_batched_tokens);
            assert!(batch.sequences.len() <= self.limits.max_num_seqs);
            assert!(batch.rows.len() <= self.limits.max_logits_rows());
        }
        self.engine.scheduler.assert_blocks_conserved();
    }

    /// Takes those that have ended off the list, and checks what they got.
    fn look_at_answers(&mut self) {
        let num_may_fail = self.num_failing_steps;
        let tally = &mut self.tally;
        self.asked.retain_mut(|asked| {
            let Some(events) = &mut asked.events else {
                tally.num_cancelled += 1;
                return false;
            };
            if !events.is_closed() {
                return true;
            }
            let reason = check_answer(&asked.request, events);
            tally.num_answered += u64::from(reason.is_some());
            tally.num_stopped += u64::from(reason == Some(FinishReason::Stop));
            tally.num_failed += u64::from(reason.is_none());
            assert!(reason.is_some() || num_may_fail > 0);
            false
        });
    }

    /// Everything ends within a bounded number of steps, and as it should.
    fn finish(mut self) -> Tally {
        let mut num_steps = 0;
        self.take_commands();
        while self.engine.has_work() {
            self.step();
            num_steps += 1;
            assert!(num_steps < 200_000, "the engine makes no progress");
        }
        assert_eq!(self.engine.scheduler.num_steps_under_way(), 0);
        assert_eq!(self.engine.scheduler.pool().num_used(), 0);
        self.look_at_answers();
        assert!(self.asked.is_empty(), "every request ends");
        let num_swaps = self.swaps.len() as u64;
        for mut swap in self.swaps {
            swap.try_recv()
                .expect("a swap that was asked for is committed");
        }
        let totals = self.engine.gauges.totals();
        Tally {
            num_steps: self.engine.num_steps,
            num_swaps,
            num_preemptions: self.engine.scheduler.num_preemptions_total(),
            num_cached_tokens: totals.num_cached_tokens,
            num_accepted_draft_tokens: totals.num_accepted_draft_tokens,
            ..self.tally
        }
    }
}

fn live_through(seed: u64, max_steps_in_flight: usize) -> Tally {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(seed, max_steps_in_flight);
        for _ in 0..TURNS_PER_WORLD {
            world.turn();
        }
        world.finish()
    });
    result.unwrap_or_else(|_| panic!("seed {seed}: see the panic above"))
}

/// A million steps of worlds in which everything happens many times.
fn live_through_all(max_steps_in_flight: usize) -> Tally {
    let num_threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let tallies = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..num_threads)
            .map(|worker| {
                let seeds = (worker..NUM_WORLDS).step_by(num_threads as usize);
                let live = move |seed| live_through(seed, max_steps_in_flight);
                scope.spawn(move || seeds.map(live).collect::<Vec<_>>())
            })
            .collect();
        let results = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        results.flat_map(Result::unwrap).collect::<Vec<_>>()
    });
    let mut all = Tally::default();
    for tally in tallies {
        all.add(tally);
    }
    assert!(all.num_steps >= MIN_NUM_STEPS, "{all:?}");
    assert!(all.num_answered > 100_000, "{all:?}");
    assert!(all.num_failed > 100, "{all:?}");
    assert!(all.num_cancelled > 10_000, "{all:?}");
    assert!(all.num_deadlines > 1_000, "{all:?}");
    assert!(all.num_swaps > 1_000, "{all:?}");
    assert!(all.num_preemptions > 10_000, "{all:?}");
    assert!(all.num_cached_tokens > 100_000, "{all:?}");
    assert!(all.num_accepted_draft_tokens > 10_000, "{all:?}");
    assert!(all.num_stopped > 1_000, "{all:?}");
    all
}

/// Step by step.
#[test]
fn every_history_keeps_the_promises() {
    let all = live_through_all(1);
    assert_eq!(all.num_carried_tokens, 0, "{all:?}");
}

/// The same worlds, one step ahead.
#[test]
fn every_history_keeps_the_promises_one_step_ahead() {
    let all = live_through_all(2);
    assert!(all.num_carried_tokens > 200_000, "{all:?}");
}
