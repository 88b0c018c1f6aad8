//! Who goes first: by arrival, moved by priority. One step of priority is worth a fixed number of
//! arrivals, so a request is overtaken a bounded number of times, and no clock is needed to keep the
//! impatient from starving the patient.

use crate::request::SequenceId;

/// A request of priority p is treated as if it had arrived p times so many arrivals later.
pub(crate) const ARRIVALS_PER_PRIORITY: i64 = 1024;

/// Smaller goes first. Ids rise with arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    virtual_arrival: i64,
    id: SequenceId,
}

impl Rank {
    pub(crate) fn new(id: SequenceId, priority: i32) -> Self {
        Self {
            virtual_arrival: id.0.cast_signed() + i64::from(priority) * ARRIVALS_PER_PRIORITY,
            id,
        }
    }

    pub(super) fn id(self) -> SequenceId {
        self.id
    }
}
