//! How many items may be sent on a stream: as many as the server grants, so that each is within its
//! reach and none lies in a buffer on the way.

use crate::connection::Server;

/// Room on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credits {
    /// The server grants none: HTTP/2 alone slows the client down.
    Uncounted,
    /// The stream's first message will tell.
    Awaited,
    /// So many more items may be sent.
    Left(u32),
}

impl Credits {
    /// Before the stream's first message.
    pub(super) fn at_start(server: &Server) -> Self {
        if server.grants_credits() {
            Self::Awaited
        } else {
            Self::Uncounted
        }
    }

    pub(super) fn is_some(self) -> bool {
        !matches!(self, Self::Awaited | Self::Left(0))
    }

    /// The stream is open, perhaps to another server than the one it was begun for.
    pub(super) fn opened(&mut self, server: &Server) {
        if !server.grants_credits() {
            *self = Self::Uncounted;
        }
    }

    /// What a message grants.
    pub(super) fn add(&mut self, num_credits: u32) {
        *self = match *self {
            Self::Uncounted => Self::Uncounted,
            Self::Awaited if num_credits == 0 => Self::Uncounted,
            Self::Awaited => Self::Left(num_credits),
            Self::Left(left) => Self::Left(left.saturating_add(num_credits)),
        };
    }

    /// One item goes out.
    pub(super) fn take(&mut self) {
        if let Self::Left(left) = self {
            *left = left.saturating_sub(1);
        }
    }
}
