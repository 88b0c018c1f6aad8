//! Matrix products, by cublasLt: factors in bf16 or f32, sums in f32, results in bf16 or f32. Which of its kernels
//! computes a shape is asked once and kept.
#![expect(unsafe_code, reason = "cublasLt takes descriptions and addresses")]

mod trial;

use std::{
    collections::HashMap,
    ffi::c_void,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::{
    cublaslt::{
        result,
        sys::{
            cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t,
            cublasLtMatmulDescAttributes_t, cublasLtMatrixLayout_t, cudaDataType,
        },
    },
    driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut},
};
use half::bf16;

use self::trial::suggestions;
pub use self::trial::{LinearKernel, Trial};
use crate::{
    Device, Float,
    device::Element,
    error::{Error, Result, expect_len},
};

/// What NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// More does not matter to cublasLt.
const MAX_ALIGNMENT: u64 = 256;

/// `CUBLAS_OP_N` and `CUBLAS_OP_T` (cuBLAS, `cublasOperation_t`).
const OPERATION_PLAIN: i32 = 0;
const OPERATION_TRANSPOSED: i32 = 1;

/// What a product does with what its destination holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    Overwrite,
    Add,
}

/// An element type of results.
pub trait Output: Element {
    #[doc(hidden)]
    const TYPE: cudaDataType;
    /// Kernels of [`int8_linear`](crate::int8_linear) for 16, 32 and 64 rows.
    #[doc(hidden)]
    const INT8_LINEAR: [&'static str; 3];
}
impl Output for f32 {
    const TYPE: cudaDataType = cudaDataType::CUDA_R_32F;
    const INT8_LINEAR: [&'static str; 3] = [
        "int8_linear_16_f32",
        "int8_linear_32_f32",
        "int8_linear_64_f32",
    ];
}
impl Output for bf16 {
    const TYPE: cudaDataType = cudaDataType::CUDA_R_16BF;
    const INT8_LINEAR: [&'static str; 3] = [
        "int8_linear_16_bf16",
        "int8_linear_32_bf16",
        "int8_linear_64_bf16",
    ];
}

/// A handle of cublasLt, its scratch memory and the plans made so far.
pub(crate) struct Products {
    handle: cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: CudaSlice<u8>,
    plans: Mutex<HashMap<Shape, Plan>>,
}

// SAFETY: cublasLt handles may be used by several threads (its manual, "Thread Safety"), and a plan is
// only read once it was made.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl fmt::Debug for Products {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Products(..)")
    }
}

/// A row-major product `d[m, n] = op(a) · op(b)`, with how the factors lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    a: Lies,
    b: Lies,
    input: i32,
    output: i32,
    adds: i32,
    /// What divides the addresses, in bytes: cublasLt takes 256 for granted unless it is told.
    alignment: u32,
}

/// Whether a factor is stored as the product reads it, or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lies {
    Plain,
    Transposed,
}

/// A product whose lengths were checked, and where its matrices lie. The address alone is enough: what orders
/// streams by events is off (see [`Device::open`]).
struct Checked {
    shape: Shape,
    types: (cudaDataType, cudaDataType),
    a: u64,
    b: u64,
    d: u64,
}

/// A shape as cublasLt describes it, and which of its kernels computes it.
struct Plan {
    description: cublasLtMatmulDesc_t,
    a: cublasLtMatrixLayout_t,
    b: cublasLtMatrixLayout_t,
    d: cublasLtMatrixLayout_t,
    algorithm: cublasLtMatmulAlgo_t,
}

impl Device {
    /// `y[T, O] (+)= x[T, K] · w[O, K]ᵀ`
    pub fn linear<A: Float, Y: Output>(
        &self,
        x: &CudaView<'_, A>,
        w: &CudaView<'_, A>,
        (y, sum): (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
    ) -> Result<()> {
        let product = self.check_linear((x, w), (y, sum), num_inputs)?;
        self.products().run(&product, None)
    }

    fn check_linear<A: Float, Y: Output>(
        &self,
        (x, w): (&CudaView<'_, A>, &CudaView<'_, A>),
        to: (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
    ) -> Result<Checked> {
        let shape = (x.len() / num_inputs, w.len() / num_inputs, num_inputs);
        let lie = (Lies::Plain, Lies::Transposed);
        self.check("linear", (x, w), to, (shape, lie))
    }

    /// `dx[T, K] (+)= dy[T, O] · w[O, K]`
    pub fn linear_input_grad<A: Float, Y: Output>(
        &self,
        dy: &CudaView<'_, A>,
        w: &CudaView<'_, A>,
        (dx, sum): (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
    ) -> Result<()> {
        let num_outputs = w.len() / num_inputs;
        let shape = (dx.len() / num_inputs, num_inputs, num_outputs);
        let lie = (Lies::Plain, Lies::Plain);
        let product = self.check("linear_input_grad", (dy, w), (dx, sum), (shape, lie))?;
        self.products().run(&product, None)
    }

    /// `dw[O, K] (+)= dy[T, O]ᵀ · x[T, K]`
    pub fn linear_weight_grad<A: Float, Y: Output>(
        &self,
        dy: &CudaView<'_, A>,
        x: &CudaView<'_, A>,
        (dw, sum): (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
    ) -> Result<()> {
        let shape = (dw.len() / num_inputs, num_inputs, x.len() / num_inputs);
        let lie = (Lies::Transposed, Lies::Plain);
        let product = self.check("linear_weight_grad", (dy, x), (dw, sum), (shape, lie))?;
        self.products().run(&product, None)
    }

    fn check<A: Float, Y: Output>(
        &self,
        op: &'static str,
        (a, b): (&CudaView<'_, A>, &CudaView<'_, A>),
        (d, sum): (&mut CudaViewMut<'_, Y>, Sum),
        ((m, n, k), (lies_a, lies_b)): ((usize, usize, usize), (Lies, Lies)),
    ) -> Result<Checked> {
        expect_len(op, "the first factor", m * k, a.len())?;
        expect_len(op, "the second factor", n * k, b.len())?;
        expect_len(op, "the result", m * n, d.len())?;
        self.bind()?;
        let stream = self.stream();
        let ((a, _), (b, _), (d, _)) = (
            a.device_ptr(stream),
            b.device_ptr(stream),
            d.device_ptr_mut(stream),
        );
        let shape = Shape {
            m,
            n,
            k,
            a: lies_a,
            b: lies_b,
            input: A::TYPE as i32,
            output: Y::TYPE as i32,
            adds: i32::from(sum == Sum::Add),
            alignment: 1 << (a | b | d | MAX_ALIGNMENT).trailing_zeros(),
        };
        Ok(Checked {
            shape,
            types: (A::TYPE, Y::TYPE),
            a,
            b,
            d,
        })
    }
}

impl Products {
    pub(crate) fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        let workspace = stream.alloc_zeros(WORKSPACE_BYTES);
        Ok(Self {
            handle: result::create_handle().map_err(Error::blas("create"))?,
            stream: Arc::clone(stream),
            workspace: workspace.map_err(Error::driver("allocate"))?,
            plans: Mutex::default(),
        })
    }

    /// Does something with the plan for a product, which is made where there is none.
    fn with_plan<T>(&self, product: &Checked, work: impl FnOnce(&Plan) -> Result<T>) -> Result<T> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(product.shape) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Plan::new(self.handle, product.shape, product.types)?)
            }
        };
        work(plan)
    }

