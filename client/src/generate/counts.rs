//! How a bulk generation went.

/// What happened on the way; printed with the result, so that trouble is not hidden.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkCounts {
    pub num_answered: u64,
    pub num_failed: u64,
    /// Items put off because the server refused them for now.
    pub num_retries: u64,
    /// Items sent again after a broken stream.
    pub num_resent: u64,
    pub num_streams: u64,
}

impl std::ops::Add for BulkCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            num_answered: self.num_answered + other.num_answered,
            num_failed: self.num_failed + other.num_failed,
            num_retries: self.num_retries + other.num_retries,
            num_resent: self.num_resent + other.num_resent,
            num_streams: self.num_streams + other.num_streams,
        }
    }
}
