//! The KV cache's blocks: which are free, which are owned and how often. A block is free, or owned
//! with a count; the sum never changes. Knows no sequence, token or tensor.

#[cfg(test)]
mod tests;

/// A block of the KV cache: `block_size` slots, one per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockId(pub(crate) u32);

/// Not enough free blocks; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfBlocks;

/// All blocks, allocated at start.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// By block: how many block tables hold it; 0 is free.
    ref_counts: Vec<u32>,
    /// Last in, first out: a block that was just freed is the one still in the processor's cache,
    /// and memory that load never needed is never touched.
    free: Vec<BlockId>,
}

impl BlockPool {
    pub(crate) fn new(num_blocks: u32) -> Self {
        Self {
            ref_counts: vec![0; num_blocks as usize],
            free: (0..num_blocks).rev().map(BlockId).collect(),
        }
    }

    pub(crate) fn num_total(&self) -> usize {
        self.ref_counts.len()
    }

    pub(crate) fn num_free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn num_used(&self) -> usize {
        self.num_total() - self.num_free()
    }

    /// Appends `num_blocks` free blocks to `block_table`, or takes none at all.
    pub(crate) fn allocate(
        &mut self,
        block_table: &mut Vec<BlockId>,
        num_blocks: usize,
    ) -> Result<(), OutOfBlocks> {
        let num_kept = self.free.len().checked_sub(num_blocks).ok_or(OutOfBlocks)?;
        for block in self.free.drain(num_kept..).rev() {
            let ref_count = &mut self.ref_counts[block.0 as usize];
            assert_eq!(*ref_count, 0, "a free block has no owner: {block:?}");
            *ref_count = 1;
            block_table.push(block);
        }
        Ok(())
    }

    /// Empties `block_table`; blocks that no other table holds become free. The tail is freed
    /// first, so that the head of the sequence is the first to be taken again.
    pub(crate) fn release(&mut self, block_table: &mut Vec<BlockId>) {
        while let Some(block) = block_table.pop() {
            let ref_count = &mut self.ref_counts[block.0 as usize];
            assert!(
                *ref_count > 0,
                "only an owned block can be released: {block:?}"
            );
            *ref_count -= 1;
            if *ref_count == 0 {
                self.free.push(block);
            }
        }
    }

    /// How many tables hold the block.
    #[cfg(test)]
    pub(crate) fn ref_count(&self, block: BlockId) -> u32 {
        self.ref_counts[block.0 as usize]
    }
}
