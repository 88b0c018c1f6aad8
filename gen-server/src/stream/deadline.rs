//! When a request must be over.

use std::future::Future;

use tokio::time::{Instant, timeout_at};

use crate::error::RequestError;

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

    pub(crate) fn at(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::TimeLimit(at) | Self::Call(at) => Some(at),
        }
    }

    /// For what has no use of a part: a time limit fails it, too.
    pub(crate) fn of_the_whole(self) -> Self {
        self.at().map_or(Self::None, Self::Call)
    }

    /// What `future` gives before the deadline; an error after it.
    pub(crate) async fn bound<T>(self, future: impl Future<Output = T>) -> Result<T, RequestError> {
        match self.at() {
            None => Ok(future.await),
            Some(at) => timeout_at(at, future)
                .await
                .map_err(|_| RequestError::DeadlineExceeded),
        }
    }
}