    /// Takes this kernel for its shape, for which there is a plan.
    fn prefer(&self, kernel: &LinearKernel) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get_mut(&kernel.shape) {
            plan.algorithm = kernel.algorithm;
        }
    }

    /// By the kernel that was chosen for its shape, or by another one for that shape.
    fn run(&self, product: &Checked, by: Option<&cublasLtMatmulAlgo_t>) -> Result<()> {
        let shape = &product.shape;
        if shape.m == 0 || shape.n == 0 {
            return Ok(());
        }
        self.with_plan(product, |plan| {
            self.launch(product, plan, by.unwrap_or(&plan.algorithm))
        })
    }

    fn launch(
        &self,
        product: &Checked,
        plan: &Plan,
        algorithm: &cublasLtMatmulAlgo_t,
    ) -> Result<()> {
        let adds = product.shape.adds == 1;
        let (alpha, beta) = (1.0_f32, if adds { 1.0_f32 } else { 0.0 });
        let (workspace, _workspace) = self.workspace.device_ptr(&self.stream);
        let address = |at: u64| at as *mut c_void;
        // SAFETY: plan and algorithm were made for these shapes, the lengths were checked against them, and
        // the scratch memory is used by this stream alone. The first factor of the column-major product is
        // the row-major one's second.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                address(product.b),
                plan.b,
                address(product.a),
                plan.a,
                address(product.d),
                plan.d,
                address(product.d),
                plan.d,
                algorithm,
                address(workspace),
                WORKSPACE_BYTES,
                self.stream.cu_stream().cast(),
            )
        }
        .map_err(Error::blas("matmul"))
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody uses it any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Plan {
    /// Row-major `a · b` is column-major `bᵀ · aᵀ`: nothing is moved.
    fn new(
        handle: cublasLtHandle_t,
        shape: Shape,
        (input, output): (cudaDataType, cudaDataType),
    ) -> Result<Self> {
        let factor = |rows: usize, cols: usize| layout(input, rows, cols);
        let Shape { m, n, k, .. } = shape;
        let a = match shape.a {
            Lies::Plain => factor(m, k),
            Lies::Transposed => factor(k, m),
        }?;
        let b = match shape.b {
            Lies::Plain => factor(k, n),
            Lies::Transposed => factor(n, k),
        }?;
        let d = layout(output, m, n)?;
        let description = result::create_matmul_desc(
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cudaDataType::CUDA_R_32F,
        )
        .map_err(Error::blas("describe"))?;
        for (attribute, lies) in [
            (
                cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                shape.b,
            ),
            (
                cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
                shape.a,
            ),
        ] {
            let operation = match lies {
                Lies::Plain => OPERATION_PLAIN,
                Lies::Transposed => OPERATION_TRANSPOSED,
            };
            // SAFETY: the attribute's type is this enum.
            unsafe {
                result::set_matmul_desc_attribute(
                    description,
                    attribute,
                    (&raw const operation).cast(),
                    size_of_val(&operation),
                )
            }
            .map_err(Error::blas("describe"))?;
        }
        let first = suggestions(handle, description, (a, b, d), (shape.alignment, 1))?;
        Ok(Self {
            description,
            a,
            b,
            d,
            algorithm: first[0],
        })
    }
}

/// What a row-major matrix is to cublasLt: its transpose, column-major.
fn layout(element: cudaDataType, rows: usize, cols: usize) -> Result<cublasLtMatrixLayout_t> {
    result::create_matrix_layout(element, cols as u64, rows as u64, cols as i64)
        .map_err(Error::blas("lay out"))
}
