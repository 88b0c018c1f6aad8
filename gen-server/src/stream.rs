//! One admitted request on the async side: tokens become text, stop strings and time limits end it,
//! and the admission permit is held until it is over. Dropping a [`Generation`] is the one cancel
//! signal, for unary and streaming calls and batch items alike.

mod stop;
mod text;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    admission::Permit,
    error::RequestError,
    request::{EngineFailure, Event, FinishReason, WeightsVersion},
};
pub(crate) use text::AnswerText;

/// Streams get at most one message in this time, each with all tokens since the last: thousands of
/// small messages a second cost more than the tokens in them, and nobody reads faster.
const STREAM_MESSAGE_INTERVAL: Duration = Duration::from_millis(20);

/// When a request must be over, and how it ends then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    None,
    /// The request's own time limit: it ends with what there is.
    TimeLimit(Instant),
    /// The call's deadline: it fails.
    Call(Instant),
}

impl Deadline {
    /// The earlier one.
    pub(crate) fn earlier(self, other: Self) -> Self {
        match (self.at(), other.at()) {
            (Some(one), Some(two)) if two < one => other,
            (None, _) => other,
            _ => self,
        }
    }

    fn at(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::TimeLimit(at) | Self::Call(at) => Some(at),
        }
    }
}

/// What an admitted request carries.
#[derive(Debug)]
pub(crate) struct Generation {
    pub request_id: String,
    num_prompt_tokens: u32,
    seed: u64,
    /// `None` once the last event has been taken.
    events: Option<mpsc::Receiver<Event>>,
    text: AnswerText,
    num_generated_tokens: u32,
    deadline: Deadline,
    /// Those that made the answer; until the first token those that were live at submission.
    weights: Arc<WeightsVersion>,
    /// Time of the last streamed message.
    last_message: Option<Instant>,
    permit: Permit,
}

/// What [`Generation::new`] is made from.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub request_id: String,
    pub num_prompt_tokens: u32,
    pub seed: u64,
    pub events: mpsc::Receiver<Event>,
    pub text: AnswerText,
    pub deadline: Deadline,
    pub weights: Arc<WeightsVersion>,
    pub permit: Permit,
}

/// A part of an answer; the last one carries the end.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Piece {
    pub text: String,
    pub token_ids: Vec<u32>,
    pub end: Option<End>,
}

/// How an answer ended and what made it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    pub reason: FinishReason,
    pub num_prompt_tokens: u32,
    pub num_generated_tokens: u32,
    pub num_cached_tokens: u32,
    pub seed: u64,
    pub weights: Arc<WeightsVersion>,
}

impl Generation {
    pub(crate) fn new(admitted: Admitted) -> Self {
        Self {
            request_id: admitted.request_id,
            num_prompt_tokens: admitted.num_prompt_tokens,
            seed: admitted.seed,
            events: Some(admitted.events),
            text: admitted.text,
            num_generated_tokens: 0,
            deadline: admitted.deadline,
            weights: admitted.weights,
            last_message: None,
            permit: admitted.permit,
        }
    }

    /// The whole answer.
    pub(crate) async fn whole(mut self) -> Result<Piece, RequestError> {
        let mut whole = Piece::default();
        while whole.end.is_none() {
            self.extend(&mut whole).await?;
        }
        Ok(whole)
    }

    /// The next streamed message: what has come since the last, not too soon after it. `None` after
    /// the end.
    pub(crate) async fn next_message(&mut self) -> Result<Option<Piece>, RequestError> {
        if self.events.is_none() {
            return Ok(None);
        }
        if let Some(last) = self.last_message {
            let next = last + STREAM_MESSAGE_INTERVAL;
            sleep_until(self.deadline.at().map_or(next, |at| next.min(at))).await;
        }
        let mut message = Piece::default();
        // Something to say: a token, even if its text waits for more, or the end.
        while message.end.is_none() && message.token_ids.is_empty() {
            self.extend(&mut message).await?;
        }
        while message.end.is_none() {
            let Some(event) = self
                .events
                .as_mut()
                .and_then(|events| events.try_recv().ok())
            else {
                break;
            };
            self.take(Some(event), &mut message)?;
        }
        self.last_message = Some(Instant::now());
        Ok(Some(message))
    }

    /// Waits for the next event and adds it to `piece`.
    async fn extend(&mut self, piece: &mut Piece) -> Result<(), RequestError> {
        let events = self.events.as_mut().expect("asked after the end");
        let received = match self.deadline.at() {
            None => Ok(events.recv().await),
            Some(at) => timeout_at(at, events.recv()).await,
        };
        match (received, self.deadline) {
            (Ok(event), _) => self.take(event, piece),
            (Err(_), Deadline::Call(_)) => {
                self.events = None;
                Err(RequestError::DeadlineExceeded)
            }
            (Err(_), _) => {
                self.end(FinishReason::TimeLimit, 0, piece);
                Ok(())
            }
        }
    }

    fn take(&mut self, event: Option<Event>, piece: &mut Piece) -> Result<(), RequestError> {
        match event {
            Some(Event::Tokens { tokens, weights }) => {
                self.weights = weights;
                if self.add(&tokens, piece)? {
                    self.end(FinishReason::Stop, 0, piece);
                }
                Ok(())
            }
            Some(Event::Finished(finished)) => {
                self.weights = finished.weights;
                let stopped = self.add(&finished.tokens, piece)?;
                let reason = if stopped {
                    FinishReason::Stop
                } else {
                    finished.reason
                };
                self.end(reason, finished.num_cached_tokens, piece);
                Ok(())
            }
            Some(Event::Failed(failure)) => {
                self.events = None;
                Err(failure.into())
            }
            None => {
                self.events = None;
                Err(EngineFailure::Stopped.into())
            }
        }
    }

    /// Adds tokens to the piece up to a stop string; true if there was one.
    fn add(&mut self, tokens: &[u32], piece: &mut Piece) -> Result<bool, RequestError> {
        for &token in tokens {
            piece.token_ids.push(token);
            self.num_generated_tokens += 1;
            let stopped = self
                .text
                .push(token, &mut piece.text)
                .map_err(|error| RequestError::Internal(error.to_string()))?;
            if stopped {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts the end on the piece and gives the room back: dropping the channel cancels what may
    /// still be running.
    fn end(&mut self, reason: FinishReason, num_cached_tokens: u32, piece: &mut Piece) {
        self.text.finish(&mut piece.text);
        self.events = None;
        self.permit.release();
        piece.end = Some(End {
            reason,
            num_prompt_tokens: self.num_prompt_tokens,
            num_generated_tokens: self.num_generated_tokens,
            num_cached_tokens,
            seed: self.seed,
            weights: Arc::clone(&self.weights),
        });
    }
}
