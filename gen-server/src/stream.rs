//! One admitted request on the async side: its answers, each from tokens to text, and the permit that
//! is held until all are over. Dropping a [`Generation`] is the one cancel signal, for unary and
//! streaming calls and batch items alike.

mod answer;
mod deadline;
mod score;
mod stop;
mod text;

#[cfg(test)]
mod tests;

use std::pin::Pin;

use futures::{
    Stream, StreamExt as _,
    future::try_join_all,
    stream::{SelectAll, select_all, unfold},
};

pub(crate) use self::{
    answer::{Answer, AnswerParts, End, Piece, StopIds, StopReason},
    deadline::Deadline,
    score::scored,
    text::AnswerText,
};
use crate::{admission::Permit, error::RequestError};

/// What an admitted request carries.
#[derive(Debug)]
pub(crate) struct Generation {
    pub request_id: String,
    /// One for each sequence, in the order of their index.
    answers: Vec<Answer>,
    permit: Permit,
}

/// A part of the answer at an index, or why there will be none.
type Message = Result<(u32, Piece), RequestError>;

/// A stream of messages under way.
struct Streaming {
    parts: SelectAll<Pin<Box<dyn Stream<Item = Message> + Send>>>,
    num_unfinished: usize,
    permit: Permit,
}

impl Generation {
    pub(crate) fn new(request_id: String, answers: Vec<Answer>, permit: Permit) -> Self {
        assert!(!answers.is_empty(), "a request has at least one answer");
        Self {
            request_id,
            answers,
            permit,
        }
    }

    /// The whole answers. They are read side by side: each may end at a stop string of its own.
    pub(crate) async fn whole(self) -> Result<Vec<Piece>, RequestError> {
        let answers = try_join_all(self.answers.into_iter().map(Answer::whole));
        tokio::select! {
            biased;
            () = self.permit.aborted() => Err(RequestError::Aborted),
            answers = answers => answers,
        }
    }

    /// The parts of all answers as they come, each to its end; nothing after an error.
    pub(crate) fn into_messages(self) -> impl Stream<Item = Message> + Send {
        let num_unfinished = self.answers.len();
        let parts = (0..)
            .zip(self.answers)
            .map(|(index, answer)| messages(index, answer));
        let streaming = Streaming {
            parts: select_all(parts),
            num_unfinished,
            permit: self.permit,
        };
        unfold(Some(streaming), next_message)
    }
}

fn messages(index: u32, answer: Answer) -> Pin<Box<dyn Stream<Item = Message> + Send>> {
    Box::pin(unfold(answer, move |mut answer| async move {
        let message = answer.next_message().await.transpose()?;
        Some((message.map(|piece| (index, piece)), answer))
    }))
}

/// The next message and what is left: the room is given back with the last.
async fn next_message(streaming: Option<Streaming>) -> Option<(Message, Option<Streaming>)> {
    let mut streaming = streaming?;
    let message = tokio::select! {
        biased;
        () = streaming.permit.aborted() => Some(Err(RequestError::Aborted)),
        message = streaming.parts.next() => message,
    };
    let message = message?;
    match &message {
        Ok((_, piece)) => streaming.num_unfinished -= usize::from(piece.end.is_some()),
        Err(_) => streaming.num_unfinished = 0,
    }
    let is_over = streaming.num_unfinished == 0;
    Some((message, (!is_over).then_some(streaming)))
}
