use super::*;

/// Every example comes once per epoch, and the order depends on seed and epoch alone.
#[test]
fn shuffle_is_a_seeded_permutation() {
    let mut order = shuffled(100, 7, 1);
    assert_eq!(order, shuffled(100, 7, 1));
    assert_ne!(order, shuffled(100, 7, 2));
    assert_ne!(order, shuffled(100, 8, 1));
    order.sort_unstable();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    assert!(shuffled(0, 7, 1).is_empty());
}

/// Normal draws have mean 0 and variance 1.
#[test]
fn normal_has_unit_variance() {
    let rng = CounterRng::new(1, Stream::Init { parameter: 0 });
    let count = 20_000;
    let draws: Vec<f64> = (0..count).map(|index| rng.normal(index)).collect();
    let mean = draws.iter().sum::<f64>() / count as f64;
    let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
    assert!(mean.abs() < 0.03, "mean {mean}");
    assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
}

/// Draws below a bound reach both ends of the range.
#[test]
fn below_covers_the_range() {
    let rng = CounterRng::new(3, Stream::Shuffle { epoch: 1 });
    let mut seen = [0u32; 5];
    for index in 0..1000 {
        seen[rng.below(index, 5) as usize] += 1;
    }
    assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
}
