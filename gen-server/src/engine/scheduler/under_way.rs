//! Steps that were handed over and whose results are not there yet. While one is under way the next one
//! can be decided: where a sequence stands then is known but for the token that is being drawn, and
//! that token is *carried* from the one step to the other by the runner.
//!
//! What is foreseen and what is not:
//! - The length of an answer is known ahead: no step is decided beyond the last token that it may have.
//! - A stop token, a row that is not finite, a failed step and a caller that goes are not. The sequence
//!   is removed as soon as one of them is known; what the next step computes for it comes to nothing.
//! - A sequence whose next draw looks at its last token (penalties) waits until that is known: beside
//!   others it has a part in every other step.
//! - Guesses are made from the last token, so with speculation the engine makes one step at a time.
//! - Who gives blocks back when they run out is decided with nothing under way: a sequence that waits
//!   in the queue is never part of a step under way.
//!
//! Why blocks may be freed, and taken by the step after, while a step under way still writes to them or
//! reads them: the runner computes steps in the order in which they are submitted, so every write and
//! read of an earlier step is over before the first of a later one.
//! - A block that is freed goes to steps that are decided later, hence computed later. Its new owner
//!   reads only slots that it wrote itself, in that step or after; what a surplus row left there is
//!   written over first.
//! - A block is published when the step that filled it is collected, for a sequence that runs until
//!   then, with tokens that are known: never what was computed for a surplus row, for a wrong guess or
//!   by a failed step. From then on nobody writes to it: its sequence writes at `next_place` and later,
//!   which lies behind every computed token, and a surplus row is at such a place too.
//! - A published block that becomes free and is taken for something else is written by a later step
//!   than all that found it before.

use super::{Scheduler, Sequence};
use crate::{
    engine::{batch::StepBatch, sequence::Share},
    request::SequenceId,
};

/// A step under way: what it computes for whom, in the order of its rows.
#[derive(Debug)]
pub(super) struct Step {
    pub shares: Vec<Share>,
}

impl Scheduler {
    /// The last schedule as arrays, to be handed over: from here on it is under way.
    pub(crate) fn start_step(&mut self, batch: &mut StepBatch) {
        batch.clear();
        let mut shares = Vec::with_capacity(self.running.len());
        for sequence in &mut self.running {
            if sequence.num_scheduled_tokens > 0 {
                let first_row = batch.rows.len() as u32;
                batch.push(sequence, self.limits.block_size);
                shares.push(sequence.start_step(first_row));
            }
        }
        self.under_way.push_back(Step { shares });
    }

    pub(crate) fn num_steps_under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The step that was started last could not be handed over: its sequences are removed and named,
    /// whatever an older step is drawing for them.
    pub(crate) fn abandon_newest_step(&mut self) -> Vec<SequenceId> {
        let step = self.under_way.pop_back();
        self.remove_sequences_of(&step.expect("a step was started"))
    }

    /// The oldest step under way failed: its sequences are removed and named. With them goes what the
    /// next step computes from tokens that this one was to draw.
    pub(crate) fn abandon_oldest_step(&mut self) -> Vec<SequenceId> {
        let step = self.under_way.pop_front();
        self.remove_sequences_of(&step.expect("a step is under way"))
    }

    fn remove_sequences_of(&mut self, step: &Step) -> Vec<SequenceId> {
        let mut lost = Vec::new();
        for share in &step.shares {
            if let Some(sequence) = find(&mut self.running, share) {
                lost.push(sequence.id);
                self.pool.release(&mut sequence.block_table);
            }
        }
        self.drop_ended();
        lost
    }

    /// A running sequence always holds blocks, so an empty table marks the ended ones.
    pub(super) fn drop_ended(&mut self) {
        self.running
            .retain(|sequence| !sequence.block_table.is_empty());
    }

    /// Panics unless what each sequence believes to be under way is so, and nothing else.
    #[cfg(test)]
    pub(super) fn assert_shares_add_up(&self) {
        for sequence in &self.running {
            let shares = self.under_way.iter().flat_map(|step| &step.shares);
            let own = shares.filter(|share| share.rank == sequence.rank);
            let (mut num_tokens, mut num_rows) = (0, 0);
            for share in own {
                num_tokens += share.num_tokens;
                num_rows += share.num_rows.min(1);
            }
            let num_draws = if sequence.is_score() { 0 } else { num_rows };
            assert_eq!(sequence.num_tokens_under_way, num_tokens);
            assert_eq!(sequence.draws_under_way.len(), num_draws);
        }
        for sequence in self.waiting.iter() {
            assert_eq!(sequence.num_tokens_under_way, 0, "{} waits", sequence.id);
            assert!(sequence.knows_its_tokens(), "{} waits", sequence.id);
        }
    }
}

/// Whose share it is; `None` if that sequence has ended since.
pub(super) fn find<'a>(running: &'a mut [Sequence], share: &Share) -> Option<&'a mut Sequence> {
    let place = running.binary_search_by_key(&share.rank, |sequence| sequence.rank);
    place.ok().map(|place| &mut running[place])
}
