//! What a computed step changes: tokens are appended, blocks become findable, sequences end.

use super::{BlockHash, Scheduler, Sequence, under_way};
use crate::{
    engine::{block_pool::BlockPool, runner::Sampled},
    request::{Counts, FinishReason, PrefixCache, SequenceId, TokenLogprobs},
};

/// One thing that a step did to a sequence, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Progress {
    Token(SequenceId, Sampled),
    Scored(SequenceId, TokenLogprobs),
    End {
        id: SequenceId,
        reason: FinishReason,
        counts: Counts,
    },
    /// Its logits were not finite; it has ended.
    NotFinite(SequenceId),
}

/// How a sequence leaves a step.
enum Outcome {
    GoesOn,
    Ended(FinishReason),
    NotFinite,
}

impl Scheduler {
    /// The oldest step under way was computed: `outcomes` holds one entry for each row of its batch,
    /// in order; `None` ends the sequence. `progress` receives what follows from it. Rows of sequences
    /// that have ended since it was decided come to nothing.
    pub(crate) fn advance(
        &mut self,
        outcomes: &mut Vec<Option<Sampled>>,
        progress: &mut Vec<Progress>,
    ) {
        let step = self.under_way.pop_front();
        let step = step.expect("outcomes are those of a step under way");
        let mut outcomes = outcomes.drain(..);
        let mut num_gone = 0;
        for share in &step.shares {
            let rows = outcomes.by_ref().take(share.num_rows);
            let Some(sequence) = under_way::find(&mut self.running, share) else {
                rows.for_each(drop);
                continue;
            };
            sequence.end_step(share);
            let outcome = if sequence.is_score() {
                take_scores(sequence, rows, progress)
            } else {
                take_tokens(sequence, rows, progress)
            };
            publish(
                &mut self.pool,
                sequence,
                self.hash_root,
                self.limits.block_size,
            );
            let id = sequence.id;
            match outcome {
                Outcome::GoesOn => continue,
                Outcome::Ended(reason) => {
                    let counts = sequence.counts;
                    progress.push(Progress::End { id, reason, counts });
                }
                Outcome::NotFinite => progress.push(Progress::NotFinite(id)),
            }
            self.pool.release(&mut sequence.block_table);
            num_gone += 1;
        }
        assert!(outcomes.next().is_none(), "a row without a sequence");
        if num_gone > 0 {
            self.drop_ended();
        }
    }
}

/// The rows of a sequence that generates: the first draws the next token, and each draft that was
/// drawn as well makes the row after it count. What was computed for other drafts is void: its slots
/// are written again.
fn take_tokens(
    sequence: &mut Sequence,
    mut rows: impl Iterator<Item = Option<Sampled>>,
    progress: &mut Vec<Progress>,
) -> Outcome {
    let drafts = std::mem::take(&mut sequence.drafts);
    let mut outcome = Outcome::GoesOn;
    let mut num_right = 0;
    for row in rows.by_ref() {
        let Some(sampled) = row else {
            outcome = Outcome::NotFinite;
            break;
        };
        let token = sampled.token;
        progress.push(Progress::Token(sequence.id, sampled));
        let is_right = drafts.get(num_right) == Some(&token);
        num_right += usize::from(is_right);
        if let Some(reason) = sequence.push(token) {
            outcome = Outcome::Ended(reason);
            break;
        }
        if !is_right {
            break;
        }
    }
    rows.for_each(drop);
    sequence.num_computed_tokens += num_right;
    sequence.learn_from_drafts(drafts.len(), num_right);
    outcome
}

fn take_scores(
    sequence: &mut Sequence,
    mut rows: impl Iterator<Item = Option<Sampled>>,
    progress: &mut Vec<Progress>,
) -> Outcome {
    let mut outcome = Outcome::GoesOn;
    for row in rows.by_ref() {
        let Some(logprobs) = row.and_then(|sampled| sampled.logprobs) else {
            outcome = Outcome::NotFinite;
            break;
        };
        progress.push(Progress::Scored(sequence.id, logprobs));
        if let Some(reason) = sequence.pass_scored() {
            outcome = Outcome::Ended(reason);
        }
    }
    rows.for_each(drop);
    outcome
}

/// Makes the blocks findable that this step has filled.
fn publish(pool: &mut BlockPool, sequence: &mut Sequence, root: BlockHash, block_size: usize) {
    if sequence.prefix_cache == PrefixCache::Bypass {
        return;
    }
    let num_full = sequence.num_computed_tokens / block_size;
    for index in sequence.num_published_blocks..num_full {
        let content = sequence.content(index, root, block_size);
        pool.publish(sequence.block_table[index], content);
    }
    sequence.num_published_blocks = num_full;
}
