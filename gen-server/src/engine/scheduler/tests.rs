//! Histories as text: requests in, one line per step out. Every generated token is 7.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use expect_test::{Expect, expect};

use super::*;
use crate::request::{EngineRequest, Sampling};

const CONTEXT: usize = 64;

fn limits(num_blocks: u32, block_size: usize, tokens: usize, seqs: usize) -> Limits {
    Limits {
        block_size,
        num_blocks,
        max_num_seqs: seqs,
        max_num_batched_tokens: tokens,
    }
}

/// `script`: lines "step add name prompt_len max_tokens" or "step cancel name" or "step close|open".
/// Runs until nothing is left.
fn check(limits: Limits, script: &str, expected: &Expect) {
    let mut history = History::new(limits);
    let lines: Vec<Vec<&str>> = script
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for step in 0..200 {
        for words in lines
            .iter()
            .filter(|words| words.first() == Some(&&*step.to_string()))
        {
            history.apply(&words[1..]);
        }
        let is_over = lines
            .iter()
            .filter_map(|words| words.first()?.parse::<u32>().ok())
            .all(|at| at <= step);
        if is_over && history.is_empty() {
            break;
        }
        history.step(step);
    }
    expected.assert_eq(&history.told);
}

struct History {
    scheduler: Scheduler,
    names: HashMap<SequenceId, String>,
    told: String,
}

impl History {
    fn new(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            names: HashMap::new(),
            told: String::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.scheduler.running().is_empty() && self.scheduler.num_waiting() == 0
    }

    fn apply(&mut self, words: &[&str]) {
        match words {
            ["add", name, prompt, new] => {
                let id = SequenceId(self.names.len() as u64);
                let request = EngineRequest {
                    prompt_ids: vec![1; prompt.parse().unwrap()],
                    max_tokens: new.parse().unwrap(),
                    sampling: Sampling::GREEDY,
                    stop_token_ids: Arc::new([]),
                    tokens_per_event: 1,
                };
                self.names.insert(id, (*name).to_owned());
                self.scheduler.add(Sequence::new(id, request, CONTEXT));
            }
            ["cancel", name] => {
                let names = &self.names;
                self.scheduler.remove_running(|id| names[&id] == *name);
                self.scheduler.remove_waiting(|id| names[&id] == *name);
            }
            ["close"] => self.scheduler.set_admission(Admission::OnlyReadmission),
            ["open"] => self.scheduler.set_admission(Admission::Open),
            other => panic!("no such event: {other:?}"),
        }
    }

    fn step(&mut self, step: u32) {
        let num_preempted_before = self.scheduler.num_preemptions_total();
        let chunks = self.scheduler.schedule().to_vec();
        let mut parts = Vec::new();
        for chunk in chunks {
            let sequence = &self.scheduler.running()[chunk.index];
            let name = &self.names[&sequence.id];
            let from = sequence.num_computed_tokens;
            parts.push(if sequence.is_decoding() {
                format!("{name} decode")
            } else {
                format!("{name} prefill {from}..{}", from + chunk.num_tokens)
            });
        }
        let samples = vec![Some(7); self.scheduler.sampled_ids().count()];
        let (mut ends, mut failed) = (Vec::new(), Vec::new());
        self.scheduler.advance(&samples, &mut ends, &mut failed);
        self.scheduler.assert_blocks_conserved();
        for end in ends {
            parts.push(format!("{} ends", self.names[&end.id]));
        }
        let num_preempted = self.scheduler.num_preemptions_total() - num_preempted_before;
        if num_preempted > 0 {
            parts.push(format!("preempted {num_preempted}"));
        }
        let free = self.scheduler.pool().num_free();
        writeln!(self.told, "{step:<2}  {:<48}free {free}", parts.join(", ")).unwrap();
    }
}

/// A long prompt is computed in chunks of the budget; a short one takes what is left of it; answers
/// and prompts share steps.
#[test]
fn prefills_are_chunked_and_share_steps() {
    check(
        limits(16, 4, 8, 4),
        "0 add a 10 3
         0 add b 2 2",
        &expect![[r"
            0   a prefill 0..8                                  free 13
            1   a prefill 8..10, b prefill 0..2                 free 12
            2   a decode, b decode, b ends                      free 13
            3   a decode, a ends                                free 16
        "]],
    );
}

/// A request is admitted only if its whole prompt fits, and nobody overtakes it.
#[test]
fn admission_needs_room_for_the_whole_prompt_in_order() {
    check(
        limits(4, 4, 32, 4),
        "0 add a 8 2
         0 add b 12 1
         0 add c 4 1",
        &expect![[r"
            0   a prefill 0..8                                  free 2
            1   a decode, a ends                                free 4
            2   b prefill 0..12, c prefill 0..4, b ends, c ends free 4
        "]],
    );
}

/// When blocks run out the newest gives way, is computed again and ends all the same.
#[test]
fn the_newest_is_preempted_and_recomputed() {
    check(
        limits(3, 4, 32, 4),
        "0 add a 4 7
         0 add b 4 4",
        &expect![[r"
            0   a prefill 0..4, b prefill 0..4                  free 1
            1   a decode, preempted 1                           free 1
            2   a decode                                        free 1
            3   a decode                                        free 1
            4   a decode                                        free 1
            5   a decode                                        free 0
            6   a decode, a ends                                free 3
            7   b prefill 0..5                                  free 1
            8   b decode                                        free 1
            9   b decode, b ends                                free 3
        "]],
    );
}

/// A cancelled sequence's blocks are free at the next step.
#[test]
fn cancel_frees_blocks() {
    check(
        limits(4, 4, 32, 4),
        "0 add a 8 20
         0 add b 16 1
         2 cancel a",
        &expect![[r"
            0   a prefill 0..8                                  free 2
            1   a decode                                        free 1
            2   b prefill 0..16, b ends                         free 4
        "]],
    );
}

/// No more sequences than max_num_seqs run at once.
#[test]
fn num_seqs_is_limited() {
    check(
        limits(16, 4, 32, 2),
        "0 add a 2 2
         0 add b 2 3
         0 add c 2 1",
        &expect![[r"
            0   a prefill 0..2, b prefill 0..2                  free 14
            1   a decode, b decode, a ends                      free 15
            2   b decode, c prefill 0..2, b ends, c ends        free 16
        "]],
    );
}

/// While a swap is due nothing new starts, but what was preempted comes back and ends.
#[test]
fn only_readmission_before_a_swap() {
    check(
        limits(3, 4, 32, 4),
        "0 add a 4 6
         0 add b 4 4
         1 close
         1 add c 1 1
         12 open",
        &expect![[r"
            0   a prefill 0..4, b prefill 0..4                  free 1
            1   a decode, preempted 1                           free 1
            2   a decode                                        free 1
            3   a decode                                        free 1
            4   a decode                                        free 1
            5   a decode, a ends                                free 3
            6   b prefill 0..5                                  free 1
            7   b decode                                        free 1
            8   b decode, b ends                                free 3
            9                                                   free 3
            10                                                  free 3
            11                                                  free 3
            12  c prefill 0..1, c ends                          free 3
        "]],
    );
}
