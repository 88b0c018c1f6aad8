//! A safe door to products of matrices: strided views of slices, checked when they are made, and
//! the choice between crate `gemm` and our own kernel. Nothing here knows about tensors.
//!
//! Each element is one sum over k in a fixed order, whatever the number of threads.
#![expect(
    unsafe_code,
    reason = "gemm takes raw pointers; bounds are checked on construction"
)]

use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::matmul_nn;

/// A read-only matrix in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mat<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Mat<'a> {
    /// `rows` rows of `columns` values, the rows `row_stride` apart.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "matrix {rows}x{columns} with row stride {row_stride} in {} values",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix in a slice, to be written: rows do not overlap.
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
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
            "matrix {rows}x{columns} with row stride {row_stride} in {} values",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
        }
    }
}

/// What happens to the values that the destination holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Overwrite,
    Add,
}

/// Who works on one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread (for products inside a parallel loop).
    One,
    /// All of rayon's current pool, where the product is large enough.
    Pool,
}

/// dst = scale · a·b, or dst += scale · a·b.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a destination is written once, then gone"
)]
pub(crate) fn matmul(
    dst: MatMut<'_>,
    destination: Destination,
    (a, b): (Mat<'_>, Mat<'_>),
    scale: f32,
    threads: Threads,
) {
    assert!(
        a.rows == dst.rows && b.columns == dst.columns && a.columns == b.rows,
        "product of {}x{} and {}x{} into {}x{}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        dst.rows,
        dst.columns
    );
    // SAFETY: `dst` is a live exclusive borrow whose extent its constructor checked.
    unsafe {
        let place = Place {
            dst: dst.data.as_mut_ptr(),
            row_stride: dst.row_stride,
            destination,
        };
        call(&place, (a, b), (scale, threads));
    }
}

/// a·b in a new vector, which is written once (not zeroed first).
pub(crate) fn matmul_new(a: Mat<'_>, b: Mat<'_>, threads: Threads) -> Vec<f32> {
    assert_eq!(a.columns, b.rows, "inner dimensions of a product");
    let len = a.rows * b.columns;
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity holds a.rows rows of b.columns values at stride b.columns; every
    // element is written and none is read before, so all `len` are initialised.
    unsafe {
        let dst: *mut f32 = values.as_mut_ptr();
        let place = Place {
            dst,
            row_stride: b.columns,
            destination: Destination::Overwrite,
        };
        call(&place, (a, b), (1.0, threads));
        values.set_len(len);
    }
    values
}

/// Where a product goes: rows of values, `row_stride` apart.
struct Place {
    dst: *mut f32,
    row_stride: usize,
    destination: Destination,
}

/// # Safety
/// The place must be valid for writes of a.rows rows of b.columns values, and hold initialised
/// values when they are added to; nothing else may access them during the call.
unsafe fn call(place: &Place, (a, b): (Mat<'_>, Mat<'_>), (scale, threads): (f32, Threads)) {
    let Place {
        dst,
        row_stride,
        destination,
    } = *place;
    #[cfg(target_arch = "x86_64")]
    if a.columns > 0 && matmul_nn::is_available(a, b) {
        let product = matmul_nn::Product {
            a,
            b,
            scale,
            dst,
            row_stride,
            destination,
        };
        // SAFETY: the caller's promise; the kernel is available.
        unsafe { matmul_nn::fill(&product, threads) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { call_gemm(place, (a, b), (scale, threads)) };
}

/// # Safety
/// As [`call`].
unsafe fn call_gemm(place: &Place, (a, b): (Mat<'_>, Mat<'_>), (scale, threads): (f32, Threads)) {
    let Place {
        dst,
        row_stride,
        destination,
    } = *place;
    let stride = |value: usize| isize::try_from(value).expect("a slice is at most isize::MAX long");
    let read_dst = destination == Destination::Add;
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::Pool => Parallelism::Rayon(0),
    };
    // SAFETY: `a` and `b` were checked against their slices; `dst` is the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            dst,
            1,
            stride(row_stride),
            read_dst,
            a.data.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            if read_dst { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Whether x·wᵀ with so many rows of x is faster by way of [`transposed`] than by `matmul_nt`: with
/// enough rows to repay the copy, and a copy that stays in a level-3 cache (16 MiB).
pub(crate) fn is_worth_transposing(rows: usize, w: &[f32]) -> bool {
    rows >= 64 && w.len() <= 1 << 22
}

/// wᵀ, [columns, rows], of a dense w of [rows, columns].
pub(crate) fn transposed(w: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    /// Columns of w that are read together: a cache line.
    const BAND: usize = 16;
    let mut out = vec![0.0; rows * columns];
    if rows * columns == 0 {
        return out;
    }
    out.par_chunks_mut(BAND * rows)
        .enumerate()
        .for_each(|(band, out)| {
            let width = out.len() / rows;
            for (row, values) in w.chunks_exact(columns).enumerate() {
                for (i, value) in values[band * BAND..][..width].iter().enumerate() {
                    out[i * rows + row] = *value;
                }
            }
        });
    out
}
