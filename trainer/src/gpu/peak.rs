//! What a GPU can compute at most: by its maker's word where the card is known, else measured.

use cuda::{Device, Sum};
use half::bf16;

use crate::error::Result;

/// Dense bf16 peaks in TFLOP/s as NVIDIA's data sheets have them, by how the driver's names begin.
const PEAKS: [(&str, f64); 3] = [
    ("NVIDIA A100", 312.0),
    ("NVIDIA H100 80GB HBM3", 989.0),
    ("NVIDIA H200", 989.0),
];

/// Cards of the same name with a lower clock.
const OTHER_CARDS: &str = "NVL";

/// Rows, columns and depth of the product that is measured.
const MEASURED_SIZE: usize = 4096;

/// A software GPU is as slow as it is.
const SOFTWARE_SIZE: usize = 64;

/// Of several, the best: the first chooses the kernel.
const NUM_MEASUREMENTS: usize = 5;

/// In TFLOP/s.
pub(crate) fn peak_tflops(device: &Device) -> Result<f64> {
    match known_peak(&device.name()?) {
        Some(peak) => Ok(peak),
        None => measured(device),
    }
}

fn known_peak(name: &str) -> Option<f64> {
    let known = PEAKS.iter().find(|(card, _)| name.starts_with(card));
    let (_, peak) = known.filter(|_| !name.contains(OTHER_CARDS))?;
    Some(*peak)
}

fn measured(device: &Device) -> Result<f64> {
    let size = if device.is_software() {
        SOFTWARE_SIZE
    } else {
        MEASURED_SIZE
    };
    let x = device.upload(&vec![bf16::from_f32(0.5); size * size])?;
    let mut y = device.zeros::<bf16>(size * size)?;
    let mut best = f64::INFINITY;
    for _ in 0..NUM_MEASUREMENTS {
        let seconds = device.time(|| {
            let to = (&mut y.as_view_mut(), Sum::Overwrite);
            device.linear(&x.as_view(), &x.as_view(), to, size)
        })?;
        best = best.min(seconds);
    }
    Ok(2.0 * (size as f64).powi(3) / best.max(1e-9) / 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cards are known by the driver's names; those of the same family with another clock are not.
    #[test]
    fn known_cards_have_their_peak() {
        assert_eq!(known_peak("NVIDIA H100 80GB HBM3"), Some(989.0));
        assert_eq!(known_peak("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(known_peak("NVIDIA H200 NVL"), None);
        assert_eq!(known_peak("NVIDIA H100 PCIe"), None);
    }
}
