//! Who may come in: a bounded number of sequences, no request twice under one id, none while the
//! server drains. A [`Permit`] is held from admission to the end of the answer, streams included.
//! What is under way can be ended by its id.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::RequestError;

#[cfg(test)]
mod tests;

/// The server's door.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    /// One unit for each sequence: a request of n answers takes n times the memory of one, so it
    /// counts n times.
    room: Arc<Semaphore>,
    max_queued_requests: u32,
    draining: CancellationToken,
    live: LiveRequests,
}

/// Within what a `request_id` must be unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdScope {
    /// The connection, by its remote address, so that two programs that number their questions alike
    /// do not collide, and a request may be sent again when its connection broke.
    Connection(Option<SocketAddr>),
    /// One batch stream, by its number.
    Batch(u64),
}

/// By id, then by scope: few ids are alive in more than one.
#[derive(Debug, Clone, Default)]
struct LiveRequests(Arc<Mutex<HashMap<String, Vec<Live>>>>);

#[derive(Debug)]
struct Live {
    scope: IdScope,
    abort: CancellationToken,
}

/// The right to be in the queue or running. Gives its room back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _room: OwnedSemaphorePermit,
    id: LiveId,
}

/// A request's id while it is under way; free again when dropped.
#[derive(Debug)]
pub(crate) struct LiveId {
    scope: IdScope,
    request_id: String,
    abort: CancellationToken,
    live: LiveRequests,
}

impl LiveRequests {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Resolves when the request is to end by [`Admission::abort`].
    pub(crate) async fn aborted(&self) {
        self.id.abort.cancelled().await;
    }
}

impl Drop for LiveId {
    fn drop(&mut self) {
        let mut live = self.live.lock();
        if let Some(same_id) = live.get_mut(&self.request_id) {
            same_id.retain(|each| each.scope != self.scope);
            if same_id.is_empty() {
                live.remove(&self.request_id);
            }
        }
    }
}

impl Admission {
    pub(crate) fn new(max_queued_requests: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(max_queued_requests as usize)),
            max_queued_requests,
            draining: CancellationToken::new(),
            live: LiveRequests::default(),
        }
    }

    /// From here on the request can be ended by its id; the id must not be in use.
    pub(crate) fn register(
        &self,
        scope: IdScope,
        request_id: &str,
    ) -> Result<LiveId, RequestError> {
        self.refuse_while_draining()?;
        let abort = CancellationToken::new();
        let mut live = self.live.lock();
        let same_id = live.entry(request_id.to_owned()).or_default();
        if same_id.iter().any(|each| each.scope == scope) {
            return Err(RequestError::DuplicateId(request_id.to_owned()));
        }
        same_id.push(Live {
            scope,
            abort: abort.clone(),
        });
        drop(live);
        Ok(LiveId {
            scope,
            request_id: request_id.to_owned(),
            abort,
            live: self.live.clone(),
        })
    }

    /// Room for a request of so many sequences now, or a refusal.
    pub(crate) fn admit(&self, id: LiveId, num_sequences: u32) -> Result<Permit, RequestError> {
        // First, since a drain takes all the room there is.
        self.refuse_while_draining()?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(num_sequences);
        let room = room.map_err(|_| RequestError::QueueFull {
            max_queued_requests: self.max_queued_requests,
        })?;
        Ok(Permit { _room: room, id })
    }

    /// Waits for room: for batches, which read their next item only while there is some.
    pub(crate) async fn wait_for_room(
        &self,
        id: LiveId,
        num_sequences: u32,
    ) -> Result<Permit, RequestError> {
        let room = Arc::clone(&self.room).acquire_many_owned(num_sequences);
        tokio::select! {
            biased;
            () = self.draining.cancelled() => Err(RequestError::Draining),
            () = id.abort.cancelled() => Err(RequestError::Aborted),
            room = room => {
                let room = room.expect("the semaphore is never closed");
                Ok(Permit { _room: room, id })
            }
        }
    }

    /// Ends the requests with these ids, in whatever scope; how many there were.
    pub(crate) fn abort(&self, request_ids: &[String]) -> u32 {
        let live = self.live.lock();
        let mut num_aborted = 0;
        for same_id in request_ids.iter().filter_map(|id| live.get(id)) {
            for each in same_id.iter().filter(|each| !each.abort.is_cancelled()) {
                each.abort.cancel();
                num_aborted += 1;
            }
        }
        num_aborted
    }

    /// Requests under way.
    pub(crate) fn num_unfinished(&self) -> usize {
        self.live.lock().values().map(Vec::len).sum()
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
