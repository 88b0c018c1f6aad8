//! The way from the queue into the running set: what is found in the prefix cache, who waits for a
//! prefix that is being computed, and whether the rest fits.

use super::{Admission, BlockHash, Budget, Scheduler, Sequence, WaitReason, take_chunk};
use crate::{
    engine::{block_pool::BlockId, rank::Rank},
    request::PrefixCache,
};

/// What became of the first waiting sequence.
enum Attempt {
    Admitted,
    /// The prefix it shares is being computed: it is passed over, for as long as that takes.
    Deferred(Rank),
    /// It does not fit now, and nobody overtakes it.
    Refused(WaitReason),
}

impl Scheduler {
    /// Starts waiting sequences while sequences, tokens and blocks last; stops at the first that does
    /// not fit, so that none is overtaken for ever.
    pub(super) fn admit(&mut self, budget: &mut Budget) {
        self.wait_reason = None;
        let mut passed = None;
        // Looking at more than could run is of no use: whoever is passed over comes next.
        for _ in 0..2 * self.limits.max_num_seqs {
            let refused = if self.running.len() >= self.limits.max_num_seqs {
                Some(WaitReason::Sequences)
            } else if budget.num_tokens == 0 || budget.num_logits_rows == 0 {
                Some(WaitReason::Tokens)
            } else {
                None
            };
            if refused.is_some() {
                self.wait_reason = self.wait_reason.or(refused);
                return;
            }
            let Some(sequence) = self.waiting.take_after(passed, self.admission) else {
                if self.admission == Admission::OnlyReadmission {
                    self.wait_reason = Some(WaitReason::Swap);
                }
                return;
            };
            match self.try_admit(sequence, budget) {
                Attempt::Admitted => {}
                Attempt::Deferred(rank) => {
                    passed = Some(rank);
                    self.wait_reason = Some(WaitReason::Prefix);
                }
                Attempt::Refused(reason) => {
                    self.wait_reason = self.wait_reason.or(Some(reason));
                    return;
                }
            }
        }
    }

    fn try_admit(&mut self, mut sequence: Sequence, budget: &mut Budget) -> Attempt {
        let names = self.shareable_names(&mut sequence);
        let hits = self.prefix_hits(&sequence, &names);
        let missing = names.get(hits.len());
        if missing.is_some_and(|missing| self.is_being_computed(*missing, hits.len())) {
            let rank = sequence.rank;
            self.waiting.insert(sequence);
            return Attempt::Deferred(rank);
        }
        if !self.try_take_blocks(&mut sequence, &hits) {
            self.waiting.insert(sequence);
            return Attempt::Refused(WaitReason::Blocks);
        }
        let num_cached_tokens = hits.len() * self.limits.block_size;
        sequence.num_computed_tokens = num_cached_tokens;
        sequence.num_published_blocks = hits.len();
        if !sequence.was_admitted {
            sequence.counts.num_cached_tokens = num_cached_tokens as u32;
            self.num_cached_tokens += num_cached_tokens;
        }
        self.num_prefill_tokens += take_chunk(&mut sequence, budget);
        sequence.was_admitted = true;
        let place = self
            .running
            .partition_point(|running| running.rank < sequence.rank);
        self.running.insert(place, sequence);
        Attempt::Admitted
    }

    /// Full blocks at the front of the sequence that were computed before and are still there.
    fn prefix_hits(&self, sequence: &Sequence, names: &[BlockHash]) -> Vec<BlockId> {
        let mut hits = Vec::new();
        let mut parent = self.hash_root;
        for (index, hash) in names.iter().enumerate() {
            let start = index * self.limits.block_size;
            let tokens = &sequence.tokens()[start..start + self.limits.block_size];
            match self.pool.find(*hash, parent, tokens) {
                Some(block) => hits.push(block),
                None => break,
            }
            parent = *hash;
        }
        hits
    }

    /// Names of the blocks that could come from the cache: the first token whose logits are wanted
    /// has to be computed.
    fn shareable_names(&self, sequence: &mut Sequence) -> Vec<BlockHash> {
        if sequence.prefix_cache == PrefixCache::Bypass {
            return Vec::new();
        }
        let block_size = self.limits.block_size;
        let num_blocks = sequence.first_logits_place() / block_size;
        sequence.hashes(self.hash_root, block_size)[..num_blocks].to_vec()
    }

    /// Whether a running sequence is about to publish the block `name` as its block `index`.
    fn is_being_computed(&mut self, name: BlockHash, index: usize) -> bool {
        let (root, block_size) = (self.hash_root, self.limits.block_size);
        self.running.iter_mut().any(|running| {
            running.prefix_cache == PrefixCache::Use
                && index >= running.num_published_blocks
                && index < running.num_tokens_to_compute() / block_size
                && running.hashes(root, block_size).get(index) == Some(&name)
        })
    }

    /// The hits, and new blocks for all other tokens that the sequence has now; or none.
    fn try_take_blocks(&mut self, sequence: &mut Sequence, hits: &[BlockId]) -> bool {
        let num_needed = self.limits.num_blocks_for(sequence.num_tokens_to_compute());
        let num_new = num_needed - hits.len();
        let num_free_hits = hits
            .iter()
            .filter(|block| self.pool.is_free(**block))
            .count();
        let num_kept_free = if self.running.is_empty() {
            0
        } else {
            self.limits.num_watermark_blocks()
        };
        if self.pool.num_free() < num_new + num_free_hits + num_kept_free {
            return false;
        }
        for &block in hits {
            self.pool.share(&mut sequence.block_table, block);
        }
        let taken = self.pool.allocate(&mut sequence.block_table, num_new);
        taken.expect("free blocks were counted just now");
        true
    }
}
