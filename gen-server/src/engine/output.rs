//! The engine's side of the per-request channels. Sending never waits: each channel was made with room
//! for every event its request can have.

use std::{collections::HashMap, mem, sync::Arc};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::runner::Sampled;
use crate::request::{
    Counts, EngineFailure, EngineRequest, Event, FinishReason, Finished, SequenceId, Task,
    TokenLogprobs, WeightsVersion,
};

/// Where one request's events go.
#[derive(Debug)]
pub(crate) struct Output {
    events: mpsc::Sender<Event>,
    /// Tokens not yet sent.
    tokens: Vec<u32>,
    /// Theirs, where asked for; of a score, those of the whole prompt so far.
    logprobs: Vec<TokenLogprobs>,
    tokens_per_event: usize,
}

impl Output {
    /// A channel with room for all events of `request`.
    pub(crate) fn channel(request: &EngineRequest) -> (Self, mpsc::Receiver<Event>) {
        let tokens_per_event = request.tokens_per_event.max(1) as usize;
        let most_events = match request.task {
            Task::Generate { max_tokens } => max_tokens as usize / tokens_per_event + 1,
            Task::Score { .. } => 1,
        };
        let (events, receiver) = mpsc::channel(most_events);
        let output = Self {
            events,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            tokens_per_event,
        };
        (output, receiver)
    }

    fn send(&self, event: Event) {
        match self.events.try_send(event) {
            // The caller is gone: the sequence is removed before the next step.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => unreachable!("the channel has room for all events"),
        }
    }
}

/// The outputs of everything that has not ended.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    by_id: HashMap<SequenceId, Output>,
}

impl Outputs {
    pub(crate) fn insert(&mut self, id: SequenceId, output: Output) {
        self.by_id.insert(id, output);
    }

    /// True if nobody listens any more; the output is gone then.
    pub(crate) fn remove_if_cancelled(&mut self, id: SequenceId) -> bool {
        let cancelled = self
            .by_id
            .get(&id)
            .is_none_or(|output| output.events.is_closed());
        if cancelled {
            self.by_id.remove(&id);
        }
        cancelled
    }

    pub(crate) fn push(&mut self, id: SequenceId, sampled: Sampled, weights: &Arc<WeightsVersion>) {
        let output = self.running_mut(id);
        output.tokens.push(sampled.token);
        output.logprobs.extend(sampled.logprobs);
        if output.tokens.len() >= output.tokens_per_event {
            let tokens = mem::take(&mut output.tokens);
            let logprobs = mem::take(&mut output.logprobs);
            output.send(Event::Tokens {
                tokens,
                logprobs,
                weights: Arc::clone(weights),
            });
        }
    }

    pub(crate) fn push_scored(&mut self, id: SequenceId, logprobs: TokenLogprobs) {
        self.running_mut(id).logprobs.push(logprobs);
    }

    fn running_mut(&mut self, id: SequenceId) -> &mut Output {
        self.by_id
            .get_mut(&id)
            .expect("a running sequence has an output")
    }

    /// The regular end, with the tokens not yet sent.
    pub(crate) fn finish(
        &mut self,
        id: SequenceId,
        (reason, counts): (FinishReason, Counts),
        weights: &Arc<WeightsVersion>,
    ) {
        let output = self.by_id.remove(&id);
        let mut output = output.expect("a running sequence has an output");
        let finished = Finished {
            tokens: mem::take(&mut output.tokens),
            logprobs: mem::take(&mut output.logprobs),
            reason,
            counts,
            weights: Arc::clone(weights),
        };
        output.send(Event::Finished(finished));
    }

    pub(crate) fn fail(&mut self, id: SequenceId, failure: EngineFailure) {
        if let Some(output) = self.by_id.remove(&id) {
            output.send(Event::Failed(failure));
        }
    }

    pub(crate) fn fail_all(&mut self, failure: &EngineFailure) {
        for (_, output) in self.by_id.drain() {
            output.send(Event::Failed(failure.clone()));
        }
    }
}
