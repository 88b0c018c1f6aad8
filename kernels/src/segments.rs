//! Independent examples that lie one after another in a packed batch.

use std::ops::Range;

use crate::error::{Error, Result};

/// The lengths of the examples of a packed batch, as running sums: example i is the rows
/// `starts[i]..starts[i + 1]`. Attention never crosses from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Never empty; begins with 0 and never falls.
    starts: Vec<usize>,
}

impl Segments {
    /// Segments of these lengths, in this order. Empty ones are allowed.
    pub fn from_lengths(lengths: &[usize]) -> Self {
        let mut starts = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            starts.push(end);
        }
        Self { starts }
    }

    /// Segments from running sums of their lengths ("cu_seqlens": 0 first, the total last).
    pub fn from_cu_seqlens(cu_seqlens: &[u32]) -> Result<Self> {
        if cu_seqlens.first() != Some(&0) || !cu_seqlens.is_sorted() {
            return Err(Error::Value {
                op: "Segments::from_cu_seqlens",
                argument: "cu_seqlens",
                expected: "running sums that begin with 0".to_owned(),
                found: format!("{cu_seqlens:?}"),
            });
        }
        Ok(Self {
            starts: cu_seqlens.iter().map(|start| *start as usize).collect(),
        })
    }

    /// Rows of the whole packed batch.
    pub fn num_tokens(&self) -> usize {
        *self.starts.last().expect("starts is never empty")
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of each segment, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }
}

#[cfg(test)]
mod tests;
