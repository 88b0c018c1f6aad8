//! The loops of a product: tasks for the crew, and the tiles of a task.
#![expect(
    unsafe_code,
    reason = "disjoint parts of one output are written by many threads"
)]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use std::ops::Range;

use super::weight::{RUN, Weight};
use super::{Activations, PANEL, portable};
use crate::crew::{Crew, Shareable};
use crate::step::{Isa, Line, Output, Place, RowGroup, Step, part};

/// Rows of a task at most: their words of a run stay in a level-2 cache (252 KiB) while panels pass.
const MAX_TASK_ROWS: usize = 252;
/// Multiplications that a task should have at least: a few microseconds of reading weights.
const MIN_TASK_WORK: usize = 1 << 16;
/// Tasks for each thread, so that one that is late leaves its share to the others.
const TASKS_PER_THREAD: usize = 4;

/// Operands and output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product<'a> {
    pub(super) x: &'a Activations,
    pub(super) w: &'a Weight,
    y: Shareable<f32>,
    output: Output,
}

/// A rectangle of the output.
#[derive(Clone, Debug)]
pub(super) struct Task {
    rows: Range<usize>,
    panels: Range<usize>,
}

/// Sizes were checked by [`super::linear_packed`].
pub(super) fn product(
    x: &Activations,
    w: &Weight,
    (y, output): (&mut [f32], Output),
    (crew, isa): (&Crew, Isa),
) {
    let (T, O) = (x.num_rows(), w.num_outputs());
    assert_eq!(y.len(), T * O, "output of {x:?} by {w:?}");
    if T * O == 0 {
        return;
    }
    if w.num_inputs() == 0 {
        if output == Output::Overwrite {
            y.fill(0.0);
        }
        return;
    }
    let product = Product {
        x,
        w,
        y: Shareable(y.as_mut_ptr()),
        output,
    };
    let grid = Grid::new(&product, crew.num_threads());
    // SAFETY: a task's rectangle lies in y, which is borrowed for us, and no two overlap; the
    // instruction set was detected.
    crew.for_each(grid.num_tasks(), |i| unsafe {
        compute(&product, &grid.task(i), isa);
    });
}

/// # Safety
/// The task must lie inside the product's sizes, nobody else may access its part of y during the
/// call, and the machine must have the instruction set.
unsafe fn compute(product: &Product<'_>, task: &Task, isa: Isa) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(has) => super::avx512::compute(product, task, has),
            Isa::Portable => portable::compute(product, task),
        }
    }
}

/// How the output is cut into tasks: panels first, so that the weights are read once by all
/// threads together; rows as well where there are many.
#[derive(Clone, Copy, Debug)]
struct Grid {
    T: usize,
    num_panels: usize,
    row_parts: usize,
    task_panels: usize,
}

impl Grid {
    fn new(product: &Product<'_>, num_threads: usize) -> Self {
        let (T, num_panels) = (product.x.num_rows(), product.w.num_panels());
        let work = T * num_panels * PANEL * product.w.num_inputs();
        let wanted = (work / MIN_TASK_WORK).clamp(1, TASKS_PER_THREAD * num_threads);
        let wanted = if num_threads == 1 { 1 } else { wanted };
        let mut row_parts = T.div_ceil(MAX_TASK_ROWS);
        let panel_parts = wanted.div_ceil(row_parts).min(num_panels);
        // Fewer panels than threads.
        row_parts = row_parts.max(wanted.div_ceil(panel_parts).min(T.div_ceil(48)));
        Self {
            T,
            num_panels,
            row_parts,
            task_panels: num_panels.div_ceil(panel_parts),
        }
    }

    fn num_tasks(&self) -> usize {
        self.row_parts * self.num_panels.div_ceil(self.task_panels)
    }

    fn task(&self, index: usize) -> Task {
        let (row_part, panel_part) = (index % self.row_parts, index / self.row_parts);
        let first = panel_part * self.task_panels;
        Task {
            rows: part(self.T, self.row_parts, row_part),
            panels: first..self.num_panels.min(first + self.task_panels),
        }
    }
}

