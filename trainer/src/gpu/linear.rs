//! A product with a weight matrix forward and backward, adapters included.
//!
//! Shape letters: T tokens of a packed batch, O outputs, C inputs, R the adapter's rank.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use cuda::{Columns, CudaView, CudaViewMut, Device, Dropout, Int8View, Sum};
use half::bf16;

use super::buffers::Lora;
use super::layout::{Adapter, Linear, Weight};
use super::weights::{Gradients, Weights};
use crate::error::Result;
use crate::forward::DropoutKey;
use crate::lora::LoraConfig;
use crate::rng::{CounterRng, Stream};

/// What all products of a pass share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Products<'a> {
    pub(super) device: &'a Device,
    pub(super) weights: &'a Weights,
    pub(super) lora: Option<&'a LoraConfig>,
    pub(super) dropout: Option<DropoutKey>,
}

/// Where a product's results go.
pub(super) enum Output<'a, 'b> {
    /// Overwritten.
    Bf16(&'a mut CudaViewMut<'b, bf16>),
    /// Added to.
    Residual(&'a mut CudaViewMut<'b, f32>),
}

impl Products<'_> {
    /// y_TO = x_TC · Wᵀ (or added to a residual stream), and the adapters' parts.
    pub(super) fn forward(
        &self,
        linear: &Linear,
        x_TC: &CudaView<'_, bf16>,
        mut y_TO: Output<'_, '_>,
        mut buffers: Option<&mut Lora>,
    ) -> Result<()> {
        let weight = self.weight(linear, buffers.as_deref_mut())?;
        let width = linear.num_inputs;
        match &mut y_TO {
            Output::Bf16(y_TO) => {
                self.device
                    .linear(x_TC, &weight, (*y_TO, Sum::Overwrite), width)?;
            }
            Output::Residual(y_TO) => {
                self.device
                    .linear(x_TC, &weight, (*y_TO, Sum::Add), width)?;
            }
        }
        let Some(buffers) = buffers else {
            return Ok(());
        };
        for adapter in &linear.adapters {
            self.add_adapter((linear, adapter), x_TC, &mut y_TO, buffers)?;
        }
        Ok(())
    }

    /// W in bf16. One of int8 is widened for this product alone: 3 bytes a weight that are read and written,
    /// against 2 operations for each token. With 4,096 tokens and at an H100's rates by its data sheet that
    /// is a tenth of the product; what is kept widened for longer would cost what int8 saves.
    fn weight<'s>(
        &'s self,
        linear: &Linear,
        buffers: Option<&'s mut Lora>,
    ) -> Result<CudaView<'s, bf16>> {
        let matrix = match &linear.weight {
            Weight::Bf16(matrix) => return Ok(self.weights.matrix(matrix)),
            Weight::Int8(matrix) => matrix,
        };
        let Lora { widened, .. } = buffers.expect("only the base of adapters is int8");
        let (values, scales) = self.weights.int8(matrix);
        let from = Int8View {
            values: &values,
            scales: &scales,
        };
        let mut to = widened.slice_mut(..values.len());
        cuda::dequantize_rows(self.device, &from, &mut to)?;
        Ok(widened.slice(..values.len()))
    }

    fn add_adapter(
        &self,
        (linear, adapter): (&Linear, &Adapter),
        x_TC: &CudaView<'_, bf16>,
        y_TO: &mut Output<'_, '_>,
        buffers: &mut Lora,
    ) -> Result<()> {
        let num_tokens = x_TC.len() / linear.num_inputs;
        self.inner((linear, adapter), x_TC, buffers)?;
        let rank = self.rank();
        let u_TR = buffers.u.slice(..num_tokens * rank);
        let b_OR = self.weights.matrix(&adapter.b);
        match y_TO {
            Output::Residual(y_TO) => {
                Ok(self.device.linear(&u_TR, &b_OR, (*y_TO, Sum::Add), rank)?)
            }
            Output::Bf16(y_TO) => {
                let len = num_tokens * adapter.columns.len();
                let mut delta = buffers.delta.slice_mut(..len);
                let to = (&mut delta, Sum::Overwrite);
                self.device.linear(&u_TR, &b_OR, to, rank)?;
                let delta = buffers.delta.slice(..len);
                let columns = adapter_columns(linear, adapter);
                Ok(cuda::add_columns(self.device, &delta, y_TO, &columns)?)
            }
        }
    }

    /// u = scale · dropout(x) · Aᵀ; x with values left out stays in `dropped`, where some are.
    fn inner(
        &self,
        (linear, adapter): (&Linear, &Adapter),
        x_TC: &CudaView<'_, bf16>,
        buffers: &mut Lora,
    ) -> Result<()> {
        let num_tokens = x_TC.len() / linear.num_inputs;
        let len = num_tokens * self.rank();
        let a_RC = self.weights.matrix(&adapter.a);
        let mut sums = buffers.sums.slice_mut(..len);
        let to = (&mut sums, Sum::Overwrite);
        if let Some(dropout) = self.dropout(adapter) {
            let mut dropped = buffers.dropped.slice_mut(..x_TC.len());
            cuda::dropout(self.device, x_TC, &mut dropped, dropout)?;
            let dropped = buffers.dropped.slice(..x_TC.len());
            self.device.linear(&dropped, &a_RC, to, linear.num_inputs)?;
        } else {
            self.device.linear(x_TC, &a_RC, to, linear.num_inputs)?;
        }
        let sums = buffers.sums.slice(..len);
        let mut u_TR = buffers.u.slice_mut(..len);
        Ok(cuda::scale_round(
            self.device,
            &sums,
            &mut u_TR,
            self.scale(),
        )?)
    }

    /// dx_TC = dy_TO · W, and the adapters' parts; what is trained adds to its gradient.
    pub(super) fn backward(
        &self,
        linear: &Linear,
        (dy_TO, x_TC): (&CudaView<'_, bf16>, &CudaView<'_, bf16>),
        dx_TC: &mut CudaViewMut<'_, bf16>,
        (gradients, mut buffers): (&mut Gradients, Option<&mut Lora>),
    ) -> Result<()> {
        let width = linear.num_inputs;
        if let Some(mut dw_OC) = gradients.of(linear.weight.gradient()) {
            let to = (&mut dw_OC, Sum::Add);
            self.device.linear_weight_grad(dy_TO, x_TC, to, width)?;
        }
        let weight = self.weight(linear, buffers.as_deref_mut())?;
        self.device
            .linear_input_grad(dy_TO, &weight, (dx_TC, Sum::Overwrite), width)?;
        let Some(buffers) = buffers else {
            return Ok(());
        };
        for adapter in &linear.adapters {
            let sides = (dy_TO, x_TC);
            self.backward_adapter((linear, adapter), sides, dx_TC, (gradients, buffers))?;
        }
        Ok(())
    }

    /// u is computed again: it costs R/O of the projection, keeping it would cost memory.
    fn backward_adapter(
        &self,
        (linear, adapter): (&Linear, &Adapter),
        (dy_TO, x_TC): (&CudaView<'_, bf16>, &CudaView<'_, bf16>),
        dx_TC: &mut CudaViewMut<'_, bf16>,
        (gradients, buffers): (&mut Gradients, &mut Lora),
    ) -> Result<()> {
        let device = self.device;
        let (rank, width) = (self.rank(), linear.num_inputs);
        let num_tokens = x_TC.len() / width;
        self.inner((linear, adapter), x_TC, buffers)?;
        let own = num_tokens * adapter.columns.len();
        let is_whole = adapter.columns.len() == linear.num_outputs;
        if !is_whole {
            let columns = adapter_columns(linear, adapter);
            cuda::take_columns(device, dy_TO, &mut buffers.dy.slice_mut(..own), &columns)?;
        }
        let taken = buffers.dy.slice(..own);
        let dy_TO = if is_whole { dy_TO } else { &taken };
        let u_TR = buffers.u.slice(..num_tokens * rank);
        if let Some(mut db_OR) = gradients.of(adapter.b.gradient.as_ref()) {
            device.linear_weight_grad(dy_TO, &u_TR, (&mut db_OR, Sum::Add), rank)?;
        }
        let mut sums = buffers.sums.slice_mut(..num_tokens * rank);
        let b_OR = self.weights.matrix(&adapter.b);
        device.linear_input_grad(dy_TO, &b_OR, (&mut sums, Sum::Overwrite), rank)?;
        let sums = buffers.sums.slice(..num_tokens * rank);
        let mut du_TR = buffers.du.slice_mut(..num_tokens * rank);
        cuda::scale_round(device, &sums, &mut du_TR, self.scale())?;
        let du_TR = buffers.du.slice(..num_tokens * rank);
        let dropout = self.dropout(adapter);
        let dropped = buffers.dropped.slice(..x_TC.len());
        if let Some(mut da_RC) = gradients.of(adapter.a.gradient.as_ref()) {
            let x_TC = if dropout.is_some() { &dropped } else { x_TC };
            device.linear_weight_grad(&du_TR, x_TC, (&mut da_RC, Sum::Add), width)?;
        }
        let a_RC = self.weights.matrix(&adapter.a);
        let mut delta = buffers.delta.slice_mut(..x_TC.len());
        device.linear_input_grad(&du_TR, &a_RC, (&mut delta, Sum::Overwrite), width)?;
        if let Some(dropout) = dropout {
            cuda::dropout_f32(device, &mut delta, dropout)?;
        }
        let delta = buffers.delta.slice(..x_TC.len());
        let all = Columns {
            stride: width,
            range: 0..width,
        };
        Ok(cuda::add_columns(device, &delta, dx_TC, &all)?)
    }

    fn rank(&self) -> usize {
        self.lora.map_or(0, |lora| lora.rank)
    }

    fn scale(&self) -> f32 {
        self.lora.map_or(0.0, LoraConfig::scale)
    }

    /// `None`: nothing is left out.
    fn dropout(&self, adapter: &Adapter) -> Option<Dropout> {
        let odds = self.lora?.dropout as f32;
        let stream = Stream::Dropout {
            parameter: adapter.slot.0 as u32,
        };
        let rng = CounterRng::new(self.dropout?.0, stream);
        (odds > 0.0).then(|| Dropout {
            key: rng.key(),
            odds,
        })
    }
}

fn adapter_columns(linear: &Linear, adapter: &Adapter) -> Columns {
    Columns {
        stride: linear.num_outputs,
        range: adapter.columns.clone(),
    }
}
