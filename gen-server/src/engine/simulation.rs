//! Whole histories of the engine from seeds: random limits, arrivals, lengths, cancels, failing steps
//! and swaps, without threads, clocks or tensors. After every step blocks add up; at the end every
//! request has had exactly one terminal event, and each answer is what the request alone would get
//! under the one version that it names.

use std::sync::{
    Arc,
    mpsc::{SyncSender, sync_channel},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{fake::FakeRunner, *};
use crate::request::{Event, Sampling};

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
    prompt: Vec<u32>,
    max_tokens: usize,
    stop_token: Option<u32>,
    /// `None` once cancelled.
    events: Option<mpsc::Receiver<Event>>,
}

struct World {
    dice: Dice,
    engine: Engine,
    commands: SyncSender<Command>,
    max_context_tokens: usize,
    asked: Vec<Asked>,
    swaps: Vec<oneshot::Receiver<Arc<WeightsVersion>>>,
    num_failing_steps: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice { seed, rolls: 0 };
        let block_size = 1 + dice.roll(6) as usize;
        let num_blocks = 4 + dice.roll(60) as u32;
        let max_num_seqs = 1 + dice.roll(12) as usize;
        let limits = Limits {
            block_size,
            num_blocks,
            max_num_seqs,
            max_num_batched_tokens: max_num_seqs + dice.roll(24) as usize,
        };
        let max_context_tokens = (num_blocks as usize * block_size).min(48);
        let mut runner = FakeRunner::new(num_blocks, block_size, 1);
        if dice.roll(4) == 0 {
            runner.failing_steps = (0..3).map(|_| 1 + dice.roll(200)).collect();
        }
        let num_failing_steps = runner.failing_steps.len();
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
        let (asked, swaps) = (Vec::new(), Vec::new());
        Self {
            dice,
            engine,
            commands,
            max_context_tokens,
            asked,
            swaps,
            num_failing_steps,
        }
    }

    fn ask(&mut self) {
        let most = self.max_context_tokens as u64 - 1;
        let num_prompt_tokens = 1 + self.dice.roll(most) as usize;
        let prompt: Vec<u32> = (0..num_prompt_tokens)
            .map(|_| self.dice.roll(97) as u32)
            .collect();
        let room = self.max_context_tokens - num_prompt_tokens;
        let max_tokens = 1 + self.dice.roll(room as u64) as usize;
        let stop_token = (self.dice.roll(3) == 0).then(|| self.dice.roll(97) as u32);
        let request = EngineRequest {
            prompt_ids: prompt.clone(),
            max_tokens: max_tokens as u32,
            sampling: Sampling::GREEDY,
            stop_token_ids: stop_token.into_iter().collect(),
            tokens_per_event: 1 + self.dice.roll(5) as u32,
        };
        let (output, events) = Output::channel(&request);
        self.commands
            .try_send(Command::Submit(Submission { request, output }))
            .unwrap();
        self.asked.push(Asked {
            prompt,
            max_tokens,
            stop_token,
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
        match self.dice.roll(8) {
            0..3 => self.ask(),
            3 if !self.asked.is_empty() => {
                let index = self.dice.roll(self.asked.len() as u64) as usize;
                self.asked[index].events = None;
            }
            4 if self.engine.pending_swap.is_none() && self.dice.roll(20) == 0 => self.swap(),
            _ => {}
        }
        self.step();
    }

    fn step(&mut self) {
        if self.engine.has_work() || self.dice.roll(2) == 0 {
            while let Ok(command) = self.engine.commands.try_recv() {
                self.engine.take(command);
            }
            self.engine.step();
        }
        self.engine.scheduler.assert_blocks_conserved();
    }

    /// Everything ends within a bounded number of steps, and as it should.
    fn finish(mut self) -> Tally {
        let mut num_steps = 0;
        self.step();
        while self.engine.has_work() {
            self.step();
            num_steps += 1;
            assert!(num_steps < 200_000, "the engine makes no progress");
        }
        assert_eq!(self.engine.scheduler.pool().num_used(), 0);
        let mut tally = Tally {
            num_preemptions: self.engine.scheduler.num_preemptions_total(),
            num_swaps: self.swaps.len(),
            ..Tally::default()
        };
        for mut asked in self.asked {
            let Some(events) = asked.events.take() else {
                tally.num_cancelled += 1;
                continue;
            };
            let is_answered = check_answer(&asked, events);
            tally.num_answered += usize::from(is_answered);
            tally.num_failed += usize::from(!is_answered);
        }
        assert!(tally.num_failed == 0 || self.num_failing_steps > 0);
        for mut swap in self.swaps {
            swap.try_recv()
                .expect("a swap that was asked for is committed");
        }
        tally
    }
}

/// What happened in a history: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default)]
#[expect(clippy::struct_field_names, reason = "counts are named num_")]
struct Tally {
    num_answered: usize,
    num_failed: usize,
    num_cancelled: usize,
    num_swaps: usize,
    num_preemptions: u64,
}

/// False if the request was failed by a failing step.
fn check_answer(asked: &Asked, mut events: mpsc::Receiver<Event>) -> bool {
    let mut answer = Vec::new();
    let mut end = None;
    while let Ok(event) = events.try_recv() {
        assert!(end.is_none(), "nothing comes after the end");
        match event {
            Event::Tokens { tokens, .. } => answer.extend(tokens),
            Event::Finished(finished) => {
                answer.extend(&finished.tokens);
                end = Some(Some(finished));
            }
            Event::Failed(_) => end = Some(None),
        }
    }
    let Some(finished) = end.expect("every request ends") else {
        return false;
    };
    let mut expected = fake::solo_answer(&asked.prompt, asked.max_tokens, finished.weights.number);
    if let Some(at) = expected
        .iter()
        .position(|token| Some(*token) == asked.stop_token)
    {
        expected.truncate(at + 1);
    }
    assert_eq!(
        answer, expected,
        "under version {}",
        finished.weights.number
    );
    true
}

/// 60 worlds of 1,000 turns each, in which everything happens many times.
#[test]
fn every_history_keeps_the_promises() {
    let mut all = Tally::default();
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..1_000 {
                world.turn();
            }
            world.finish()
        });
        let tally = result.unwrap_or_else(|_| panic!("seed {seed}: see the panic above"));
        all.num_answered += tally.num_answered;
        all.num_failed += tally.num_failed;
        all.num_cancelled += tally.num_cancelled;
        all.num_swaps += tally.num_swaps;
        all.num_preemptions += tally.num_preemptions;
    }
    assert!(all.num_answered > 10_000, "{all:?}");
    assert!(all.num_failed > 20, "{all:?}");
    assert!(all.num_cancelled > 1_000, "{all:?}");
    assert!(all.num_swaps > 100, "{all:?}");
    assert!(all.num_preemptions > 1_000, "{all:?}");
}
