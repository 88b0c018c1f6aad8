//! Rotary positions and the way into the cache.

use cuda::{Cache, CacheElement, Device, Heads, Positions};
use half::bf16;

use crate::support::{Random, SEEDS, Value, assert_close, device, to_f32};

/// One step's inputs, with a row of padding.
struct Case {
    heads: Heads,
    block_size: usize,
    num_blocks: usize,
    qkv: Vec<f32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    angles: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, head_dim: usize) -> Self {
        let heads = Heads {
            num_heads: random.below(1, 5),
            num_groups: random.below(1, 4),
            head_dim,
        };
        let (block_size, num_blocks, max_positions) = (random.below(1, 6), 4, 11);
        let num_tokens = random.below(2, (2 * block_size).max(3));
        // Every second slot from the last on, so that some stay untouched.
        let last = (num_blocks * block_size) as u32 - 1;
        let mut slots: Vec<u32> = (0..num_tokens as u32)
            .map(|token| last.saturating_sub(2 * token))
            .collect();
        slots[num_tokens - 1] = u32::MAX;
        let all_heads = heads.num_heads + 2 * heads.num_groups;
        Self {
            qkv: to_f32(&random.bf16s(num_tokens * all_heads * head_dim)),
            positions: (0..num_tokens)
                .map(|_| random.below(0, max_positions) as u32)
                .collect(),
            angles: (0..max_positions * head_dim / 2)
                .map(|_| 4.0 * random.float())
                .collect(),
            heads,
            block_size,
            num_blocks,
            slots,
        }
    }

    fn cache_len(&self) -> usize {
        self.num_blocks * self.heads.num_groups * self.block_size * self.heads.head_dim
    }

    /// qkv and both caches after the kernel.
    fn run<A: Value, E: CacheElement<A>>(
        &self,
        device: &Device,
        empty: E,
        scales: [f32; 2],
    ) -> (Vec<f32>, Vec<E>, Vec<E>) {
        let qkv: Vec<A> = self.qkv.iter().map(|value| A::of(*value)).collect();
        let mut qkv = device.upload(&qkv).expect("the GPU works");
        let mut keys = device
            .upload(&vec![empty; self.cache_len()])
            .expect("the GPU works");
        let mut values = device
            .upload(&vec![empty; self.cache_len()])
            .expect("the GPU works");
        let positions = device.upload(&self.positions).expect("the GPU works");
        let slots = device.upload(&self.slots).expect("the GPU works");
        let cosines: Vec<f32> = self.angles.iter().map(|angle| angle.cos()).collect();
        let sines: Vec<f32> = self.angles.iter().map(|angle| angle.sin()).collect();
        let (cosines, sines) = (
            device.upload(&cosines).expect("the GPU works"),
            device.upload(&sines).expect("the GPU works"),
        );
        let at = Positions {
            positions: &positions.as_view(),
            slots: &slots.as_view(),
            cosines: &cosines.as_view(),
            sines: &sines.as_view(),
        };
        let cache = Cache {
            keys: &mut keys.as_view_mut(),
            values: &mut values.as_view_mut(),
            block_size: self.block_size,
            scales,
        };
        cuda::rope_kv(device, &mut qkv.as_view_mut(), &at, cache, self.heads)
            .expect("the GPU works");
        (
            to_f32(&device.download(&qkv).expect("the GPU works")),
            device.download(&keys).expect("the GPU works"),
            device.download(&values).expect("the GPU works"),
        )
    }

    fn turned(&self, head: &[f32], position: u32) -> Vec<f32> {
        let half = head.len() / 2;
        let angle = |i: usize| self.angles[position as usize * half + i];
        let first = (0..half).map(|i| head[i] * angle(i).cos() - head[half + i] * angle(i).sin());
        let second = (0..half).map(|i| head[half + i] * angle(i).cos() + head[i] * angle(i).sin());
        first.chain(second).collect()
    }

    /// What [`Case::run`] should give, in f32; a cache holds `empty` where nothing was written.
    fn twin(&self, empty: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Heads {
            num_heads,
            num_groups,
            head_dim,
        } = self.heads;
        let mut qkv = self.qkv.clone();
        let mut caches = [vec![empty; self.cache_len()], vec![empty; self.cache_len()]];
        let rows = qkv.chunks_mut((num_heads + 2 * num_groups) * head_dim);
        for ((row, position), slot) in rows.zip(&self.positions).zip(&self.slots) {
            for (head, x) in row.chunks_mut(head_dim).enumerate() {
                let turned = self.turned(x, *position);
                if head < num_heads {
                    x.copy_from_slice(&turned);
                    continue;
                }
                if *slot == u32::MAX {
                    continue;
                }
                let (which, group) = (
                    (head - num_heads) / num_groups,
                    (head - num_heads) % num_groups,
                );
                let (block, offset) = (
                    *slot as usize / self.block_size,
                    *slot as usize % self.block_size,
                );
                let at = ((block * num_groups + group) * self.block_size + offset) * head_dim;
                let kept: &[f32] = if which == 0 { &turned } else { x };
                caches[which][at..at + head_dim].copy_from_slice(kept);
            }
        }
        let [keys, values] = caches;
        (qkv, keys, values)
    }
}

