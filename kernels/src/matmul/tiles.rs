//! The loops of a task: pack a block of a, then panel by panel of b pack it and multiply.
#![expect(unsafe_code, reason = "tiles are written through pointers")]

use std::cell::RefCell;
use std::ops::Range;

use super::pack::{LANES, Pack, pack, prefetch_part};
use super::{MAX_RUN, PANEL, Product, Task};
use crate::step::{Line, Output, Place, RowGroup, Step, part, prefetch_at};

/// Packed blocks of one thread, used again and again.
#[derive(Default)]
struct Blocks {
    a: Vec<Line>,
    b: Vec<Line>,
}

thread_local! {
    static BLOCKS: RefCell<Blocks> = RefCell::default();
}

/// All tiles of a task; `max_rows` is what the registers have room for.
///
/// # Safety
/// As [`Product::run`], for the task's part of the output and inside a function compiled for `S`'s
/// instructions.
#[inline(always)]
pub(super) unsafe fn tiles<S: Pack, const MAX_ROWS: usize>(
    step: S,
    product: &Product<'_>,
    task: &Task,
) {
    let mut blocks = BLOCKS.take();
    let Blocks { a, b } = &mut blocks;
    let num_tiles = task.rows.len().div_ceil(MAX_ROWS);
    let tile_rows = |index: usize| {
        let rows = part(task.rows.len(), num_tiles, index);
        task.rows.start + rows.start..task.rows.start + rows.end
    };
    let inner = product.a.columns();
    let num_words = inner.div_ceil(S::PER_WORD);
    let num_runs = num_words.div_ceil(MAX_RUN);
    // Whole lines of words, so that only the last run has less than a line.
    let run_words = num_words.div_ceil(num_runs).next_multiple_of(LANES);
    a.resize(num_tiles * run_words, Line([0; LANES]));
    b.resize(2 * run_words, Line([0; LANES]));
    for start in (0..num_words).step_by(run_words) {
        let words = run_words.min(num_words - start);
        let run = start * S::PER_WORD..inner.min((start + words) * S::PER_WORD);
        // SAFETY: the caller's promise.
        unsafe {
            for (index, lines) in a.chunks_exact_mut(run_words).enumerate() {
                pack(
                    step,
                    &product.a,
                    (tile_rows(index), run.clone()),
                    (lines, 1),
                );
            }
        }
        for column in task.columns.clone().step_by(PANEL) {
            for half in 0..2 {
                let first = column + half * LANES;
                let rows = first.min(task.columns.end)..task.columns.end.min(first + LANES);
                let lines = &mut b[half..2 * words];
                // SAFETY: the caller's promise.
                unsafe { pack(step, &product.b, (rows, run.clone()), (lines, 2)) };
            }
            let next = task.columns.end.min(column + PANEL);
            let next = next..task.columns.end.min(next + PANEL);
            for (index, lines) in a.chunks_exact(run_words).enumerate() {
                // What the next panel is made of comes from memory while this one is multiplied.
                let share = (index, num_tiles);
                prefetch_part(&product.b, (next.clone(), run.clone()), share);
                let tile = Tile {
                    product,
                    rows: tile_rows(index),
                    columns: column..task.columns.end.min(column + PANEL),
                    output: if start == 0 {
                        product.output
                    } else {
                        Output::Add
                    },
                };
                // SAFETY: the tile lies in the task.
                unsafe { tile.compute::<S, MAX_ROWS>(step, &lines[..words], &b[..2 * words]) };
            }
        }
    }
    BLOCKS.set(blocks);
}

/// Some rows by one panel, over one run.
struct Tile<'a> {
    product: &'a Product<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    output: Output,
}

impl Tile<'_> {
    /// # Safety
    /// As [`tiles`].
    #[inline(always)]
    unsafe fn compute<S: Step, const MAX_ROWS: usize>(&self, step: S, a: &[Line], b: &[Line]) {
        /// Tiles of a number of rows, where that is not more than a step can have.
        macro_rules! sizes {
            ($($rows:literal)*) => {
                match self.rows.len() {
                    $($rows if $rows <= MAX_ROWS => self.rows::<S, $rows>(step, a, b),)*
                    rows => unreachable!("a tile of {rows} rows"),
                }
            };
        }
        // SAFETY: the caller's promise.
        unsafe { sizes!(1 2 3 4 5 6 7 8 9 10 11 12) }
    }

    /// R rows.
    ///
    /// # Safety
    /// As [`tiles`].
    #[inline(always)]
    unsafe fn rows<S: Step, const R: usize>(&self, step: S, a: &[Line], b: &[Line]) {
        let none = RowGroup::default();
        let first = self.rows.start * self.product.row_stride + self.columns.start;
        let dst = self.product.dst.wrapping_add(first);
        // SAFETY: the caller's promise.
        unsafe {
            // Loops, not `map`: that became calls, which pass vectors through memory.
            let mut chains = [[step.start(none); 2]; R];
            if self.output == Output::Add {
                for r in 0..R {
                    for half in 0..2 {
                        prefetch_at(dst.wrapping_add(r * self.product.row_stride + half * LANES));
                    }
                }
            }
            for (a, b) in a.iter().zip(b.as_chunks::<2>().0) {
                let lines = [step.line(&raw const b[0]), step.line(&raw const b[1])];
                for (r, chains) in chains.iter_mut().enumerate() {
                    let word = step.word(&raw const a.0[r]);
                    chains[0] = step.step(chains[0], lines[0], word);
                    chains[1] = step.step(chains[1], lines[1], word);
                }
            }
            for (r, chains) in chains.iter().enumerate() {
                for (half, chain) in chains.iter().enumerate() {
                    let place = Place {
                        y: dst.wrapping_add(r * self.product.row_stride + half * LANES),
                        len: self.columns.len().saturating_sub(half * LANES).min(LANES),
                        output: self.output,
                    };
                    let sums = step.close(step.zero(), *chain, (std::ptr::null(), none));
                    step.put(sums, &place);
                }
            }
        }
    }
}
