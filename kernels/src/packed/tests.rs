use super::product::product;
use super::weight::RUN;
use super::{Activations, Weight, WeightBuilder, WeightFormat, linear_packed};
use crate::crew::Crew;
use crate::step::{INT8_GROUP, Isa, Output, rounded_to_bf16};
use crate::testing::{Rng, assert_values_close};

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

/// Shapes (O, C) around the edges of panels, words and runs.
const SHAPES: [(usize, usize); 9] = [
    (1, 1),
    (5, 3),
    (16, 31),
    (33, 64),
    (48, 257),
    (64, 512),
    (100, 513),
    (70, 1030),
    (160, 96),
];

fn activations(format: WeightFormat, x: &[f32], c: usize, crew: &Crew) -> Activations {
    let mut packed = Activations::new(format);
    packed.fill((x.len() / c, c), crew, |t, row| {
        row.copy_from_slice(&x[t * c..(t + 1) * c]);
    });
    packed
}

fn run(isa: Isa, x: &[f32], w: &Weight, crew: &Crew) -> Vec<f32> {
    let c = w.num_inputs();
    let mut y = vec![f32::NAN; x.len() / c * w.num_outputs()];
    let x = activations(w.format(), x, c, crew);
    product(&x, w, (&mut y, Output::Overwrite), (crew, isa));
    y
}

fn bf16(value: f32) -> f32 {
    f32::from_bits(rounded_to_bf16(value) & 0xFFFF_0000)
}

/// A group in whole numbers, and what one of them counts.
fn quantized(group: &[f32]) -> (Vec<i32>, f32) {
    let largest = group.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let scale = largest / 127.0;
    let whole = |value: &f32| (value * (1.0 / scale)).round_ties_even() as i32;
    (group.iter().map(whole).collect(), scale)
}

/// The sum of one element in the documented order, as a plain loop.
fn element(format: WeightFormat, x: &[f32], w: &[f32]) -> f32 {
    let run = RUN * format.per_word();
    let runs = x.chunks(run).zip(w.chunks(run));
    let sums = runs.map(|(x, w)| match format {
        WeightFormat::F32 => {
            let pairs = x.iter().zip(w);
            pairs.fold(0.0, |sum, (x, w)| w.mul_add(*x, sum))
        }
        WeightFormat::Bf16 => {
            let mut sum = 0.0;
            for (x, w) in x.chunks(2).zip(w.chunks(2)) {
                for i in (0..x.len()).rev() {
                    sum = bf16(w[i]).mul_add(bf16(x[i]), sum);
                }
            }
            sum
        }
        WeightFormat::Int8 => {
            let groups = x.chunks(INT8_GROUP).zip(w.chunks(INT8_GROUP));
            groups.fold(0.0, |sum, (x, w)| {
                let ((x, x_scale), (w, w_scale)) = (quantized(x), quantized(w));
                let whole: i32 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
                (whole as f32).mul_add(w_scale * x_scale, sum)
            })
        }
    });
    sums.reduce(|total, sum| total + sum).unwrap()
}

/// Every instruction set gives what the plain loop gives, at every shape and number of rows. In f32 and
/// int8 to the bit; in bf16 the instruction may round differently within a pair.
#[test]
fn products_are_the_plain_loops() {
    let mut rng = Rng::new(1);
    let crew = Crew::new(2).unwrap();
    for format in FORMATS {
        for (o, c) in SHAPES {
            let w = rng.values(o * c);
            let weight = Weight::pack(format, &w, c).unwrap();
            for t in (1..=14).chain([25, 36, 37, 70]) {
                let x = rng.values(t * c);
                let rows = x.chunks(c).flat_map(|x| w.chunks(c).map(move |w| (x, w)));
                let expected: Vec<f32> = rows.map(|(x, w)| element(format, x, w)).collect();
                for isa in Isa::all() {
                    let found = run(isa, &x, &weight, &crew);
                    if format != WeightFormat::Bf16 && is_fused() {
                        assert!(found == expected, "{format:?} {isa:?} {t} x {o} x {c}");
                    }
                    assert_values_close(&found, &expected, 1e-5);
                }
            }
        }
    }
}

