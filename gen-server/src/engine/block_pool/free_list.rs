//! The free blocks in the order in which they will be taken: a doubly linked list through an array, so
//! that a block that is hit in the prefix cache leaves from the middle in constant time.

use super::BlockId;

/// See the file's head. Every block is in the list, or out of it, once.
#[derive(Debug)]
pub(super) struct FreeList {
    /// By block, and one more at the end: the ring's anchor, before the first and after the last.
    links: Vec<Link>,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    previous: u32,
    next: u32,
}

/// Of a block that is not in the list.
const OUTSIDE: Link = Link {
    previous: u32::MAX,
    next: u32::MAX,
};

impl FreeList {
    /// All blocks, the lowest first.
    pub(super) fn full(num_blocks: u32) -> Self {
        let ring = num_blocks + 1;
        let links = (0..ring).map(|index| Link {
            previous: (index + ring - 1) % ring,
            next: (index + 1) % ring,
        });
        Self {
            links: links.collect(),
            len: num_blocks as usize,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The block to be taken next.
    pub(super) fn pop_first(&mut self) -> Option<BlockId> {
        let first = self.links[self.anchor() as usize].next;
        (first != self.anchor()).then(|| {
            self.remove(BlockId(first));
            BlockId(first)
        })
    }

    /// To be taken before all others.
    pub(super) fn push_first(&mut self, block: BlockId) {
        self.insert_after(self.anchor(), block);
    }

    /// To be taken after all others.
    pub(super) fn push_last(&mut self, block: BlockId) {
        let last = self.links[self.anchor() as usize].previous;
        self.insert_after(last, block);
    }

    /// Takes a block out, wherever it is.
    pub(super) fn remove(&mut self, block: BlockId) {
        let link = self.links[block.0 as usize];
        assert_ne!(link, OUTSIDE, "{block:?} is not free");
        self.links[link.previous as usize].next = link.next;
        self.links[link.next as usize].previous = link.previous;
        self.links[block.0 as usize] = OUTSIDE;
        self.len -= 1;
    }

    fn insert_after(&mut self, previous: u32, block: BlockId) {
        assert_eq!(self.links[block.0 as usize], OUTSIDE, "{block:?} is free");
        let next = self.links[previous as usize].next;
        self.links[previous as usize].next = block.0;
        self.links[next as usize].previous = block.0;
        self.links[block.0 as usize] = Link { previous, next };
        self.len += 1;
    }

    fn anchor(&self) -> u32 {
        self.links.len() as u32 - 1
    }
}