/// All tiles of a task. Panels of a group are read at once: with few rows, several are needed for
/// their chains of additions to fill the time that one takes.
///
/// # Safety
/// As [`compute`], inside a function compiled for `S`'s instructions.
#[inline(always)]
pub(super) unsafe fn tiles<S: Step>(step: S, product: &Product<'_>, task: &Task, max_rows: usize) {
    let num_tiles = task.rows.len().div_ceil(max_rows);
    let group = match task.rows.len().div_ceil(num_tiles) {
        _ if max_rows < 6 => 1,
        1 => 4,
        2 | 3 => 2,
        // Groups have sums of their own beside the chains.
        4..=6 if S::GROUP.is_none() => 2,
        _ => 1,
    };
    let num_words = product.w.num_words();
    for first in task.panels.clone().step_by(group) {
        let num_panels = group.min(task.panels.end - first);
        for start in (0..num_words).step_by(RUN) {
            let words = start..num_words.min(start + RUN);
            for index in 0..num_tiles {
                let rows = part(task.rows.len(), num_tiles, index);
                let tile = Tile {
                    product,
                    first_row: task.rows.start + rows.start,
                    words: words.clone(),
                };
                // SAFETY: the tile lies in the task.
                unsafe {
                    match (rows.len(), num_panels) {
                        (1, 4) => tile.compute::<S, 1, 4>(step, first),
                        (2, 2) => tile.compute::<S, 2, 2>(step, first),
                        (3, 2) => tile.compute::<S, 3, 2>(step, first),
                        (4, 2) => tile.compute::<S, 4, 2>(step, first),
                        (5, 2) => tile.compute::<S, 5, 2>(step, first),
                        (6, 2) => tile.compute::<S, 6, 2>(step, first),
                        (rows, _) => {
                            for panel in first..first + num_panels {
                                tile.one_panel(step, rows, panel);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Some rows by some panels over one run.
struct Tile<'a> {
    product: &'a Product<'a>,
    first_row: usize,
    words: Range<usize>,
}

impl Tile<'_> {
    /// # Safety
    /// As [`compute`].
    #[inline(always)]
    unsafe fn one_panel<S: Step>(&self, step: S, rows: usize, panel: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                1 => self.compute::<S, 1, 1>(step, panel),
                2 => self.compute::<S, 2, 1>(step, panel),
                3 => self.compute::<S, 3, 1>(step, panel),
                4 => self.compute::<S, 4, 1>(step, panel),
                5 => self.compute::<S, 5, 1>(step, panel),
                6 => self.compute::<S, 6, 1>(step, panel),
                7 => self.compute::<S, 7, 1>(step, panel),
                8 => self.compute::<S, 8, 1>(step, panel),
                9 => self.compute::<S, 9, 1>(step, panel),
                10 => self.compute::<S, 10, 1>(step, panel),
                11 => self.compute::<S, 11, 1>(step, panel),
                _ => self.compute::<S, 12, 1>(step, panel),
            }
        }
    }

    /// R rows by P panels.
    ///
    /// # Safety
    /// As [`compute`].
    #[inline(always)]
    unsafe fn compute<S: Step, const R: usize, const P: usize>(&self, step: S, panel: usize) {
        let Product { x, w, y, output } = *self.product;
        let (O, run) = (w.num_outputs(), self.words.start / RUN);
        let group = S::GROUP.map_or(0, |words| self.words.start / words);
        let words = x.run(run, self.first_row);
        let panel_lines = 2 * w.num_words();
        let lines = w.panels_from(panel);
        let operands = Operands::<R, P> {
            x: std::array::from_fn(|r| &words[r * RUN..][..self.words.len()]),
            groups: std::array::from_fn(|r| x.groups(self.first_row + r, group)),
            w: std::array::from_fn(|p| {
                &lines[p * panel_lines + 2 * self.words.start..][..2 * self.words.len()]
            }),
            scales: std::array::from_fn(|p| w.scales(panel + p, group)),
        };
        // SAFETY: the caller's promise.
        let sums = unsafe { operands.sums(step) };
        let output = if run == 0 { output } else { Output::Add };
        for (r, sums) in sums.iter().enumerate() {
            for (half, sums) in sums.as_flattened().iter().enumerate() {
                let first = panel * PANEL + half * 16;
                let place = Place {
                    y: y.get().wrapping_add((self.first_row + r) * O + first),
                    len: O.saturating_sub(first).min(16),
                    output,
                };
                // SAFETY: `len` elements of the row, in the task's part of y.
                unsafe { step.put(*sums, &place) };
            }
        }
    }
}

/// What a tile multiplies: words of R rows of x, lines of P panels, and their groups.
struct Operands<'a, const R: usize, const P: usize> {
    x: [&'a [u32]; R],
    groups: [&'a [RowGroup]; R],
    /// Twice as many lines as there are words.
    w: [&'a [Line]; P],
    scales: [&'a [f32]; P],
}

/// Chains or sums of R rows by P panels.
type Sixteens<T, const R: usize, const P: usize> = [[[T; 2]; P]; R];

impl<const R: usize, const P: usize> Operands<'_, R, P> {
    /// # Safety
    /// Inside a function compiled for `S`'s instructions.
    #[inline(always)]
    unsafe fn sums<S: Step>(&self, step: S) -> Sixteens<S::Sums, R, P> {
        // SAFETY: the caller's promise; words lie below the slices' length.
        unsafe {
            let mut sums = [[[step.zero(); 2]; P]; R];
            let Some(group_words) = S::GROUP else {
                let none = [RowGroup::default(); R];
                let chains = self.chains(step, none, 0..self.x[0].len());
                for r in 0..R {
                    for p in 0..P {
                        for half in 0..2 {
                            let scales = (std::ptr::null(), none[r]);
                            sums[r][p][half] =
                                step.close(sums[r][p][half], chains[r][p][half], scales);
                        }
                    }
                }
                return sums;
            };
            for start in (0..self.x[0].len()).step_by(group_words) {
                let group = start / group_words;
                let rows: [RowGroup; R] = std::array::from_fn(|r| self.groups[r][group]);
                let words = start..self.x[0].len().min(start + group_words);
                let chains = self.chains(step, rows, words);
                for r in 0..R {
                    for p in 0..P {
                        let scales = &self.scales[p][group * PANEL..][..PANEL];
                        for half in 0..2 {
                            let scales = (scales[16 * half..].as_ptr(), rows[r]);
                            sums[r][p][half] =
                                step.close(sums[r][p][half], chains[r][p][half], scales);
                        }
                    }
                }
            }
            sums
        }
    }

    /// # Safety
    /// As [`Operands::sums`]; the words must lie inside the slices.
    #[inline(always)]
    unsafe fn chains<S: Step>(
        &self,
        step: S,
        rows: [RowGroup; R],
        words: Range<usize>,
    ) -> Sixteens<S::Chain, R, P> {
        let x: [*const u32; R] = self.x.map(<[u32]>::as_ptr);
        let w: [*const Line; P] = self.w.map(<[Line]>::as_ptr);
        // SAFETY: the caller's promise.
        unsafe {
            // Loops, not `map`: that became calls, which pass vectors through memory.
            let mut chains = [[[step.start(rows[0]); 2]; P]; R];
            for r in 1..R {
                chains[r] = [[step.start(rows[r]); 2]; P];
            }
            for k in words {
                let lines: [[S::W; 2]; P] = std::array::from_fn(
                    #[inline(always)]
                    |p| [step.line(w[p].add(2 * k)), step.line(w[p].add(2 * k + 1))],
                );
                for r in 0..R {
                    let word = step.word(x[r].add(k));
                    for p in 0..P {
                        for half in 0..2 {
                            chains[r][p][half] =
                                step.step(chains[r][p][half], lines[p][half], word);
                        }
                    }
                }
            }
            chains
        }
    }
}
