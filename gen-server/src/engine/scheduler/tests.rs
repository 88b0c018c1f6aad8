//! Histories as text: requests in, one line per step out. Every generated token is 7.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    sync::Arc,
};

use expect_test::{Expect, expect};

use super::*;
use crate::{
    engine::{
        batch::{Purpose, StepBatch},
        runner::Sampled,
    },
    request::{EngineRequest, Sampling, Stopping, Task, TokenLogprobs},
};

const CONTEXT: usize = 128;

fn limits(num_blocks: u32, block_size: usize, tokens: usize, seqs: usize) -> Limits {
    Limits {
        block_size,
        num_blocks,
        max_num_seqs: seqs,
        max_num_batched_tokens: tokens,
        max_draft_tokens: 0,
        prefix_cache: PrefixCache::Use,
    }
}

/// `script`: lines "step add name prompt_len max_tokens", with words as in [`request`] after it, or
/// "step cancel name" or "step close|open|version n". Runs until nothing is left.
fn check(limits: Limits, script: &str, expected: &Expect) {
    check_at_depth(1, limits, script, expected);
}

/// As [`check`], one step ahead: a line is what was decided, then who was found to end by the step
/// before.
fn check_ahead(limits: Limits, script: &str, expected: &Expect) {
    check_at_depth(2, limits, script, expected);
}

fn check_at_depth(max_under_way: usize, limits: Limits, script: &str, expected: &Expect) {
    let mut history = History::new(max_under_way, limits);
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

/// A prompt of its own, but for "head=n": its first n tokens are those of all others with a head.
/// "priority=n", "score=from", "sevens" (a prompt of the token that is also the answer), "stop" (at the
/// first token) and "bypass" (the prefix cache) say what they say.
fn request(id: SequenceId, num_prompt: usize, max_tokens: u32, words: &[&str]) -> EngineRequest {
    let mut request = EngineRequest {
        prompt_ids: (0..num_prompt as u32)
            .map(|place| 1000 * (id.0 as u32 + 1) + place)
            .collect(),
        task: Task::Generate { max_tokens },
        sampling: Arc::new(Sampling::GREEDY),
        stopping: Arc::new(Stopping::default()),
        num_candidates: None,
        priority: 0,
        prefix_cache: PrefixCache::Use,
        tokens_per_event: 1,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "0")) {
            ("head", len) => {
                let head = request.prompt_ids.iter_mut().take(len.parse().unwrap());
                head.zip(100..).for_each(|(token, other)| *token = other);
            }
            ("priority", priority) => request.priority = priority.parse().unwrap(),
            ("score", from) => {
                let from = from.parse().unwrap();
                request.task = Task::Score { from };
            }
            ("sevens", _) => request.prompt_ids.fill(7),
            ("stop", _) => {
                request.stopping = Arc::new(Stopping {
                    token_ids: vec![7],
                    min_tokens: 0,
                });
            }
            ("bypass", _) => request.prefix_cache = PrefixCache::Bypass,
            other => panic!("no such word: {other:?}"),
        }
    }
    request
}

struct History {
    scheduler: Scheduler,
    max_under_way: usize,
    /// What the steps under way will come to, oldest first.
    under_way: VecDeque<Vec<Option<Sampled>>>,
    names: HashMap<SequenceId, String>,
    told: String,
}

impl History {
    fn new(max_under_way: usize, limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits, 1),
            max_under_way,
            under_way: VecDeque::new(),
            names: HashMap::new(),
            told: String::new(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.scheduler.is_in_the_middle() && self.scheduler.num_waiting() == 0
    }