/// Whether this machine multiplies and adds in one rounding.
fn is_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// A row has the same bits alone and in batches of 1 to 70 rows, on one thread and on several.
#[test]
fn rows_do_not_depend_on_the_batch() {
    let mut rng = Rng::new(2);
    let (o, c) = (200, 700);
    let (alone, crew) = (Crew::alone(), Crew::new(3).unwrap());
    let x = rng.values(70 * c);
    for format in FORMATS {
        let w = Weight::pack(format, &rng.values(o * c), c).unwrap();
        for isa in Isa::all() {
            let all = run(isa, &x, &w, &alone);
            for rows in 1..=70 {
                let first = (7 * rows) % (71 - rows);
                let part = run(isa, &x[first * c..(first + rows) * c], &w, &crew);
                assert!(
                    part == all[first * o..(first + rows) * o],
                    "{format:?} {isa:?} {rows}"
                );
            }
        }
    }
}

/// Adding gives what was there and the product.
#[test]
fn sums_go_on_top() {
    let mut rng = Rng::new(3);
    let crew = Crew::new(2).unwrap();
    let (t, o, c) = (5, 70, 600);
    let x = rng.values(t * c);
    for format in FORMATS {
        let w = Weight::pack(format, &rng.values(o * c), c).unwrap();
        let product = run(Isa::detect(), &x, &w, &crew);
        let before = rng.values(t * o);
        let mut y = before.clone();
        let x = activations(format, &x, c, &crew);
        linear_packed(&x, &w, (&mut y, Output::Add), &crew).unwrap();
        let expected: Vec<f32> = before.iter().zip(&product).map(|(a, b)| a + b).collect();
        assert_values_close(&y, &expected, 1e-5);
    }
}

/// Matrices put together are one matrix, and rows come back as they were stored.
#[test]
fn rows_are_kept() {
    let mut rng = Rng::new(4);
    for format in FORMATS {
        for c in [1, 2, 7, 64] {
            let rows = rng.values(45 * c);
            let mut builder = WeightBuilder::new(format, 45, c).unwrap();
            builder.push_rows(&rows[..40 * c]).unwrap();
            builder.push_rows(&rows[40 * c..]).unwrap();
            let weight = builder.finish().unwrap();
            let mut row = vec![0.0; c];
            for (i, expected) in rows.chunks(c).enumerate() {
                weight.copy_row(i, &mut row);
                let stored: Vec<f32> = match format {
                    WeightFormat::F32 => expected.to_vec(),
                    WeightFormat::Bf16 => expected.iter().copied().map(bf16).collect(),
                    WeightFormat::Int8 => {
                        let (whole, scale) = quantized(expected);
                        whole.iter().map(|value| *value as f32 * scale).collect()
                    }
                };
                assert_eq!(row, stored);
            }
        }
    }
}

/// What does not fit is an error that says what; sizes of zero are allowed.
#[test]
fn misfits_are_errors() {
    let crew = Crew::alone();
    let w = Weight::pack(WeightFormat::F32, &[1.0; 6], 3).unwrap();
    let x = activations(WeightFormat::F32, &[1.0; 4], 2, &crew);
    let error = linear_packed(&x, &w, (&mut [0.0; 4], Output::Overwrite), &crew);
    assert_eq!(
        error.unwrap_err().to_string(),
        "linear_packed: x has shape [2], expected [3]"
    );
    let mut builder = WeightBuilder::new(WeightFormat::F32, 2, 3).unwrap();
    let error = builder.push_rows(&[0.0; 9]).unwrap_err().to_string();
    assert_eq!(
        error,
        "WeightBuilder: rows has shape [9], expected [at most 2, 3]"
    );
    assert!(builder.finish().is_err());
    let mut none = Activations::new(WeightFormat::F32);
    none.fill((0, 3), &crew, |_, _| ());
    linear_packed(&none, &w, (&mut [], Output::Overwrite), &crew).unwrap();
}

/// Rounding to bf16 is to nearest, ties to even; what is not a number stays so.
#[test]
fn rounding_to_bf16() {
    for (value, expected) in [
        (0x3F80_0000, 0x3F80_0000_u32),
        (0x3F80_8001, 0x3F81_0000), // above the middle
        (0x3F80_8000, 0x3F80_0000), // the middle, down to even
        (0x3F81_8000, 0x3F82_0000), // the middle, up to even
        (0x7F80_0000, 0x7F80_0000), // infinity
        (0x8000_0000, 0x8000_0000), // -0
    ] {
        assert_eq!(bf16(f32::from_bits(value)).to_bits(), expected, "{value:x}");
    }
    assert!(bf16(f32::from_bits(0x7F80_0001)).is_nan());
}
