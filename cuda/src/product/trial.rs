//! What cublasLt suggests for a product. It orders its kernels by what it expects of them; which is fastest, only
//! a trial says.
#![expect(unsafe_code, reason = "cublasLt takes descriptions and addresses")]

use std::{ffi::c_void, fmt};

use cudarc::{
    cublaslt::{
        result::{self, CublasError},
        sys::{
            self, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
            cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t as Attribute,
            cublasLtMatrixLayout_t, cublasStatus_t,
        },
    },
    driver::{CudaView, CudaViewMut},
};

use super::{Output, Shape, Sum, WORKSPACE_BYTES};
use crate::{
    Device, Float,
    error::{Error, Result},
};

/// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE` (cuBLAS, `cublasLtReductionScheme_t`): where a kernel splits what it sums
/// over, the parts are added in f32, too.
const REDUCE_IN_F32: u32 = 2;

/// One of cublasLt's kernels for a [`Device::linear`] of one shape.
#[derive(Clone, Copy)]
pub struct LinearKernel {
    pub(super) shape: Shape,
    pub(super) algorithm: cublasLtMatmulAlgo_t,
}

impl fmt::Debug for LinearKernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LinearKernel({:?})", self.shape)
    }
}

impl Device {
    /// Kernels for this product, `most` of them where there are as many; the first is the one that
    /// [`Device::linear`] takes until [`Device::tune_linear`] finds another. Nothing is computed.
    pub fn linear_kernels<A: Float, Y: Output>(
        &self,
        factors: (&CudaView<'_, A>, &CudaView<'_, A>),
        to: (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
        most: usize,
    ) -> Result<Vec<LinearKernel>> {
        let product = self.check_linear(factors, to, num_inputs)?;
        let shape = product.shape;
        let products = self.products();
        let found = products.with_plan(&product, |plan| {
            let (layouts, asked) = ((plan.a, plan.b, plan.d), (shape.alignment, most));
            suggestions(products.handle, plan.description, layouts, asked)
        })?;
        let kernel = |algorithm| LinearKernel { shape, algorithm };
        Ok(found.into_iter().map(kernel).collect())
    }

    /// [`Device::linear`] by one of the [`Device::linear_kernels`] of a product of the same shape.
    pub fn linear_by<A: Float, Y: Output>(
        &self,
        kernel: &LinearKernel,
        factors: (&CudaView<'_, A>, &CudaView<'_, A>),
        to: (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
    ) -> Result<()> {
        let product = self.check_linear(factors, to, num_inputs)?;
        if product.shape != kernel.shape {
            let expected = format!("one for {:?}", product.shape);
            let found = format!("{:?}", kernel.shape);
            return Err(Error::argument("linear_by", "kernel", expected, found));
        }
        self.products().run(&product, Some(&kernel.algorithm))
    }
}

/// What [`Device::tune_linear`] found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Which of cublasLt's suggestions is taken from now on, from 0.
    pub taken: usize,
    /// Of the first suggestion, for all weights that were given.
    pub first_s: f64,
    /// Of the one that is taken.
    pub taken_s: f64,
}

/// So much faster another kernel must be to be taken: what times differ by anyhow.
const LEAST_GAIN: f64 = 0.03;
/// A kernel's time is its best of so many.
const NUM_RUNS: usize = 3;

impl Device {
    /// Times the `most` kernels that cublasLt suggests for this [`Device::linear`], each recorded over all of
    /// `weights`, which should be more than fit into L2 together; from now on the fastest is taken for products of this
    /// shape (of which the alignment of the first weights is a part). What is in `y` is lost.
    pub fn tune_linear<A: Float, Y: Output>(
        &self,
        x: &CudaView<'_, A>,
        weights: &[CudaView<'_, A>],
        (y, sum): (&mut CudaViewMut<'_, Y>, Sum),
        (num_inputs, most): (usize, usize),
    ) -> Result<Trial> {
        let Some(first) = weights.first() else {
            let expected = "at least one";
            return Err(Error::argument("tune_linear", "weights", expected, "none"));
        };
        let kernels = self.linear_kernels((x, first), (&mut *y, sum), num_inputs, most)?;
        let mut alike = Vec::new();
        for w in weights {
            let product = self.check_linear((x, w), (&mut *y, sum), num_inputs)?;
            if product.shape == kernels[0].shape {
                alike.push(product);
            }
        }
        let mut times = Vec::with_capacity(kernels.len());
        for kernel in &kernels {
            let run_all = || {
                let run = |product| self.products().run(product, Some(&kernel.algorithm));
                alike.iter().try_for_each(run)
            };
            // Loads the kernel, which a recording must not.
            run_all()?;
            self.synchronize()?;
            let mut graph = self.record(run_all)?;
            let mut best = f64::INFINITY;
            for _ in 0..NUM_RUNS {
                best = best.min(self.time(|| graph.launch())?);
            }
            times.push(best);
        }
        let by_time = |a: &usize, b: &usize| times[*a].total_cmp(&times[*b]);
        let fastest = (0..times.len()).min_by(by_time).unwrap_or(0);
        let gains = times[fastest] < (1.0 - LEAST_GAIN) * times[0];
        let taken = if gains { fastest } else { 0 };
        self.products().prefer(&kernels[taken]);
        Ok(Trial {
            taken,
            first_s: times[0],
            taken_s: times[taken],
        })
    }
}

/// The `most` kernels that cublasLt thinks fastest, best first; at least one.
pub(super) fn suggestions(
    handle: cublasLtHandle_t,
    description: cublasLtMatmulDesc_t,
    (a, b, d): (
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t,
    ),
    (alignment, most): (u32, usize),
) -> Result<Vec<cublasLtMatmulAlgo_t>> {
    let preference = result::create_matmul_pref().map_err(Error::blas("prefer"))?;
    let mut found = Vec::with_capacity(most.max(1));
    let mut count = 0;
    let asked = prefer(preference, alignment).and_then(|()| {
        // SAFETY: the descriptions were made by cublasLt, and there is room for as many as are asked for;
        // the first factor of the column-major product is the row-major one's second.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                description,
                b,
                a,
                d,
                d,
                preference,
                most.max(1) as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
            .result()?;
            found.set_len(count as usize);
        }
        Ok(())
    });
    // SAFETY: made above, and not used any more.
    let _ = unsafe { result::destroy_matmul_pref(preference) };
    asked.map_err(Error::blas("choose a kernel"))?;
    let works = found
        .iter()
        .filter(|it| it.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    let works: Vec<_> = works.map(|it| it.algo).collect();
    if works.is_empty() {
        let none = CublasError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
        return Err(Error::blas("choose a kernel")(none));
    }
    Ok(works)
}

/// What kernels may take for granted, and use.
fn prefer(
    preference: cublasLtMatmulPreference_t,
    alignment: u32,
) -> std::result::Result<(), CublasError> {
    let set = |attribute, value: *const c_void, size| {
        // SAFETY: the attribute's type has this size.
        unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
    };
    for attribute in [
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ] {
        let alignment = &raw const alignment;
        set(attribute, alignment.cast(), size_of::<u32>())?;
    }
    let reduce = REDUCE_IN_F32;
    let scheme = &raw const reduce;
    let attribute = Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
    set(attribute, scheme.cast(), size_of::<u32>())?;
    let workspace_bytes = WORKSPACE_BYTES;
    let bytes = &raw const workspace_bytes;
    let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    set(attribute, bytes.cast(), size_of::<usize>())
}
