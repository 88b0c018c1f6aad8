//! Tokenised examples with their labels, in one flat store. No order here: `rng::shuffled` gives it,
//! `pack` turns it into batches. The lines they are made from are read by `data::example`.

use std::ops::Range;

/// One example: the loss is on the ids in `labels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example<'a> {
    pub ids: &'a [u32],
    /// Rising ranges, none of them empty. The first begins at 1 or later: the first token has nothing
    /// before it to be predicted from.
    pub labels: &'a [Range<u32>],
}

impl Example<'_> {
    /// Positions that go through the network: the last token is only ever a label.
    pub fn num_inputs(&self) -> usize {
        self.ids.len() - 1
    }

    pub fn num_labels(&self) -> usize {
        self.labels.iter().map(ExactSizeIterator::len).sum()
    }
}

/// Many examples: 4 bytes a token, 16 an example and 8 a label range.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    ids: Vec<u32>,
    labels: Vec<Range<u32>>,
    ends: Vec<End>,
}

/// Where an example ends in the two lists.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    ids: usize,
    labels: usize,
}

impl Examples {
    /// Adds an example whose ids from `label_start` on are labels.
    pub fn push(&mut self, ids: &[u32], label_start: usize) {
        self.push_labelled(ids, std::slice::from_ref(&(label_start..ids.len())));
    }

    /// Adds an example with at least one label.
    ///
    /// # Panics
    /// Unless the ranges rise, none is empty, the first begins after the first id and the last ends
    /// within the ids: the makers of examples check it where data enters.
    pub fn push_labelled(&mut self, ids: &[u32], labels: &[Range<usize>]) {
        assert!(!labels.is_empty(), "an example needs a label");
        let mut last_end = 1;
        for range in labels {
            assert!(
                range.start >= last_end,
                "the first token cannot be a label; ranges rise"
            );
            assert!(range.start < range.end, "a label range is not empty");
            last_end = range.end;
        }
        assert!(last_end <= ids.len(), "labels are among the ids");
        self.ids.extend_from_slice(ids);
        let narrow = |range: &Range<usize>| range.start as u32..range.end as u32;
        self.labels.extend(labels.iter().map(narrow));
        self.ends.push(End {
            ids: self.ids.len(),
            labels: self.labels.len(),
        });
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn get(&self, index: usize) -> Example<'_> {
        let start = if index == 0 {
            End::default()
        } else {
            self.ends[index - 1]
        };
        let end = self.ends[index];
        Example {
            ids: &self.ids[start.ids..end.ids],
            labels: &self.labels[start.labels..end.labels],
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Example<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Tokens that go through the network in one epoch.
    pub fn num_inputs(&self) -> usize {
        self.ids.len() - self.len()
    }
}

#[cfg(test)]
mod tests;
