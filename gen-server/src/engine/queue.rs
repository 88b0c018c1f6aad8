//! Who waits, in the order of their ranks, and who of them was admitted before.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{rank::Rank, sequence::Sequence};
use crate::request::SequenceId;

/// Whether waiting requests may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    /// Only those that were admitted before and preempted: a swap of weights is due, and they have
    /// to end under the old ones.
    OnlyReadmission,
}

/// Sequences that hold no blocks.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    by_rank: BTreeMap<Rank, Sequence>,
    /// Those that were admitted before.
    readmissions: BTreeSet<Rank>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.by_rank.len()
    }

    pub(crate) fn has_readmissions(&self) -> bool {
        !self.readmissions.is_empty()
    }

    pub(crate) fn insert(&mut self, sequence: Sequence) {
        if sequence.was_admitted {
            self.readmissions.insert(sequence.rank);
        }
        let before = self.by_rank.insert(sequence.rank, sequence);
        assert!(before.is_none(), "ids are unique");
    }

    /// Takes the first sequence that may start and comes after `passed`.
    pub(crate) fn take_after(
        &mut self,
        passed: Option<Rank>,
        admission: Admission,
    ) -> Option<Sequence> {
        let after = (
            passed.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let rank = match admission {
            Admission::Open => self.by_rank.range(after).next().map(|(rank, _)| *rank),
            Admission::OnlyReadmission => self.readmissions.range(after).next().copied(),
        };
        self.remove(rank?)
    }

    /// Removes those that `is_gone` names among the first `num_looked_at`.
    pub(crate) fn sweep(
        &mut self,
        num_looked_at: usize,
        mut is_gone: impl FnMut(SequenceId) -> bool,
    ) {
        let first = self.by_rank.keys().take(num_looked_at);
        let gone: Vec<Rank> = first.copied().filter(|rank| is_gone(rank.id())).collect();
        for rank in gone {
            self.remove(rank);
        }
    }

    fn remove(&mut self, rank: Rank) -> Option<Sequence> {
        self.readmissions.remove(&rank);
        self.by_rank.remove(&rank)
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.by_rank.values()
    }
}
