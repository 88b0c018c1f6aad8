//! Steps on the CPU: the network, one gradient for each lane, and the optimizer.

use std::borrow::Cow;

use candle_core::{DType, Tensor};
use kernels::Moments;
use kernels::tensor::{bf16_update, bf16_view, f32_update, f32_view};
use model::config::LlamaConfig;

use super::engine::{Engine, ParameterSpec, StepGoal, StepSums, Update};
use super::lanes::Lanes;
use crate::config::Method;
use crate::distributed::Group;
use crate::error::Result;
use crate::forward::Network;
use crate::optimizer::Optimizer;
use crate::pack::MicroBatch;
use crate::weights::Slot;

/// A model that is trained by this process's threads.
#[derive(Debug)]
pub struct CpuEngine {
    network: Network,
    optimizer: Optimizer,
    lanes: Lanes,
}

impl CpuEngine {
    pub fn new(network: Network, optimizer: Optimizer, group: &Group) -> Self {
        let lanes = Lanes::new(&network, group);
        Self {
            network,
            optimizer,
            lanes,
        }
    }
}

impl Engine for CpuEngine {
    fn config(&self) -> &LlamaConfig {
        &self.network.config
    }

    fn method(&self) -> &Method {
        &self.network.method
    }

    fn parameters(&self) -> Vec<ParameterSpec> {
        let all = self.network.parameters.iter();
        let specs = all.map(|parameter| ParameterSpec {
            name: parameter.name.clone(),
            shape: parameter.values.dims().to_vec(),
            dtype: parameter.values.dtype(),
        });
        specs.collect()
    }

    fn num_lanes(&self) -> usize {
        self.lanes.count()
    }

    fn forward_backward(
        &mut self,
        batches: &[MicroBatch],
        goal: StepGoal,
        group: &mut Group,
    ) -> Result<StepSums> {
        let nll = self
            .lanes
            .forward_backward(&self.network, batches, goal, group)?;
        Ok(StepSums {
            nll,
            grad_norm: self.lanes.gradients().global_norm(),
        })
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        let parameters = &self.network.parameters;
        self.optimizer
            .step(parameters, self.lanes.gradients(), update)
    }

    fn evaluate(&mut self, batches: &[MicroBatch], group: &mut Group) -> Result<f64> {
        self.lanes.evaluate(&self.network, batches, group)
    }

    fn merged(&self, number: usize) -> Result<Vec<f32>> {
        self.network.weights.in_order()[number].merged()
    }

    fn values(&self, slot: Slot) -> Result<Tensor> {
        Ok(self.network.parameters[slot.0].values.clone())
    }

    fn moments(&self, slot: Slot) -> Result<Cow<'_, Moments>> {
        Ok(Cow::Borrowed(&self.optimizer.moments[slot.0]))
    }

    /// In place: the network's weights are the same tensors.
    fn set_values(&mut self, slot: Slot, values: &Tensor) -> Result<()> {
        let own = &self.network.parameters[slot.0].values;
        let op = "set_values";
        if own.dtype() == DType::BF16 {
            let values = bf16_view(op, "values", values)?;
            bf16_update(op, "own", own, |own| own.copy_from_slice(&values))?;
        } else {
            let values = f32_view(op, "values", values)?;
            f32_update(op, "own", own, |own| own.copy_from_slice(&values))?;
        }
        Ok(())
    }

    fn set_moments(&mut self, slot: Slot, moments: Moments) -> Result<()> {
        self.optimizer.moments[slot.0] = moments;
        Ok(())
    }
}
