//! What can go wrong between processes, as values that name the rank.

use std::time::Duration;

/// Every failure of a group. Cloned for the calls that follow the first failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// What the environment says of this process does not hold together.
    #[error("ranks: {}", .0.join("; "))]
    Environment(Vec<String>),
    /// Not all came to the meeting point.
    #[error("{who} did not come to {meeting} within {} s; {hint}", limit.as_secs_f64())]
    Missing {
        who: String,
        meeting: String,
        limit: Duration,
        hint: String,
    },
    /// Another rank is of another run or of another group.
    #[error("{peer} refused this process: {reason}")]
    Refused { peer: String, reason: String },
    /// No connection, for a reason that waiting does not mend.
    #[error("{address}: {what}")]
    Network { address: String, what: String },
    #[error("nothing from rank {rank} for {} s, the time limit: it hangs or its machine is gone", limit.as_secs_f64())]
    Silent { rank: usize, limit: Duration },
    #[error("rank {rank} has ended or lost its connection ({what}); its own message says why")]
    Gone { rank: usize, what: String },
    #[error("rank {rank} is at {theirs}, this one at {ours}: the ranks no longer do the same")]
    OutOfStep {
        rank: usize,
        theirs: String,
        ours: String,
    },
    #[error("broadcast of {bytes} bytes: at most {limit}")]
    TooLong { bytes: usize, limit: usize },
    /// The accelerator's library.
    #[error("{0}")]
    Device(String),
}

impl From<cuda::Error> for GroupError {
    fn from(error: cuda::Error) -> Self {
        Self::Device(error.to_string())
    }
}

impl GroupError {
    /// The rank whose failure this is, as others are told.
    pub(super) fn culprit(&self) -> Option<usize> {
        match self {
            Self::Silent { rank, .. } | Self::Gone { rank, .. } | Self::OutOfStep { rank, .. } => {
                Some(*rank)
            }
            _ => None,
        }
    }
}
