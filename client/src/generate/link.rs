//! The batch stream of a bulk generation: closed, being opened, or open. The opening is kept as a
//! value, so that a caller who stops waiting and comes back finds it where it was.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::sleep;

use crate::{
    connection::{BatchMessage, BatchSender, BatchStream, Server, batch_channel},
    error::ClientError,
    request::Item,
};

pub(super) enum Link {
    Closed,
    Opening {
        sender: BatchSender,
        opening: BoxFuture<'static, Opened>,
    },
    Open {
        sender: BatchSender,
        replies: Box<BatchStream>,
    },
}

type Opened = Result<(Server, BatchStream), ClientError>;

/// What a wait on the link gave.
pub(super) enum Signal {
    /// The stream is open, perhaps over a new connection.
    Opened(Box<Server>),
    Message(BatchMessage),
    Broken(String),
}

impl Link {
    /// The first stream, over the connection that exists.
    pub(super) fn open(server: Server, capacity: usize) -> Self {
        Self::start(capacity, |items| async move {
            let replies = server.open_batch(items).await?;
            Ok((server, replies))
        })
    }

    /// A stream after a broken one: waits, then connects anew.
    pub(super) fn reopen(server: Server, capacity: usize, delay: Duration) -> Self {
        Self::start(capacity, move |items| async move {
            sleep(delay).await;
            let server = server.reconnect().await?;
            let replies = server.open_batch(items).await?;
            Ok((server, replies))
        })
    }

    fn start<F>(capacity: usize, open: impl FnOnce(crate::connection::BatchItems) -> F) -> Self
    where
        F: Future<Output = Opened> + Send + 'static,
    {
        let (sender, items) = batch_channel(capacity);
        Self::Opening {
            sender,
            opening: Box::pin(open(items)),
        }
    }

    /// False where there is no stream or no room. Items may be sent before the stream is open: a
    /// server may answer the call only after the first item.
    pub(super) fn try_send(&self, item: &Item) -> bool {
        match self {
            Self::Closed => false,
            Self::Opening { sender, .. } | Self::Open { sender, .. } => sender.try_send(item),
        }
    }

    /// Waits for what happens next on the link.
    pub(super) async fn next(&mut self) -> Signal {
        match self {
            Self::Closed => Signal::Broken("no stream is open".to_owned()),
            Self::Opening { opening, .. } => match opening.await {
                Ok((server, replies)) => {
                    // No await between here and the return: the opened stream cannot be lost.
                    if let Self::Opening { sender, .. } = std::mem::replace(self, Self::Closed) {
                        let replies = Box::new(replies);
                        *self = Self::Open { sender, replies };
                    }
                    Signal::Opened(Box::new(server))
                }
                Err(error) => Signal::Broken(error.to_string()),
            },
            Self::Open { replies, .. } => match replies.next().await {
                Ok(message) => Signal::Message(message),
                Err(cause) => Signal::Broken(cause),
            },
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Closed => "Closed",
            Self::Opening { .. } => "Opening",
            Self::Open { .. } => "Open",
        })
    }
}
