//! Sums of values in a GPU's memory over TCP: a piece at a time goes to the host, is summed there, and
//! goes back.

use cuda::{CudaSlice, Device};

use super::error::GroupError;
use super::tcp::TcpGroup;

/// Values of a piece: 16 MiB, large beside what a copy costs to begin, and small beside a host's memory.
pub(super) const PIECE_LEN: usize = 4 << 20;

pub(super) fn sum_through_host(
    tcp: &mut TcpGroup,
    device: &Device,
    values: &mut CudaSlice<f32>,
) -> Result<(), GroupError> {
    let len = values.len();
    let mut host = device.pinned::<f32>(PIECE_LEN.min(len))?;
    for start in (0..len).step_by(PIECE_LEN) {
        let count = PIECE_LEN.min(len - start);
        let mut piece = values.slice_mut(start..start + count);
        device.receive(&piece, &mut host)?;
        // Whatever came before is done then, too: the gradients, and the copy back of the last piece.
        device.synchronize()?;
        tcp.all_reduce_sum(&mut host.as_mut_slice()?[..count])?;
        device.send(&host, count, &mut piece)?;
    }
    // The host's piece is let go of.
    Ok(device.synchronize()?)
}
