//! One answer of a request: events become tokens and text until a stop string, a time limit or the
//! engine ends it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use super::{AnswerText, Deadline};
use crate::{
    error::RequestError,
    request::{Counts, EngineFailure, Event, FinishReason, TokenLogprobs, WeightsVersion},
};

/// Streams get at most one message in this time, each with all tokens since the last: thousands of
/// small messages a second cost more than the tokens in them, and nobody reads faster.
const STREAM_MESSAGE_INTERVAL: Duration = Duration::from_millis(20);

/// An answer under way. Dropping it cancels it.
#[derive(Debug)]
pub(crate) struct Answer {
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
}

/// What [`Answer::new`] is made from.
#[derive(Debug)]
pub(crate) struct AnswerParts {
    pub num_prompt_tokens: u32,
    pub seed: u64,
    pub events: mpsc::Receiver<Event>,
    pub text: AnswerText,
    pub deadline: Deadline,
    pub weights: Arc<WeightsVersion>,
}

/// The token ids that end an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopIds {
    /// The checkpoint's own.
    pub eos: Vec<u32>,
    /// The request's own.
    pub asked: Vec<u32>,
}

impl StopIds {
    pub(super) fn reason(&self, token: u32) -> Option<StopReason> {
        if self.eos.contains(&token) {
            Some(StopReason::EosTokenId(token))
        } else if self.asked.contains(&token) {
            Some(StopReason::TokenId(token))
        } else {
            None
        }
    }
}

/// A part of an answer; the last one carries the end.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Piece {
    pub text: String,
    pub token_ids: Vec<u32>,
    /// One for each token, where asked for.
    pub logprobs: Vec<TokenLogprobs>,
    pub end: Option<End>,
}

/// How an answer ended and what made it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    pub reason: FinishReason,
    /// What ended it, where that is a stop.
    pub stop_reason: Option<StopReason>,
    pub num_prompt_tokens: u32,
    pub num_generated_tokens: u32,
    pub counts: Counts,
    pub seed: u64,
    pub weights: Arc<WeightsVersion>,
}

/// What stopped an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// One of the request's own.
    TokenId(u32),
    /// One of the checkpoint's.
    EosTokenId(u32),
    /// A stop string.
    Text(String),
}

impl Answer {
    pub(crate) fn new(parts: AnswerParts) -> Self {
        Self {
            num_prompt_tokens: parts.num_prompt_tokens,
            seed: parts.seed,
            events: Some(parts.events),
            text: parts.text,
            num_generated_tokens: 0,
            deadline: parts.deadline,
            weights: parts.weights,
            last_message: None,
        }
    }

    /// The whole answer.
    pub(super) async fn whole(mut self) -> Result<Piece, RequestError> {
        let mut whole = Piece::default();
        while whole.end.is_none() {
            self.extend(&mut whole).await?;
        }
        Ok(whole)
    }

    /// The next streamed message: what has come since the last, not too soon after it. `None` after
    /// the end. Dropping the future loses nothing.
    pub(super) async fn next_message(&mut self) -> Result<Option<Piece>, RequestError> {
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
                self.end(FinishReason::TimeLimit, Counts::default(), piece);
                Ok(())
            }
        }
    }

    fn take(&mut self, event: Option<Event>, piece: &mut Piece) -> Result<(), RequestError> {
        match event {
            Some(Event::Tokens {
                tokens,
                logprobs,
                weights,
            }) => {
                self.weights = weights;
                if self.add(&tokens, logprobs, piece)? {
                    self.end(FinishReason::Stop, Counts::default(), piece);
                }
                Ok(())
            }
            Some(Event::Finished(finished)) => {
                self.weights = finished.weights;
                let stopped = self.add(&finished.tokens, finished.logprobs, piece)?;
                let reason = if stopped {
                    FinishReason::Stop
                } else {
                    finished.reason
                };
                self.end(reason, finished.counts, piece);
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
    fn add(
        &mut self,
        tokens: &[u32],
        logprobs: Vec<TokenLogprobs>,
        piece: &mut Piece,
    ) -> Result<bool, RequestError> {
        let num_before = piece.token_ids.len();
        let mut stopped = false;
        for &token in tokens {
            piece.token_ids.push(token);
            self.num_generated_tokens += 1;
            stopped = self
                .text
                .push(token, &mut piece.text)
                .map_err(|error| RequestError::Internal(error.to_string()))?;
            if stopped {
                break;
            }
        }
        let num_added = piece.token_ids.len() - num_before;
        piece.logprobs.extend(logprobs.into_iter().take(num_added));
        Ok(stopped)
    }

    /// Puts the end on the piece. Dropping the channel cancels what may still be running.
    fn end(&mut self, reason: FinishReason, counts: Counts, piece: &mut Piece) {
        self.text.finish(&mut piece.text);
        self.events = None;
        piece.end = Some(End {
            reason,
            stop_reason: match reason {
                FinishReason::Stop => self.text.stop_reason(),
                _ => None,
            },
            num_prompt_tokens: self.num_prompt_tokens,
            num_generated_tokens: self.num_generated_tokens,
            counts,
            seed: self.seed,
            weights: Arc::clone(&self.weights),
        });
    }
}
