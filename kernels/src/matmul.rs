//! Products for training: dst = a·bᵀ or dst += a·bᵀ, of matrices that may be stored in f32, bf16
//! or int8, either way round, computed with factors in f32 or bf16 and sums in f32.
//!
//! Both operands are packed into **panels** block by block, just before they are multiplied, and
//! packing converts: a frozen int8 weight is widened one block at a time. What is packed are words
//! along the inner dimension, as in `step`: one f32 or two bf16. A panel of a has up to twelve rows
//! and one line a word; a panel of b has 32 rows and two lines a word. A **tile** is one by the
//! other: each word of a times both lines of b.
//!
//! The order of one element: the inner dimension in runs of at most [`MAX_RUN`] words, within a
//! run k rising from zero, the runs added in turn. That has no room for the number of threads.
#![expect(
    unsafe_code,
    reason = "disjoint parts of one output are written by many threads"
)]

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::matrix::{Compute, Int8Matrix};
use crate::step::{Isa, Output, part};

mod pack;
mod tiles;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Words of a run at most: a panel of b is then 32 KiB, and stays in a level-1 cache of 48 KiB
/// while the panels of a (16 KiB) pass.
const MAX_RUN: usize = 256;

/// Rows of a in a task at most: with their words of a run, 352 KiB, in a level-2 cache of 1 MiB.
const MAX_TASK_ROWS: usize = 264;

/// Rows of a panel of b.
const PANEL: usize = 32;

/// Multiplications that a task should have at least: some tens of microseconds.
const MIN_TASK_WORK: usize = 1 << 20;

/// Panels of b that a task should have at least, to repay packing a.
const MIN_TASK_PANELS: usize = 8;

/// Values as they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    Int8(&'a Int8Matrix),
}

/// A read-only matrix: `rows` rows of `columns` values, the rows `row_stride` apart; or, where it
/// is `transposed`, what that looks like with rows and columns exchanged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mat<'a> {
    values: Values<'a>,
    stored_rows: usize,
    stored_columns: usize,
    row_stride: usize,
    is_transposed: bool,
}

impl<'a> Mat<'a> {
    /// Rows of f32, one after another with gaps.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_fits((rows, columns, row_stride), values.len());
        Self {
            values: Values::F32(values),
            stored_rows: rows,
            stored_columns: columns,
            row_stride,
            is_transposed: false,
        }
    }

    /// Rows of any type, one right after another.
    pub(crate) fn dense(values: Values<'a>, rows: usize, columns: usize) -> Self {
        let len = match values {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
            Values::Int8(matrix) => matrix.values.len(),
        };
        assert_fits((rows, columns, columns), len);
        Self {
            values,
            stored_rows: rows,
            stored_columns: columns,
            row_stride: columns,
            is_transposed: false,
        }
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self {
            is_transposed: !self.is_transposed,
            ..self
        }
    }

    fn rows(&self) -> usize {
        if self.is_transposed {
            self.stored_columns
        } else {
            self.stored_rows
        }
    }

    fn columns(&self) -> usize {
        self.t().rows()
    }
}

/// Where a product goes: rows of values, `row_stride` apart, which do not overlap.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// `rows` rows of `columns` values, the rows `row_stride` apart.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            row_stride >= columns,
            "rows of {columns} values at stride {row_stride} overlap"
        );
        assert_fits((rows, columns, row_stride), data.len());
        Self {
            data,
            rows,
            columns,
            row_stride,
        }
    }
}

fn assert_fits((rows, columns, row_stride): (usize, usize, usize), len: usize) {
    assert!(
        rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= len,
        "matrix {rows}x{columns} with row stride {row_stride} in {len} values"
    );
}

/// Who works on one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread (for products inside a parallel loop).
    One,
    /// All of rayon's current pool, where the product is large enough.
    Pool,
}

/// dst = a·bᵀ, or dst += a·bᵀ.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a destination is written once, then gone"
)]
pub(crate) fn matmul(
    dst: MatMut<'_>,
    output: Output,
    (a, b): (Mat<'_>, Mat<'_>),
    compute: Compute,
    threads: Threads,
) {
    assert!(
        a.rows() == dst.rows && b.rows() == dst.columns,
        "product of {}x{} and {}x{} transposed into {}x{}",
        a.rows(),
        a.columns(),
        b.rows(),
        b.columns(),
        dst.rows,
        dst.columns
    );
    let product = Product {
        a,
        b,
        compute,
        dst: dst.data.as_mut_ptr(),
        row_stride: dst.row_stride,
        output,
    };
    // SAFETY: `dst` is a live exclusive borrow whose extent its constructor checked.
    unsafe { product.run(threads, Isa::detect()) };
}

