//! The kernels of training beside plain twins.

use cuda::{Angles, Heads, LossGradient, NormBackward, Summed, TokensById, Turn};
use half::bf16;

use crate::support::{Random, SEEDS, assert_close, device, to_f32};

/// One rounding to bf16: half a unit in its 8 bits.
const BF16: f32 = 1.0 / 256.0;

#[test]
fn norm_gradients_are_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (rows, width) = (random.below(1, 150), 4 * random.below(1, 40));
        let (x, w) = (random.floats(rows * width), random.floats(width));
        let dy = random.bf16s(rows * width);
        let (start_dx, start_dw) = (random.floats(rows * width), random.floats(width));
        let eps = 1e-5;
        let (mut dx, mut dw) = (start_dx.clone(), start_dw.clone());
        for (row, dy) in to_f32(&dy).chunks(width).enumerate() {
            let x = &x[row * width..][..width];
            let mean = x.iter().map(|x| x * x).sum::<f32>() / width as f32;
            let r = 1.0 / (mean + eps).sqrt();
            let along: f32 = (0..width).map(|i| dy[i] * w[i] * x[i]).sum();
            for i in 0..width {
                let through = w[i] * dy[i] - r * r * x[i] * along / width as f32;
                dx[row * width + i] += r * through;
                dw[i] += dy[i] * x[i] * r;
            }
        }
        let on_gpu = |values: &[f32]| device.upload(values).unwrap();
        let (x, w, dy) = (on_gpu(&x), on_gpu(&w), device.upload(&dy).unwrap());
        let (mut found_dx, mut found_dw) = (on_gpu(&start_dx), on_gpu(&start_dw));
        let scratch_len = cuda::norm_scratch_len(rows, width);
        let mut scratch = device.zeros::<f32>(scratch_len).unwrap();
        let of = NormBackward {
            dy: &dy.as_view(),
            x: &x.as_view(),
            w: &w.as_view(),
            eps,
        };
        let dw_to = &mut found_dw.as_view_mut();
        let (to, scratch) = (&mut found_dx.as_view_mut(), &mut scratch.as_view_mut());
        cuda::rms_norm_backward(&device, of, to, Some(dw_to), scratch).unwrap();
        assert_close(&device.download(&found_dx).unwrap(), &dx, 1e-5);
        assert_close(&device.download(&found_dw).unwrap(), &dw, 1e-4);
    }
}

/// Turned and turned back: what it was, to two roundings.
#[test]
fn heads_turn_and_turn_back() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let heads = Heads {
            num_heads: random.below(1, 4),
            num_groups: random.below(1, 3),
            head_dim: 4 * random.below(1, 6),
        };
        let (tokens, half) = (random.below(1, 20), heads.head_dim / 2);
        let stride = (heads.num_heads + 2 * heads.num_groups) * heads.head_dim;
        let angles = random.floats(7 * half);
        let cosines: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        let sines: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        let positions: Vec<u32> = (0..tokens).map(|_| random.below(0, 7) as u32).collect();
        let qkv = random.bf16s(tokens * stride);
        let mut expected = to_f32(&qkv);
        for (row, position) in expected.chunks_mut(stride).zip(&positions) {
            let turned = (heads.num_heads + heads.num_groups) * heads.head_dim;
            for head in row[..turned].chunks_mut(heads.head_dim) {
                for i in 0..half {
                    let at = *position as usize * half + i;
                    let (a, b) = (head[i], head[half + i]);
                    head[i] = a * cosines[at] - b * sines[at];
                    head[half + i] = b * cosines[at] + a * sines[at];
                }
            }
        }
        let mut on_gpu = device.upload(&qkv).unwrap();
        let positions = device.upload(&positions).unwrap();
        let cosines = device.upload(&cosines).unwrap();
        let sines = device.upload(&sines).unwrap();
        let angles = Angles {
            cosines: &cosines.as_view(),
            sines: &sines.as_view(),
        };
        let at = (&positions.as_view(), angles);
        cuda::rope_train(&device, &mut on_gpu.as_view_mut(), at, heads, Turn::Forward).unwrap();
        let found = to_f32(&device.download(&on_gpu).unwrap());
        assert_close(&found, &expected, BF16);
        cuda::rope_train(&device, &mut on_gpu.as_view_mut(), at, heads, Turn::Back).unwrap();
        let found = to_f32(&device.download(&on_gpu).unwrap());
        assert_close(&found, &to_f32(&qkv), 3.0 * BF16);
    }
}

#[test]
fn swiglu_gradients_are_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (rows, width) = (random.below(1, 20), 8 * random.below(1, 20));
        let (gate_up, dy) = (random.bf16s(2 * rows * width), random.bf16s(rows * width));
        let mut expected = to_f32(&gate_up);
        let rows = expected.chunks_mut(2 * width).zip(
            to_f32(&dy)
                .chunks(width)
                .map(<[f32]>::to_vec)
                .collect::<Vec<_>>(),
        );
        for (row, dy) in rows {
            let (gate, up) = row.split_at_mut(width);
            for i in 0..width {
                let (g, u, d) = (gate[i], up[i], dy[i]);
                let s = 1.0 / (1.0 + (-g).exp());
                gate[i] = d * u * s * (1.0 + g * (1.0 - s));
                up[i] = d * g * s;
            }
        }
        let mut on_gpu = device.upload(&gate_up).unwrap();
        let dy = device.upload(&dy).unwrap();
        cuda::swiglu_backward(&device, &mut on_gpu.as_view_mut(), &dy.as_view(), width).unwrap();
        assert_close(&to_f32(&device.download(&on_gpu).unwrap()), &expected, BF16);
    }
}

