//! The KV cache's blocks: which are free, which are owned and how often, and what full ones hold. A
//! block is free, or owned with a count; the sum never changes. A free block keeps its content until
//! it is taken for something else, so a prefix that was computed once is found again. Knows no
//! sequence and no tensor.

mod free_list;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::free_list::FreeList;
use super::block_hash::BlockHash;

/// A block of the KV cache: `block_size` slots, one per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockId(pub(crate) u32);

/// Not enough free blocks; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfBlocks;

/// All blocks, allocated at start.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks without content first, the last freed of them at the very front, since it is still in
    /// the processor's cache; then those with content, the least recently used first.
    free: FreeList,
    /// The blocks with content, by name.
    by_hash: HashMap<BlockHash, BlockId>,
    num_free_with_content: usize,
}

#[derive(Debug, Default)]
struct Block {
    /// How many block tables hold it; 0 is free.
    ref_count: u32,
    content: Option<Content>,
}

/// What a full block holds, spelled out: a name that matches is not believed, it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub hash: BlockHash,
    /// The block before it in its sequence, or the root.
    pub parent: BlockHash,
    pub tokens: Box<[u32]>,
}

impl BlockPool {
    pub(crate) fn new(num_blocks: u32) -> Self {
        Self {
            blocks: (0..num_blocks).map(|_| Block::default()).collect(),
            free: FreeList::full(num_blocks),
            by_hash: HashMap::new(),
            num_free_with_content: 0,
        }
    }

    pub(crate) fn num_total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that may be taken, those with content included.
    pub(crate) fn num_free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn num_used(&self) -> usize {
        self.num_total() - self.num_free()
    }

    /// Free blocks whose content can still be found.
    pub(crate) fn num_cached(&self) -> usize {
        self.num_free_with_content
    }

    pub(crate) fn is_free(&self, block: BlockId) -> bool {
        self.blocks[block.0 as usize].ref_count == 0
    }

    /// Appends `num_blocks` free blocks to `block_table`, or takes none at all. What they held is
    /// forgotten.
    pub(crate) fn allocate(
        &mut self,
        block_table: &mut Vec<BlockId>,
        num_blocks: usize,
    ) -> Result<(), OutOfBlocks> {
        if num_blocks > self.free.len() {
            return Err(OutOfBlocks);
        }
        for _ in 0..num_blocks {
            let id = self.free.pop_first().expect("counted just now");
            let block = &mut self.blocks[id.0 as usize];
            assert_eq!(block.ref_count, 0, "a free block has no owner: {id:?}");
            block.ref_count = 1;
            if let Some(content) = block.content.take() {
                self.by_hash.remove(&content.hash);
                self.num_free_with_content -= 1;
            }
            block_table.push(id);
        }
        Ok(())
    }

    /// The block that holds `tokens` after `parent`, if there is one.
    pub(crate) fn find(
        &self,
        hash: BlockHash,
        parent: BlockHash,
        tokens: &[u32],
    ) -> Option<BlockId> {
        let id = *self.by_hash.get(&hash)?;
        let content = self.blocks[id.0 as usize].content.as_ref()?;
        (content.parent == parent && *content.tokens == *tokens).then_some(id)
    }

    /// Appends a block that was found to one more table.
    pub(crate) fn share(&mut self, block_table: &mut Vec<BlockId>, id: BlockId) {
        let block = &mut self.blocks[id.0 as usize];
        assert!(block.content.is_some(), "only a known block is shared");
        if block.ref_count == 0 {
            self.free.remove(id);
            self.num_free_with_content -= 1;
        }
        block.ref_count += 1;
        block_table.push(id);
    }

    /// Makes an owned, full block findable. Where another block holds the same already, this one
    /// stays unknown: tables are never rewritten.
    pub(crate) fn publish(&mut self, id: BlockId, content: Content) {
        let block = &mut self.blocks[id.0 as usize];
        assert!(block.ref_count > 0, "only an owned block is published");
        if block.content.is_none() && !self.by_hash.contains_key(&content.hash) {
            self.by_hash.insert(content.hash, id);
            block.content = Some(content);
        }
    }

    /// Empties `block_table`; blocks that no other table holds become free. The tail is freed
    /// first, so that of a prefix the end is forgotten before the beginning.
    pub(crate) fn release(&mut self, block_table: &mut Vec<BlockId>) {
        while let Some(id) = block_table.pop() {
            let block = &mut self.blocks[id.0 as usize];
            assert!(
                block.ref_count > 0,
                "only an owned block can be released: {id:?}"
            );
            block.ref_count -= 1;
            if block.ref_count > 0 {
                continue;
            }
            if block.content.is_some() {
                self.num_free_with_content += 1;
                self.free.push_last(id);
            } else {
                self.free.push_first(id);
            }
        }
    }

    /// How many tables hold the block.
    #[cfg(test)]
    pub(crate) fn ref_count(&self, id: BlockId) -> u32 {
        self.blocks[id.0 as usize].ref_count
    }
}
