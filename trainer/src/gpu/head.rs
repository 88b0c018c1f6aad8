//! Final norm, output head and loss, on the rows that carry a label only, a chunk of rows at a time.

use std::ops::Range;

use cuda::{CudaView, CudaViewMut, LossGradient, Sum, Summed};

use super::buffers::{Buffers, Head};
use super::inputs::Part;
use super::layer::{Pass, backward_norm, norm};
use super::layout::Layout;
use super::weights::Gradients;
use crate::error::Result;

/// Adds the labels' NLL to `total`, and leaves the gradient of the stream after the last layer in `dx`;
/// those of the final norm and the head are added to `gradients`.
pub(super) fn loss_and_gradient(
    pass: &Pass<'_>,
    layout: &Layout,
    buffers: &mut Buffers,
    of: LossGradient,
    (gradients, total): (&mut Gradients, &mut CudaViewMut<'_, f64>),
) -> Result<()> {
    normed_label_rows(pass, layout, buffers)?;
    let width = pass.config.hidden_size;
    let head = &mut buffers.head;
    let weight = pass.products.weights.matrix(&layout.head);
    for rows in chunks(pass, head) {
        logits(pass, layout, head, rows.clone())?;
        let len = rows.len() * pass.config.vocab_size;
        let targets = pass.inputs.labels(Part::Targets, rows.clone());
        let mut dlogits = head.dlogits.slice_mut(..len);
        let to = (&mut head.losses.slice_mut(rows.clone()), &mut dlogits);
        let logits = head.logits.slice(..len);
        cuda::cross_entropy_backward(pass.device, &logits, &targets, of, to)?;
        let dlogits = head.dlogits.slice(..len);
        let values = rows.start * width..rows.end * width;
        if let Some(mut dw) = gradients.of(layout.head.gradient.as_ref()) {
            let normed = head.normed.slice(values.clone());
            let to = (&mut dw, Sum::Add);
            pass.device
                .linear_weight_grad(&dlogits, &normed, to, width)?;
        }
        let mut dnormed = head.dnormed.slice_mut(values);
        let to = (&mut dnormed, Sum::Overwrite);
        pass.device
            .linear_input_grad(&dlogits, &weight, to, width)?;
    }
    let num_labels = pass.inputs.num_labels;
    add_losses(pass, head, total)?;

    let len = num_labels * width;
    pass.device.set_zero(&mut head.dx.slice_mut(..len))?;
    let sides = (&head.dnormed.slice(..len), &head.x.slice(..len));
    let to = (&mut head.dx.slice_mut(..len), gradients);
    let scratch = &mut buffers.scratch;
    backward_norm(pass, &layout.norm, sides, to, &mut scratch.norm_sums)?;
    let mut dx = scratch.dx.slice_mut(..pass.inputs.num_tokens * width);
    pass.device.set_zero(&mut dx)?;
    let rows = pass.inputs.part(Part::LabelRows);
    let from = head.dx.slice(..len);
    Ok(cuda::scatter_rows_add(
        pass.device,
        &from,
        &rows,
        &mut dx,
        width,
    )?)
}

/// Adds the labels' NLL to `total`.
pub(super) fn loss(
    pass: &Pass<'_>,
    layout: &Layout,
    buffers: &mut Buffers,
    total: &mut CudaViewMut<'_, f64>,
) -> Result<()> {
    normed_label_rows(pass, layout, buffers)?;
    let head = &mut buffers.head;
    for rows in chunks(pass, head) {
        logits(pass, layout, head, rows.clone())?;
        let logits = head.logits.slice(..rows.len() * pass.config.vocab_size);
        let targets = pass.inputs.labels(Part::Targets, rows.clone());
        let mut losses = head.losses.slice_mut(rows);
        cuda::cross_entropy(pass.device, &logits, &targets, &mut losses)?;
    }
    add_losses(pass, head, total)
}

fn add_losses(pass: &Pass<'_>, head: &mut Head, total: &mut CudaViewMut<'_, f64>) -> Result<()> {
    let losses = head.losses.slice(..pass.inputs.num_labels);
    let mut parts = head.sum_parts.as_view_mut();
    let values = Summed::Values;
    Ok(cuda::add_sum(
        pass.device,
        &losses,
        values,
        total,
        &mut parts,
    )?)
}

fn chunks(pass: &Pass<'_>, head: &Head) -> impl Iterator<Item = Range<usize>> + use<> {
    let (num_labels, rows) = (pass.inputs.num_labels, head.chunk_rows);
    let starts = (0..num_labels).step_by(rows);
    starts.map(move |start| start..num_labels.min(start + rows))
}

/// The rows of the last stream that predict a label, and what the head multiplies of them.
fn normed_label_rows(pass: &Pass<'_>, layout: &Layout, buffers: &mut Buffers) -> Result<()> {
    let width = pass.config.hidden_size;
    let Buffers { x, head, .. } = buffers;
    let x = &x[pass.config.num_hidden_layers];
    let rows = pass.inputs.part(Part::LabelRows);
    let mut to = head.x.slice_mut(..rows.len() * width);
    let from = x.slice(..pass.inputs.num_tokens * width);
    cuda::gather_rows(pass.device, &from, &rows, &mut to, width)?;
    let from: CudaView<'_, f32> = head.x.slice(..rows.len() * width);
    norm(pass, &layout.norm, &from, &mut head.normed)
}

fn logits(pass: &Pass<'_>, layout: &Layout, head: &mut Head, rows: Range<usize>) -> Result<()> {
    let width = pass.config.hidden_size;
    let normed = head.normed.slice(rows.start * width..rows.end * width);
    let weight = pass.products.weights.matrix(&layout.head);
    let mut to = head.logits.slice_mut(..rows.len() * pass.config.vocab_size);
    let to = (&mut to, Sum::Overwrite);
    Ok(pass.device.linear(&normed, &weight, to, width)?)
}
