//! The two ways to the server: a stream of its own for each prompt, or one batch stream for all.

use std::{collections::HashMap, pin::pin};

use futures::StreamExt;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    connection::{
        AnswerCounts, BatchSender, BatchStream, FixedLengthItem, Server, TokenMessage,
        batch_channel,
    },
    error::ClientError,
};

/// How prompts reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// `GenerateStream`, one call per prompt: tokens as users see them come.
    Streams,
    /// `GenerateBatch`, one call for all: whole answers.
    Batch,
}

/// An open way. Dropping it cancels what is under way.
pub(super) enum Lane {
    Streams {
        server: Box<Server>,
        tasks: JoinSet<Ended>,
    },
    Batch {
        sender: BatchSender,
        replies: Box<BatchStream>,
        index_of: HashMap<String, usize>,
    },
}

/// How a request ended.
pub(super) struct Ended {
    /// `None`: the batch stream broke, and with it everything on it.
    pub(super) index: Option<usize>,
    pub(super) answer: Result<Received, Failure>,
}

/// A whole answer: when its tokens came.
pub(super) struct Received {
    pub(super) messages: Vec<(Instant, u32)>,
    pub(super) end: Instant,
    pub(super) counts: AnswerCounts,
    pub(super) token_ids: Vec<u32>,
}

impl Via {
    /// Opens the way for `count` prompts.
    pub(super) async fn open(self, server: &Server, count: usize) -> Result<Lane, ClientError> {
        match self {
            Self::Streams => Ok(Lane::Streams {
                server: Box::new(server.clone()),
                tasks: JoinSet::new(),
            }),
            Self::Batch => {
                let (sender, items) = batch_channel(count);
                Ok(Lane::Batch {
                    sender,
                    replies: Box::new(server.open_batch(items).await?),
                    index_of: HashMap::new(),
                })
            }
        }
    }
}

impl Lane {
    /// Puts the request with that number on its way.
    pub(super) fn send(&mut self, index: usize, item: FixedLengthItem) {
        match self {
            Self::Streams { server, tasks } => {
                let server = server.clone();
                tasks.spawn(async move {
                    Ended {
                        index: Some(index),
                        answer: stream(&server, &item).await.map_err(Failure::of),
                    }
                });
            }
            Self::Batch {
                sender, index_of, ..
            } => {
                // The channel has room for all, so a refusal means that the stream is gone; `next`
                // then says why.
                sender.try_send_fixed(&item);
                index_of.insert(item.request_id, index);
            }
        }
    }

    /// The next request that ends. Only asked while one is under way.
    pub(super) async fn next(&mut self) -> Ended {
        match self {
            Self::Streams { tasks, .. } => match tasks.join_next().await {
                Some(Ok(ended)) => ended,
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => std::future::pending().await,
            },
            Self::Batch {
                replies, index_of, ..
            } => {
                let next = replies.next_end().await;
                let now = Instant::now();
                let (request_id, end) = match next {
                    Ok(next) => next,
                    Err(cause) => {
                        let answer = Err(Failure {
                            code: "STREAM_BROKEN".to_owned(),
                            message: cause,
                        });
                        return Ended {
                            index: None,
                            answer,
                        };
                    }
                };
                Ended {
                    index: index_of.remove(&request_id),
                    answer: end
                        .and_then(|message| received(vec![(now, message)]))
                        .map_err(Failure::of),
                }
            }
        }
    }
}

async fn stream(server: &Server, item: &FixedLengthItem) -> Result<Received, ClientError> {
    let mut stream = pin!(server.stream_tokens(item).await?);
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        messages.push((Instant::now(), message?));
    }
    received(messages)
}

fn received(messages: Vec<(Instant, TokenMessage)>) -> Result<Received, ClientError> {
    let (end, counts) = match messages.last() {
        Some((end, message)) => (*end, message.counts),
        None => {
            return Err(ClientError::BadReply(
                "a stream without a message".to_owned(),
            ));
        }
    };
    let counts = counts.ok_or_else(|| {
        ClientError::BadReply("the stream ended without its last message".to_owned())
    })?;
    let carrying = messages
        .iter()
        .filter(|(_, message)| !message.token_ids.is_empty());
    Ok(Received {
        messages: carrying
            .map(|(at, message)| (*at, message.token_ids.len() as u32))
            .collect(),
        end,
        counts,
        token_ids: messages
            .into_iter()
            .flat_map(|(_, message)| message.token_ids)
            .collect(),
    })
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A gRPC code, or a word of this program.
    pub code: String,
    pub message: String,
}

impl Failure {
    pub(super) fn of(error: ClientError) -> Self {
        match error {
            ClientError::Refused { code, message, .. } => Self { code, message },
            other => Self {
                code: "NO_ANSWER".to_owned(),
                message: other.to_string(),
            },
        }
    }
}
