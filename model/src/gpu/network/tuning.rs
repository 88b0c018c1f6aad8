//! Which of cublasLt's kernels are fastest on this card: its own order is an estimate.

use cuda::{CudaView, Float, Sum, Trial};

use super::Network;
use crate::error::Result;
use crate::gpu::arena::{Arena, Matrix};

/// Suggestions that are tried.
const MAX_KERNELS: usize = 16;

impl<A: Float> Network<A> {
    /// Tries the kernels for the products of a step with `num_rows` rows, over the weights of all layers, and takes the
    /// fastest from now on. One trial for each product; none where weights are int8. To be called before anything
    /// is recorded: what lies between the kernels is lost.
    pub fn tune(&mut self, arena: &Arena<A>, num_rows: usize) -> Result<Vec<Trial>> {
        let (config, device) = (&self.config, &self.device);
        let (hidden, query) = (config.hidden_size, config.query_size());
        let (kv, mlp) = (config.kv_size(), config.intermediate_size);
        let layers: Vec<_> = (0..config.num_hidden_layers)
            .map(|index| arena.layer(index))
            .collect();
        let all = |matrix: fn(&_) -> &Matrix<'_, A>| floats(layers.iter().map(matrix));
        let head = arena.head();
        let (Some(qkv), Some(o), Some(gate_up), Some(down), Some(head)) = (
            all(|layer| &layer.qkv),
            all(|layer| &layer.o),
            all(|layer| &layer.gate_up),
            all(|layer| &layer.down),
            floats([&head].into_iter()),
        ) else {
            return Ok(Vec::new());
        };
        let normed = self.normed.slice(..num_rows * hidden);
        let attended = self.tokens.attended.slice(..num_rows * query);
        let activated = self.activated.slice(..num_rows * mlp);
        let head_rows = num_rows.min(self.room.logits_rows);
        let to_head = self.normed.slice(..head_rows * hidden);

        let mut y = self.qkv.slice_mut(..num_rows * (query + 2 * kv));
        let to = (&mut y, Sum::Overwrite);
        let mut trials = vec![device.tune_linear(&normed, &qkv, to, (hidden, MAX_KERNELS))?];
        let mut y = self.tokens.residual.slice_mut(..num_rows * hidden);
        let to = (&mut y, Sum::Add);
        trials.push(device.tune_linear(&attended, &o, to, (query, MAX_KERNELS))?);
        let mut y = self.gate_up.slice_mut(..num_rows * 2 * mlp);
        let to = (&mut y, Sum::Overwrite);
        trials.push(device.tune_linear(&normed, &gate_up, to, (hidden, MAX_KERNELS))?);
        let mut y = self.tokens.residual.slice_mut(..num_rows * hidden);
        let to = (&mut y, Sum::Add);
        trials.push(device.tune_linear(&activated, &down, to, (mlp, MAX_KERNELS))?);
        let mut y = self.logits.slice_mut(..head_rows * config.vocab_size);
        let to = (&mut y, Sum::Overwrite);
        trials.push(device.tune_linear(&to_head, &head, to, (hidden, MAX_KERNELS))?);
        Ok(trials)
    }
}

/// `None` where one is int8.
fn floats<'a, 'b: 'a, A: 'b>(
    matrices: impl Iterator<Item = &'a Matrix<'b, A>>,
) -> Option<Vec<CudaView<'b, A>>> {
    let float = |matrix: &Matrix<'b, A>| match matrix {
        Matrix::Float(values) => Some(values.slice(..)),
        Matrix::Int8 { .. } => None,
    };
    matrices.map(float).collect()
}
