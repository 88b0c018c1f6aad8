//! The engine's side of the per-request channels. Sending never waits: each channel was made with room
//! for every event its request can have.

use std::{collections::HashMap, mem, sync::Arc};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::request::{
    EngineFailure, EngineRequest, Event, FinishReason, Finished, SequenceId, WeightsVersion,
};

/// Where one request's events go.
#[derive(Debug)]
pub(crate) struct Output {
    events: mpsc::Sender<Event>,
    /// Tokens not yet sent.
    tokens: Vec<u32>,
    tokens_per_event: usize,
}

impl Output {
    /// A channel with room for all events of `request`.
    pub(crate) fn channel(request: &EngineRequest) -> (Self, mpsc::Receiver<Event>) {
        let tokens_per_event = request.tokens_per_event.max(1) as usize;
        let most_events = request.max_tokens as usize / tokens_per_event + 1;
        let (events, receiver) = mpsc::channel(most_events);
        (
            Self {
                events,
                tokens: Vec::new(),
                tokens_per_event,
            },
            receiver,
        )
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

    pub(crate) fn push(&mut self, id: SequenceId, token: u32, weights: &Arc<WeightsVersion>) {
        let output = self
            .by_id
            .get_mut(&id)
            .expect("a running sequence has an output");
        output.tokens.push(token);
        if output.tokens.len() >= output.tokens_per_event {
            let tokens = mem::take(&mut output.tokens);
            output.send(Event::Tokens {
                tokens,
                weights: Arc::clone(weights),
            });
        }
    }

    /// The regular end, with the tokens not yet sent.
    pub(crate) fn finish(
        &mut self,
        id: SequenceId,
        reason: FinishReason,
        weights: &Arc<WeightsVersion>,
    ) {
        let mut output = self
            .by_id
            .remove(&id)
            .expect("a running sequence has an output");
        let finished = Finished {
            tokens: mem::take(&mut output.tokens),
            reason,
            num_cached_tokens: 0,
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