fn check<A: Value>(device: &Device, random: &mut Random) {
    for head_dim in [16, 32, 64, 128] {
        let case = Case::new(random, head_dim);
        let (qkv, keys, values) = case.run(device, A::of(0.5), [1.0, 1.0]);
        let expected = case.twin(0.5);
        assert_close(&qkv, &expected.0, A::ROUNDING);
        assert_close(&to_f32(&keys), &expected.1, A::ROUNDING);
        assert_eq!(to_f32(&values), expected.2, "values are copied");
    }
}

#[test]
fn rope_kv_is_its_twin() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        check::<bf16>(&device, &mut Random::new(seed));
        check::<f32>(&device, &mut Random::new(seed));
    }
}

/// What e4m3 bits say: 4 bits of exponent, bias 7, 3 of mantissa.
fn from_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = if exponent == 0 {
        mantissa * 2.0_f32.powi(-9)
    } else {
        (8.0 + mantissa) * 2.0_f32.powi(exponent - 10)
    };
    if bits & 0x80 == 0 { size } else { -size }
}

fn check_e4m3<A: Value<Byte = u8>>(device: &Device, seed: u64)
where
    u8: CacheElement<A>,
{
    let case = Case::new(&mut Random::new(seed), 64);
    let scales = [0.25, 0.125];
    // 0x38 is 1.
    let (_, keys, values) = case.run::<A, u8>(device, 0x38, scales);
    let (_, expected_keys, expected_values) = case.twin(f32::NAN);
    for (found, expected, scale) in [
        (keys, expected_keys, scales[0]),
        (values, expected_values, scales[1]),
    ] {
        for (bits, expected) in found.iter().zip(expected) {
            if expected.is_nan() {
                assert_eq!(*bits, 0x38, "nothing is written here");
                continue;
            }
            let found = scale * from_e4m3(*bits);
            // Half a unit of 4 bits, or of the smallest number.
            let allowed = (expected.abs() / 16.0 * 1.001).max(scale * 2.0_f32.powi(-10));
            assert!(
                (found - expected).abs() <= allowed,
                "{found} for {expected}"
            );
        }
    }
}

#[test]
fn an_e4m3_cache_holds_values_divided_by_their_scale() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        check_e4m3::<bf16>(&device, seed);
        check_e4m3::<f32>(&device, seed);
    }
}

#[test]
fn an_unsupported_shape_is_an_error() {
    let Some(device) = device() else { return };
    let error = |qkv_len: usize, head_dim: usize| {
        let mut qkv = device.zeros::<bf16>(qkv_len).unwrap();
        let (index, angles) = (
            device.zeros::<u32>(1).unwrap(),
            device.zeros::<f32>(64).unwrap(),
        );
        let mut keys = device.zeros::<bf16>(32).unwrap();
        let mut values = device.zeros::<bf16>(32).unwrap();
        let at = Positions {
            positions: &index.as_view(),
            slots: &index.as_view(),
            cosines: &angles.as_view(),
            sines: &angles.as_view(),
        };
        let cache = Cache {
            keys: &mut keys.as_view_mut(),
            values: &mut values.as_view_mut(),
            block_size: 2,
            scales: [1.0, 1.0],
        };
        let heads = Heads {
            num_heads: 1,
            num_groups: 1,
            head_dim,
        };
        let failed = cuda::rope_kv(&device, &mut qkv.as_view_mut(), &at, cache, heads);
        failed.unwrap_err().to_string()
    };
    assert_eq!(
        error(72, 24),
        "rope_kv: D: expected a multiple of 16, found 24"
    );
    assert_eq!(error(64, 16), "rope_kv: qkv: expected 48 values, found 64");
}
