//! What every history must come to: each answer is the one that its request alone would get, and
//! enough has happened to prove something.

use tokio::sync::mpsc;

use crate::{
    engine::fake,
    request::{EngineRequest, Event, FinishReason, Finished, PrefixCache, Task},
};

/// What happened in a history: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "counts are named num_")]
pub(super) struct Tally {
    pub num_steps: u64,
    pub num_answered: u64,
    /// By a stop token.
    pub num_stopped: u64,
    pub num_failed: u64,
    pub num_cancelled: u64,
    pub num_deadlines: u64,
    pub num_swaps: u64,
    pub num_preemptions: u64,
    pub num_cached_tokens: u64,
    pub num_accepted_draft_tokens: u64,
    /// Computed before they were known to the engine.
    pub num_carried_tokens: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.num_steps += other.num_steps;
        self.num_answered += other.num_answered;
        self.num_stopped += other.num_stopped;
        self.num_failed += other.num_failed;
        self.num_cancelled += other.num_cancelled;
        self.num_deadlines += other.num_deadlines;
        self.num_swaps += other.num_swaps;
        self.num_preemptions += other.num_preemptions;
        self.num_cached_tokens += other.num_cached_tokens;
        self.num_accepted_draft_tokens += other.num_accepted_draft_tokens;
        self.num_carried_tokens += other.num_carried_tokens;
    }
}

/// How the request ended; `None` if it was failed by a failing step.
pub(super) fn check_answer(
    request: &EngineRequest,
    events: &mut mpsc::Receiver<Event>,
) -> Option<FinishReason> {
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
    let finished = end.expect("every request ends")?;
    let (prompt, version) = (&request.prompt_ids, finished.weights.number);
    match request.task {
        Task::Score { from } => {
            let num_candidates = request.num_candidates.unwrap_or(0);
            let expected = fake::solo_scores(prompt, from as usize, num_candidates, version);
            assert_eq!((answer, told), (vec![], expected), "under {version}");
            assert_eq!(finished.reason, FinishReason::Scored);
        }
        Task::Generate { max_tokens } => {
            let mut expected = fake::solo_answer(prompt, max_tokens as usize, version);
            let stop = |token: &u32| request.stopping.token_ids.contains(token);
            let stop_place = expected.iter().position(stop);
            if let Some(at) = stop_place {
                expected.truncate(at + 1);
            }
            assert_eq!(answer, expected, "under {version}");
            let all: Vec<u32> = [&prompt[..], &answer].concat();
            let expected = request
                .num_candidates
                .map(|num| fake::solo_scores(&all, prompt.len(), num, version));
            assert_eq!(told, expected.unwrap_or_default(), "under {version}");
            let stopped = stop_place.map(|_| FinishReason::Stop);
            assert_eq!(finished.reason, stopped.unwrap_or(FinishReason::Length));
        }
    }
    check_counts(request, &finished);
    Some(finished.reason)
}

fn check_counts(request: &EngineRequest, finished: &Finished) {
    let counts = finished.counts;
    assert!(counts.num_cached_tokens < request.prompt_ids.len() as u32);
    assert!(counts.num_accepted_draft_tokens <= counts.num_draft_tokens);
    let may_cache = request.prefix_cache == PrefixCache::Use;
    assert!(may_cache || counts.num_cached_tokens == 0);
}
