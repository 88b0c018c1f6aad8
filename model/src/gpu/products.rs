//! Products with the matrices of an arena, whatever they are stored in.

use cuda::{CudaSlice, CudaView, CudaViewMut, Device, Float, Int8View, Output, Sum};

use super::arena::{Matrix, WeightElement};
use crate::config::LlamaConfig;
use crate::error::Result;

/// What products need beside their factors.
#[derive(Debug)]
pub(super) struct Products<A> {
    device: Device,
    /// A matrix of int8 as activations are, while it is multiplied with many rows. As large as the largest.
    widened: CudaSlice<A>,
}

impl<A: Float> Products<A> {
    /// Takes the memory for products of up to `most_rows`.
    pub(super) fn new(
        device: &Device,
        config: &LlamaConfig,
        (element, most_rows): (WeightElement, usize),
    ) -> Result<Self> {
        Ok(Self {
            widened: device.zeros(widened_len::<A>(config, (element, most_rows)))?,
            device: device.clone(),
        })
    }

    /// `y[rows, out] (+)= x[rows, K] · w[out, K]ᵀ`. Int8 with few rows is bound by the reading of weights, and
    /// read as it is; with many rows it is widened first, which rounds a weight once more.
    pub(super) fn multiply<Y: Output>(
        &mut self,
        x: &CudaView<'_, A>,
        w: &Matrix<'_, A>,
        to: (&mut CudaViewMut<'_, Y>, Sum),
        num_inputs: usize,
    ) -> Result<()> {
        let (values, scales) = match w {
            Matrix::Float(w) => return Ok(self.device.linear(x, w, to, num_inputs)?),
            Matrix::Int8 { values, scales } => (values, scales),
        };
        let w = Int8View { values, scales };
        if x.len() / num_inputs <= A::MAX_INT8_ROWS {
            return Ok(cuda::int8_linear(&self.device, x, &w, to, num_inputs)?);
        }
        let mut widened = self.widened.slice_mut(..values.len());
        cuda::dequantize_rows(&self.device, &w, &mut widened)?;
        let widened = self.widened.slice(..values.len());
        Ok(self.device.linear(x, &widened, to, num_inputs)?)
    }
}

/// Values of the largest matrix, where one is to be widened.
pub(super) fn widened_len<A: Float>(
    config: &LlamaConfig,
    (element, most_rows): (WeightElement, usize),
) -> usize {
    if element == WeightElement::Float || most_rows <= A::MAX_INT8_ROWS {
        return 0;
    }
    let (hidden, query) = (config.hidden_size, config.query_size());
    let rows_of_hidden = (query + 2 * config.kv_size())
        .max(2 * config.intermediate_size)
        .max(config.vocab_size);
    hidden * rows_of_hidden
}
