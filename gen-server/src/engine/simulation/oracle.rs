//! What every history must come to: each answer is the one that its request alone would get, and
//! enough has happened to prove something.

use tokio::sync::mpsc;

use crate::{
    engine::fake,
    request::{EngineRequest, Event, Finished, PrefixCache, Task},
};

/// What happened in a history: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "counts are named num_")]
pub(super) struct Tally {
    pub num_steps: u64,
    pub num_answered: u64,
    pub num_failed: u64,
    pub num_cancelled: u64,
    pub num_deadlines: u64,
    pub num_swaps: u64,
    pub num_preemptions: u64,
    pub num_cached_tokens: u64,
    pub num_accepted_draft_tokens: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.num_steps += other.num_steps;
        self.num_answered += other.num_answered;
        self.num_failed += other.num_failed;
        self.num_cancelled += other.num_cancelled;
        self.num_deadlines += other.num_deadlines;
        self.num_swaps += other.num_swaps;
        self.num_preemptions += other.num_preemptions;
        self.num_cached_tokens += other.num_cached_tokens;
        self.num_accepted_draft_tokens += other.num_accepted_draft_tokens;
    }
}

/// False if the request was failed by a failing step.
pub(super) fn check_answer(request: &EngineRequest, events: &mut mpsc::Receiver<Event>) -> bool {
    let (mut answer, mut told) = (Vec::new(), Vec::new());
    let mut end = None;
    while let Ok(event) = events.try_recv() {
        assert!(end.is_none(), "nothing comes after the end");
        match event {
            Event::Tokens {
                tokens, logprobs, ..
            } => {
                answer.extend(tokens);
                told.extend(logprobs);
            }
            Event::Finished(finished) => {
                answer.extend(&finished.tokens);
                told.extend(finished.logprobs.clone());
                end = Some(Some(finished));
            }
            Event::Failed(_) => end = Some(None),
        }
    }
    let Some(finished) = end.expect("every request ends") else {
        return false;
    };
    let (prompt, version) = (&request.prompt_ids, finished.weights.number);
    match request.task {
        Task::Score { from } => {
            let num_candidates = request.num_candidates.unwrap_or(0);
            let expected = fake::solo_scores(prompt, from as usize, num_candidates, version);
            assert_eq!((answer, told), (vec![], expected), "under {version}");
        }
        Task::Generate { max_tokens } => {
            let mut expected = fake::solo_answer(prompt, max_tokens as usize, version);
            let stop = |token: &u32| request.stopping.token_ids.contains(token);
            if let Some(at) = expected.iter().position(stop) {
                expected.truncate(at + 1);
            }
            assert_eq!(answer, expected, "under {version}");
            let is_told = request.num_candidates.is_some();
            assert_eq!(told.len(), if is_told { answer.len() } else { 0 });
        }
    }
    check_counts(request, &finished);
    true
}

fn check_counts(request: &EngineRequest, finished: &Finished) {
    let counts = finished.counts;
    assert!(counts.num_cached_tokens < request.prompt_ids.len() as u32);
    assert!(counts.num_accepted_draft_tokens <= counts.num_draft_tokens);
    let may_cache = request.prefix_cache == PrefixCache::Use;
    assert!(may_cache || counts.num_cached_tokens == 0);
}