#[test]
fn rows_are_added_by_index() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (tokens, width, vocab) = (random.below(1, 40), 4 * random.below(1, 20), 11);
        let ids: Vec<u32> = (0..tokens).map(|_| random.below(0, vocab) as u32).collect();
        let (dx, table) = (random.floats(tokens * width), random.floats(vocab * width));
        let mut order: Vec<u32> = (0..tokens as u32).collect();
        order.sort_by_key(|token| ids[*token as usize]);
        let is_first =
            |at: &usize| *at == 0 || ids[order[*at] as usize] != ids[order[*at - 1] as usize];
        let mut starts: Vec<u32> = (0..tokens).filter(is_first).map(|at| at as u32).collect();
        starts.push(tokens as u32);
        let mut expected = table.clone();
        for (id, dx) in ids.iter().zip(dx.chunks(width)) {
            let row = expected[*id as usize * width..].iter_mut();
            row.zip(dx).for_each(|(sum, dx)| *sum += dx);
        }
        let mut found = device.upload(&table).unwrap();
        let dx_on_gpu = device.upload(&dx).unwrap();
        let numbers = [&ids, &order, &starts].map(|list| device.upload(list).unwrap());
        let tokens_by_id = TokensById {
            ids: &numbers[0].as_view(),
            order: &numbers[1].as_view(),
            starts: &numbers[2].as_view(),
        };
        let to = &mut found.as_view_mut();
        cuda::embedding_backward(&device, &dx_on_gpu.as_view(), tokens_by_id, to, width).unwrap();
        // The same additions in the same order.
        assert_eq!(device.download(&found).unwrap(), expected);

        let rows: Vec<u32> = (0..vocab as u32).filter(|row| row % 3 != 1).collect();
        let x = random.floats(rows.len() * width);
        for (row, x) in rows.iter().zip(x.chunks(width)) {
            let row = expected[*row as usize * width..].iter_mut();
            row.zip(x).for_each(|(sum, x)| *sum += x);
        }
        let (x, rows) = (device.upload(&x).unwrap(), device.upload(&rows).unwrap());
        let to = &mut found.as_view_mut();
        cuda::scatter_rows_add(&device, &x.as_view(), &rows.as_view(), to, width).unwrap();
        assert_eq!(device.download(&found).unwrap(), expected);
    }
}

/// Labels smoothed or not; a target outside and a logit that is not a number make NaN of their row alone.
#[test]
fn losses_are_their_twins() {
    let Some(device) = device() else { return };
    for (seed, smoothing) in SEEDS.into_iter().zip([0.0, 0.1, 0.0]) {
        let mut random = Random::new(seed);
        let (rows, width) = (random.below(3, 6), 4 * random.below(1, 2000));
        let mut logits = random.floats(rows * width);
        for logit in &mut logits {
            *logit *= 20.0;
        }
        let mut targets: Vec<u32> = (0..rows).map(|_| random.below(0, width) as u32).collect();
        targets[0] = width as u32;
        logits[width] = f32::NAN;
        let scale = 0.25;
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        for (row, target) in logits.chunks(width).zip(&targets).skip(2) {
            let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let largest = wide.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = wide.iter().map(|x| (x - largest).exp()).sum();
            losses.push((largest + sum.ln() - wide[*target as usize]) as f32);
            let share = f64::from(smoothing);
            gradients.extend(wide.iter().enumerate().map(|(at, x)| {
                let hot = if at == *target as usize {
                    1.0 - share
                } else {
                    0.0
                };
                let d = (x - largest).exp() / sum - share / width as f64 - hot;
                (f64::from(scale) * d) as f32
            }));
        }
        let (logits, targets) = (
            device.upload(&logits).unwrap(),
            device.upload(&targets).unwrap(),
        );
        let mut found = device.zeros::<f32>(rows).unwrap();
        let mut dlogits = device.zeros::<bf16>(rows * width).unwrap();
        let of = LossGradient { scale, smoothing };
        let sides = (&logits.as_view(), &targets.as_view());
        let to = (&mut found.as_view_mut(), &mut dlogits.as_view_mut());
        cuda::cross_entropy_backward(&device, sides.0, sides.1, of, to).unwrap();
        let first = device.download(&found).unwrap();
        assert!(first[0].is_nan() && first[1].is_nan());
        assert_close(&first[2..], &losses, 1e-5);
        let dlogits = to_f32(&device.download(&dlogits).unwrap());
        assert_close(&dlogits[2 * width..], &gradients, BF16);
        cuda::cross_entropy(&device, sides.0, sides.1, &mut found.as_view_mut()).unwrap();
        assert_eq!(device.download(&found).unwrap()[2..], first[2..]);
    }
}

#[test]
fn sums_are_exact_enough_and_add_up() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let len = random.below(1, 5000);
        let x = random.floats(len);
        let on_gpu = device.upload(&x).unwrap();
        let mut total = device.zeros::<f64>(1).unwrap();
        let mut scratch = device.zeros::<f64>(cuda::SUM_SCRATCH_LEN).unwrap();
        for summed in [Summed::Values, Summed::Squares] {
            let to = (&mut total.as_view_mut(), &mut scratch.as_view_mut());
            cuda::add_sum(&device, &on_gpu.as_view(), summed, to.0, to.1).unwrap();
        }
        let values = x.iter().map(|x| f64::from(*x));
        let expected: f64 = values.map(|x| x + x * x).sum();
        let found = device.download(&total).unwrap()[0];
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }
}
