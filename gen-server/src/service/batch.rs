//! `GenerateBatch`: items in, answers out in the order of completion. The next item is read only while
//! fewer than a window of items are under way; each item ends in one answer or one error of its own.
//! The window is granted as credits with the first message, and one more with every answer.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt as _, Stream};
use proto::genserver::v1 as pb;
use tokio::{sync::mpsc, task::JoinSet, time::sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Origin, Shared, start::Patience};
use crate::{convert, error::RequestError};

/// Answers that wait for a slow reader before the batch stops taking new items.
const NUM_ANSWERS_AHEAD: usize = 64;
/// Items under way per sequence of a step: one runs while another waits, so that a finished sequence
/// is replaced at once, and other callers' requests still come in between.
const ITEMS_PER_SEQUENCE: usize = 2;

/// Items of one call that may be under way.
pub(super) fn window(shared: &Shared) -> usize {
    shared.engine.limits().max_num_seqs * ITEMS_PER_SEQUENCE
}

/// The answers to the items of one call.
pub(super) fn answers(
    shared: Arc<Shared>,
    items: Streaming<pb::BatchRequest>,
    origin: Origin,
) -> impl Stream<Item = Result<pb::BatchResponse, Status>> {
    let (answers, receiver) = mpsc::channel(NUM_ANSWERS_AHEAD);
    let window = window(&shared);
    let batch = Batch {
        shared,
        items,
        has_more_items: true,
        origin,
        answers,
        window,
        under_way: JoinSet::new(),
    };
    tokio::spawn(batch.run());
    ReceiverStream::new(receiver)
}

struct Batch {
    shared: Arc<Shared>,
    items: Streaming<pb::BatchRequest>,
    has_more_items: bool,
    origin: Origin,
    answers: mpsc::Sender<Result<pb::BatchResponse, Status>>,
    window: usize,
    /// Dropping it cancels every item.
    under_way: JoinSet<pb::BatchResponse>,
}

/// What happened next.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and it is on its way to be taken apart"
)]
enum Turn {
    Item(Result<Option<pb::BatchRequest>, Status>),
    Answer(pb::BatchResponse),
    ClientGone,
    DeadlinePassed,
}

impl Batch {
    async fn run(mut self) {
        let credits = convert::batch_credits(self.window as u32);
        // An error means that the client is gone, as the next turn finds out.
        drop(self.answers.send(Ok(credits)).await);
        while self.has_more_items || !self.under_way.is_empty() {
            match self.next_turn().await {
                Turn::Item(Ok(Some(item))) => self.begin(item.request.unwrap_or_default()),
                Turn::Item(Ok(None)) => self.has_more_items = false,
                Turn::Answer(answer) => {
                    // A reader who is too slow has its deadline all the same.
                    let sent = self
                        .origin
                        .call_deadline
                        .bound(self.answers.send(Ok(answer)));
                    match sent.await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        Err(error) => return self.end(convert::request_status(&error)).await,
                    }
                }
                Turn::ClientGone => return,
                // An item that cannot be decoded, or a broken connection: where the next item
                // would begin is not known, so the call ends.
                Turn::Item(Err(status)) => return self.end(status).await,
                Turn::DeadlinePassed => {
                    let error = RequestError::DeadlineExceeded;
                    return self.end(convert::request_status(&error)).await;
                }
            }
        }
    }

    /// The call's last word. What is under way is cancelled before, since it may have to wait for
    /// the reader.
    async fn end(self, status: Status) {
        let Self {
            answers,
            under_way,
            items,
            ..
        } = self;
        drop((under_way, items));
        // An error means that the client is gone.
        drop(answers.send(Err(status)).await);
    }

    async fn next_turn(&mut self) -> Turn {
        let has_room = self.has_more_items && self.under_way.len() < self.window;
        let deadline = async {
            match self.origin.call_deadline.at() {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.answers.closed() => Turn::ClientGone,
            () = deadline => Turn::DeadlinePassed,
            Some(answer) = self.under_way.join_next() => {
                Turn::Answer(answer.expect("an item catches its own panics and is not aborted"))
            }
            item = self.items.message(), if has_room => Turn::Item(item),
        }
    }

    fn begin(&mut self, request: pb::GenerateRequest) {
        let (shared, origin) = (Arc::clone(&self.shared), self.origin);
        self.under_way.spawn(async move {
            let request_id = request.request_id.clone();
            let answer = AssertUnwindSafe(answer(&shared, request, origin))
                .catch_unwind()
                .await;
            answer.unwrap_or_else(|_| {
                let error =
                    RequestError::Internal("answering this item failed; see the log".into());
                convert::batch_error(request_id, &error)
            })
        });
    }
}

async fn answer(
    shared: &Arc<Shared>,
    request: pb::GenerateRequest,
    origin: Origin,
) -> pb::BatchResponse {
    let asked_id = request.request_id.clone();
    let generation = match shared.start(request, origin, Patience::UntilDeadline).await {
        Ok(generation) => generation,
        Err(error) => return convert::batch_error(asked_id, &error),
    };
    let request_id = generation.request_id.clone();
    match generation.whole().await {
        Ok(answers) => convert::batch_response(request_id, answers),
        Err(error) => convert::batch_error(request_id, &error),
    }
}
