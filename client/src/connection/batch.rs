//! The two ends of one `GenerateBatch` stream in the client's own words.

use proto::genserver::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Streaming};

use super::convert;
use crate::request::{Answer, Item};

/// The server's last word on one item of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Answer(Answer),
    Failed { code: Code, message: String },
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchMessage {
    /// The request id of an item and its end. None in a message that only grants room.
    pub reply: Option<(String, Reply)>,
    /// Items that may be sent beside those granted before. All 0: the server does not count.
    pub num_credits: u32,
}

/// A bounded channel towards the server: what goes in is sent when HTTP/2 has room for it.
pub fn batch_channel(capacity: usize) -> (BatchSender, BatchItems) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    (BatchSender(sender), BatchItems(receiver))
}

/// Puts items on the stream. Dropping it tells the server that no more come.
#[derive(Debug)]
pub struct BatchSender(mpsc::Sender<pb::BatchRequest>);

impl BatchSender {
    /// False where the channel is full or the stream is gone; the item was not sent then.
    pub fn try_send(&self, item: &Item) -> bool {
        self.try_send_request(convert::generate_request(item))
    }

    pub(super) fn try_send_request(&self, request: pb::GenerateRequest) -> bool {
        let request = pb::BatchRequest {
            request: Some(request),
        };
        self.0.try_send(request).is_ok()
    }
}

/// The items on their way; [`super::Server::open_batch`] takes it.
#[derive(Debug)]
pub struct BatchItems(mpsc::Receiver<pb::BatchRequest>);

impl BatchItems {
    pub(super) fn into_stream(self) -> ReceiverStream<pb::BatchRequest> {
        ReceiverStream::new(self.0)
    }
}

/// The answers, in the order of completion.
#[derive(Debug)]
pub struct BatchStream(Streaming<pb::BatchResponse>);

impl BatchStream {
    pub(super) fn new(stream: Streaming<pb::BatchResponse>) -> Self {
        Self(stream)
    }

    /// The next message, or in words why there will be none on this stream.
    pub async fn next(&mut self) -> Result<BatchMessage, String> {
        convert::batch_message(self.next_response().await?).map_err(|error| error.to_string())
    }

    pub(super) async fn next_response(&mut self) -> Result<pb::BatchResponse, String> {
        match self.0.next().await {
            Some(Ok(response)) => Ok(response),
            Some(Err(status)) => Err(format!(
                "{}: {}",
                convert::code_name(status.code()),
                status.message()
            )),
            None => Err("the server closed the stream".to_owned()),
        }
    }
}