/// a·bᵀ in a new vector, which is written once (not zeroed first).
pub(crate) fn matmul_new(
    (a, b): (Mat<'_>, Mat<'_>),
    compute: Compute,
    threads: Threads,
) -> Vec<f32> {
    let len = a.rows() * b.rows();
    let mut values = Vec::with_capacity(len);
    let product = Product {
        a,
        b,
        compute,
        dst: values.as_mut_ptr(),
        row_stride: b.rows(),
        output: Output::Overwrite,
    };
    // SAFETY: the capacity holds a's rows of b's rows' values; every element is written and none
    // is read before, so all `len` are initialised.
    unsafe {
        product.run(threads, Isa::detect());
        values.set_len(len);
    }
    values
}

/// Operands and output.
#[derive(Clone, Copy, Debug)]
struct Product<'a> {
    a: Mat<'a>,
    b: Mat<'a>,
    compute: Compute,
    dst: *mut f32,
    row_stride: usize,
    output: Output,
}

// SAFETY: `dst` is written at the elements of a task's own part only, and parts do not overlap.
unsafe impl Send for Product<'_> {}
// SAFETY: as above.
unsafe impl Sync for Product<'_> {}

/// A rectangle of the output.
#[derive(Clone, Debug)]
struct Task {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Product<'_> {
    /// # Safety
    /// `dst` must be valid for reads and writes of the output's rows, initialised where they are
    /// added to; nobody else may access them during the call; the machine must have the
    /// instruction set.
    unsafe fn run(&self, threads: Threads, isa: Isa) {
        assert_eq!(
            self.a.columns(),
            self.b.columns(),
            "inner dimensions of a product"
        );
        let (rows, columns) = (self.a.rows(), self.b.rows());
        if self.a.columns() == 0 && self.output == Output::Overwrite {
            for row in 0..rows {
                // SAFETY: zeroed f32 values are 0.0, and the caller vouches for the place.
                unsafe { self.dst.add(row * self.row_stride).write_bytes(0, columns) };
            }
        }
        if rows * columns * self.a.columns() == 0 {
            return;
        }
        // SAFETY: the tasks cover the output without overlap; the rest is the caller's promise.
        let compute = |task: &Task| unsafe { compute(self, task, isa) };
        let num_threads = match threads {
            Threads::One => 1,
            Threads::Pool => rayon::current_num_threads(),
        };
        let tasks = tasks((rows, columns, self.a.columns()), num_threads);
        if num_threads == 1 || tasks.len() == 1 {
            tasks.iter().for_each(compute);
        } else {
            tasks.par_iter().with_max_len(1).for_each(compute);
        }
    }
}

/// # Safety
/// As [`Product::run`], for the task's part of the output.
unsafe fn compute(product: &Product<'_>, task: &Task, isa: Isa) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(has) => avx512::compute(product, task, has),
            Isa::Portable => portable::compute(product, task),
        }
    }
}

/// Cuts an output of [rows, columns] for `num_threads`.
fn tasks((rows, columns, inner): (usize, usize, usize), num_threads: usize) -> Vec<Task> {
    let num_panels = columns.div_ceil(PANEL);
    let wanted = match num_threads {
        1 => 1,
        _ => (rows * columns * inner / MIN_TASK_WORK).clamp(1, 2 * num_threads),
    };
    let mut row_parts = rows.div_ceil(MAX_TASK_ROWS);
    let column_parts = wanted
        .div_ceil(row_parts)
        .min(num_panels / MIN_TASK_PANELS)
        .max(1);
    // Few columns: half as many rows have to do.
    let missing = wanted.min(num_threads).div_ceil(column_parts);
    row_parts = row_parts.max(missing.min(rows.div_ceil(48)));
    if column_parts == 1 && row_parts < 3 * num_threads && wanted >= num_threads {
        // No thread waits for the one with an odd task.
        row_parts = row_parts.next_multiple_of(num_threads).min(rows);
    }
    let column_part = |index: usize| {
        let panels = part(num_panels, column_parts, index);
        panels.start * PANEL..columns.min(panels.end * PANEL)
    };
    (0..row_parts)
        .flat_map(|row| (0..column_parts).map(move |column| (row, column)))
        .map(|(row, column)| Task {
            rows: part(rows, row_parts, row),
            columns: column_part(column),
        })
        .collect()
}

#[cfg(test)]
mod tests;