    fn apply(&mut self, words: &[&str]) {
        match words {
            ["add", name, prompt, new, more @ ..] => {
                let id = SequenceId(self.names.len() as u64);
                let request = request(id, prompt.parse().unwrap(), new.parse().unwrap(), more);
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
            ["version", number] => self.scheduler.set_weights_version(number.parse().unwrap()),
            other => panic!("no such event: {other:?}"),
        }
    }

    fn step(&mut self, step: u32) {
        let num_preempted_before = self.scheduler.num_preemptions_total();
        let is_scheduled = self.scheduler.schedule();
        let mut parts: Vec<String> = self
            .scheduler
            .running()
            .iter()
            .filter(|sequence| sequence.num_scheduled_tokens > 0)
            .map(|sequence| self.told_share(sequence))
            .collect();
        if is_scheduled {
            let mut batch = StepBatch::default();
            self.scheduler.start_step(&mut batch);
            let rows = batch.rows.iter();
            let outcomes = rows.map(|row| Some(sampled(row.purpose)));
            self.under_way.push_back(outcomes.collect());
        }
        let mut progress = Vec::new();
        let may_run_ahead = is_scheduled && self.under_way.len() < self.max_under_way;
        if !may_run_ahead && let Some(mut outcomes) = self.under_way.pop_front() {
            self.scheduler.advance(&mut outcomes, &mut progress);
        }
        self.scheduler.assert_blocks_conserved();
        for each in progress {
            if let Progress::End { id, .. } = each {
                parts.push(format!("{} ends", self.names[&id]));
            }
        }
        let num_preempted = self.scheduler.num_preemptions_total() - num_preempted_before;
        if num_preempted > 0 {
            parts.push(format!("preempted {num_preempted}"));
        }
        if let Some(reason) = self.scheduler.wait_reason() {
            parts.push(format!("waits: {reason:?}"));
        }
        let free = self.scheduler.pool().num_free();
        writeln!(self.told, "{step:<2}  {:<64} free {free}", parts.join(", ")).unwrap();
    }

    fn told_share(&self, sequence: &Sequence) -> String {
        let name = &self.names[&sequence.id];
        let from = sequence.next_place();
        match (sequence.is_decoding(), sequence.drafts.len()) {
            (true, 0) => format!("{name} decode"),
            (true, guessed) => format!("{name} decode+{guessed}"),
            _ => format!(
                "{name} prefill {from}..{}",
                from + sequence.num_scheduled_tokens
            ),
        }
    }
}

fn sampled(purpose: Purpose) -> Sampled {
    match purpose {
        Purpose::Draw => Sampled {
            token: 7,
            logprobs: None,
        },
        Purpose::Score(token) => Sampled {
            token,
            logprobs: Some(TokenLogprobs {
                logprob: -1.0,
                rank: 1,
                candidates: Vec::new(),
            }),
        },
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
            0   a prefill 0..8, waits: Tokens                                    free 13
            1   a prefill 8..10, b prefill 0..2                                  free 12
            2   a decode, b decode, b ends                                       free 13
            3   a decode, a ends                                                 free 16
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
            0   a prefill 0..8, waits: Blocks                                    free 2
            1   a decode, a ends, waits: Blocks                                  free 4
            2   b prefill 0..12, c prefill 0..4, b ends, c ends                  free 4
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
            0   a prefill 0..4, b prefill 0..4                                   free 1
            1   a decode, preempted 1, waits: Blocks                             free 1
            2   a decode, waits: Blocks                                          free 1
            3   a decode, waits: Blocks                                          free 1
            4   a decode, waits: Blocks                                          free 1
            5   a decode, waits: Blocks                                          free 0
            6   a decode, a ends, waits: Blocks                                  free 3
            7   b prefill 0..5                                                   free 1
            8   b decode                                                         free 1
            9   b decode, b ends                                                 free 3
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
            0   a prefill 0..8, waits: Blocks                                    free 2
            1   a decode, waits: Blocks                                          free 1
            2   b prefill 0..16, b ends                                          free 4
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
            0   a prefill 0..2, b prefill 0..2, waits: Sequences                 free 14
            1   a decode, b decode, a ends, waits: Sequences                     free 15
            2   b decode, c prefill 0..2, b ends, c ends                         free 16
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
            0   a prefill 0..4, b prefill 0..4                                   free 1
            1   a decode, preempted 1, waits: Blocks                             free 1
            2   a decode, waits: Blocks                                          free 1
            3   a decode, waits: Blocks                                          free 1
            4   a decode, waits: Blocks                                          free 1
            5   a decode, a ends, waits: Blocks                                  free 3
            6   b prefill 0..5, waits: Swap                                      free 1
            7   b decode, waits: Swap                                            free 1
            8   b decode, b ends, waits: Swap                                    free 3
            9   waits: Swap                                                      free 3
            10  waits: Swap                                                      free 3
            11  waits: Swap                                                      free 3
            12  c prefill 0..1, c ends                                           free 3
        "]],
    );
}

/// Who comes second with the same head waits for the first to compute it, then reads it; another
/// prompt is not held up by that.
#[test]
fn a_shared_head_is_computed_once() {
    check(
        limits(16, 4, 32, 4),
        "0 add a 10 1 head=8
         0 add b 10 1 head=8
         0 add c 6 1",
        &expect![[r"
            0   a prefill 0..10, c prefill 0..6, a ends, c ends, waits: Prefix   free 16
            1   b prefill 8..10, b ends                                          free 16
        "]],
    );
}

/// The last token is always computed, and a request may ask for all of it.
#[test]
fn a_whole_prompt_never_comes_from_the_cache() {
    check(
        limits(16, 4, 32, 4),
        "0 add a 8 1 head=8
         1 add b 8 1 head=8
         2 add c 8 1 head=8 bypass",
        &expect![[r"
            0   a prefill 0..8, a ends                                           free 16
            1   b prefill 4..8, b ends                                           free 16
            2   c prefill 0..8, c ends                                           free 16
        "]],
    );
}

/// What was computed under other weights is not found.
#[test]
fn a_new_version_finds_nothing_of_the_old() {
    check(
        limits(16, 4, 32, 4),
        "0 add a 9 1 head=8
         1 version 2
         1 add b 9 1 head=8
         2 add c 9 1 head=8",
        &expect![[r"
            0   a prefill 0..9, a ends                                           free 16
            1   b prefill 0..9, b ends                                           free 16
            2   c prefill 8..9, c ends                                           free 16
        "]],
    );
}

/// Blocks without content are taken first, then the least recently used head.
#[test]
fn the_least_recently_used_head_is_forgotten() {
    check(
        limits(4, 4, 32, 4),
        "0 add a 5 1 head=4
         1 add b 9 1
         2 add c 5 1 head=4
         3 add d 13 1
         4 add e 5 1 head=4",
        &expect![[r"
            0   a prefill 0..5, a ends                                           free 4
            1   b prefill 0..9, b ends                                           free 4
            2   c prefill 4..5, c ends                                           free 4
            3   d prefill 0..13, d ends                                          free 4
            4   e prefill 0..5, e ends                                           free 4
        "]],
    );
}

/// One step of priority is worth a bounded number of arrivals: it decides among those that wait, and
/// a running sequence of low priority gives way first.
#[test]
fn priority_goes_first_and_is_preempted_last() {
    check(
        limits(3, 4, 32, 1),
        "0 add a 4 1
         0 add b 4 1
         0 add c 4 1 priority=-1",
        &expect![[r"
            0   c prefill 0..4, c ends, waits: Sequences                         free 3
            1   a prefill 0..4, a ends, waits: Sequences                         free 3
            2   b prefill 0..4, b ends                                           free 3
        "]],
    );
    check(
        limits(3, 4, 32, 4),
        "0 add a 4 4
         0 add b 4 7 priority=-1",
        &expect![[r"
            0   b prefill 0..4, a prefill 0..4                                   free 1
            1   b decode, preempted 1, waits: Blocks                             free 1
            2   b decode, waits: Blocks                                          free 1
            3   b decode, waits: Blocks                                          free 1
            4   b decode, waits: Blocks                                          free 1
            5   b decode, waits: Blocks                                          free 0
            6   b decode, b ends, waits: Blocks                                  free 3
            7   a prefill 0..5                                                   free 1
            8   a decode                                                         free 1
            9   a decode, a ends                                                 free 3
        "]],
    );
}

/// Guesses that are right make several tokens of one step; they stop at the end of the answer.
#[test]
fn right_guesses_are_several_tokens_a_step() {
    let limits = Limits {
        max_draft_tokens: 3,
        ..limits(16, 4, 32, 4)
    };
    check(
        limits,
        "0 add a 6 9 sevens",
        &expect![[r"
            0   a prefill 0..6                                                   free 14
            1   a decode+3                                                       free 13
            2   a decode+3, a ends                                               free 16
        "]],
    );
}

/// A score computes its prompt but for the last token, and ends; what comes before the first scored
/// token may come from the cache.
#[test]
fn scores_are_prefills_without_an_answer() {
    check(
        limits(16, 4, 32, 4),
        "0 add a 9 0 head=8 score=1
         1 add b 9 0 head=8 score=6",
        &expect![[r"
            0   a prefill 0..8, a ends                                           free 16
            1   b prefill 4..8, b ends                                           free 16
        "]],
    );
}

/// A score's rows of logits are bounded; the rest follows in the next steps.
#[test]
fn scores_are_cut_where_logits_run_out() {
    check(
        limits(32, 4, 128, 1),
        "0 add a 128 0 score=20",
        &expect![[r"
            0   a prefill 0..83                                                  free 0
            1   a prefill 83..127, a ends                                        free 32
        "]],
    );
}

/// One step ahead the length of an answer is known, and a step is decided for nobody after it.
#[test]
fn one_step_ahead_ends_by_length_are_foreseen() {
    check_ahead(
        limits(16, 4, 8, 4),
        "0 add a 10 3
         0 add b 2 2",
        &expect![[r"
            0   a prefill 0..8, waits: Tokens                                    free 13
            1   a prefill 8..10, b prefill 0..2                                  free 12
            2   a decode, b decode                                               free 12
            3   a decode, b ends                                                 free 13
            4   a ends                                                           free 16
        "]],
    );
}

/// A stop token is not foreseen: the step after it is under way when it is seen, and its blocks go to
/// who waits for them.
#[test]
fn one_step_ahead_a_stop_token_is_seen_late() {
    check_ahead(
        limits(2, 4, 8, 4),
        "0 add a 4 4 stop
         0 add b 8 1",
        &expect![[r"
            0   a prefill 0..4, waits: Blocks                                    free 1
            1   a decode, a ends, waits: Blocks                                  free 2
            2   b prefill 0..8                                                   free 0
            3   b ends                                                           free 2
        "]],
    );
}

/// One step ahead, too, the newest gives way when blocks run out, once nothing is under way.
#[test]
fn one_step_ahead_a_preemption_waits() {
    check_ahead(
        limits(3, 4, 32, 4),
        "0 add a 4 7
         0 add b 4 4",
        &expect![[r"
            0   a prefill 0..4, b prefill 0..4                                   free 1
            1                                                                    free 1
            2   a decode, preempted 1, waits: Blocks                             free 1
            3   a decode, waits: Blocks                                          free 1
            4   a decode, waits: Blocks                                          free 1
            5   a decode, waits: Blocks                                          free 1
            6   a decode, waits: Blocks                                          free 0
            7   a decode, waits: Blocks                                          free 0
            8   a ends, waits: Blocks                                            free 3
            9   b prefill 0..5                                                   free 1
            10  b decode                                                         free 1
            11  b decode                                                         free 1
            12  b ends                                                           free 3
        "]],
    );
}
