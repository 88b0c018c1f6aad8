//! Who may come in: a bounded number of requests, none twice under one id, none while the server
//! drains. A [`Permit`] is held from admission to the end of the answer, streams included.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::RequestError;

#[cfg(test)]
mod tests;

/// The server's door.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    room: Arc<Semaphore>,
    max_queued_requests: u32,
    draining: CancellationToken,
    live_ids: LiveIds,
}

/// Within what a `request_id` must be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum IdScope {
    /// The connection, by its remote address, so that two programs that number their questions alike
    /// do not collide, and a request may be sent again when its connection broke.
    Connection(Option<SocketAddr>),
    /// One batch stream, by its number.
    Batch(u64),
}

type LiveIds = Arc<Mutex<HashSet<(IdScope, String)>>>;

/// The right to be in the queue or running. Gives its room back when it is released or dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Option<OwnedSemaphorePermit>,
    id: Option<LiveId>,
}

#[derive(Debug)]
struct LiveId {
    key: (IdScope, String),
    live_ids: LiveIds,
}

impl Permit {
    /// Gives the room back; nothing the second time.
    pub(crate) fn release(&mut self) {
        self.room = None;
        self.id = None;
    }
}

impl Drop for LiveId {
    fn drop(&mut self) {
        self.live_ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl Admission {
    pub(crate) fn new(max_queued_requests: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(max_queued_requests as usize)),
            max_queued_requests,
            draining: CancellationToken::new(),
            live_ids: LiveIds::default(),
        }
    }

    /// Room for a request now, or a refusal.
    pub(crate) fn admit(&self, scope: IdScope, request_id: &str) -> Result<Permit, RequestError> {
        // First, since a drain takes all the room there is.
        self.refuse_while_draining()?;
        let room =
            Arc::clone(&self.room)
                .try_acquire_owned()
                .map_err(|_| RequestError::QueueFull {
                    max_queued_requests: self.max_queued_requests,
                });
        self.admit_to(room?, scope, request_id)
    }

    /// Waits for room: for batches, which read their next item only then.
    pub(crate) async fn room(&self) -> Result<OwnedSemaphorePermit, RequestError> {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => Err(RequestError::Draining),
            room = Arc::clone(&self.room).acquire_owned() => {
                Ok(room.expect("the semaphore is never closed"))
            }
        }
    }

    /// A request for which there is room.
    pub(crate) fn admit_to(
        &self,
        room: OwnedSemaphorePermit,
        scope: IdScope,
        request_id: &str,
    ) -> Result<Permit, RequestError> {
        self.refuse_while_draining()?;
        if request_id.is_empty() {
            return Ok(Permit {
                room: Some(room),
                id: None,
            });
        }
        let key = (scope, request_id.to_owned());
        let mut live_ids = self.live_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !live_ids.insert(key.clone()) {
            return Err(RequestError::DuplicateId(request_id.to_owned()));
        }
        let id = LiveId {
            key,
            live_ids: Arc::clone(&self.live_ids),
        };
        Ok(Permit {
            room: Some(room),
            id: Some(id),
        })
    }

    fn refuse_while_draining(&self) -> Result<(), RequestError> {
        if self.is_draining() {
            Err(RequestError::Draining)
        } else {
            Ok(())
        }
    }

    /// From now on every request is refused.
    pub(crate) fn start_draining(&self) {
        self.draining.cancel();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when nothing admitted is left.
    pub(crate) async fn idle(&self) {
        let all = self.room.acquire_many(self.max_queued_requests).await;
        drop(all.expect("the semaphore is never closed"));
    }

    pub(crate) fn max_queued_requests(&self) -> u32 {
        self.max_queued_requests
    }
}
