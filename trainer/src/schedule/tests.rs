use super::*;

fn schedule(kind: ScheduleKind, warmup_steps: u64) -> Schedule {
    Schedule {
        kind,
        peak_lr: 2.0,
        warmup_steps,
        min_lr_ratio: 0.0,
    }
}

/// Linear decay without warm-up begins at the peak and is 0 once the last step is done.
#[test]
fn linear_reaches_zero() {
    let schedule = schedule(ScheduleKind::Linear, 0);
    let rates: Vec<f64> = (0..=4).map(|k| schedule.lr(k, k as f64 / 4.0)).collect();
    assert_eq!(rates, [2.0, 1.5, 1.0, 0.5, 0.0]);
}

/// The warm-up rises evenly and never has a step of rate 0.
#[test]
fn warmup_rises_to_the_peak() {
    let schedule = schedule(ScheduleKind::Constant, 3);
    let rates: Vec<f64> = (0..5).map(|k| schedule.lr(k, 0.0)).collect();
    assert_eq!(rates, [0.5, 1.0, 1.5, 2.0, 2.0]);
}

/// A cosine is half way down in the middle and ends at its floor.
#[test]
fn cosine_ends_at_the_floor() {
    let mut schedule = schedule(ScheduleKind::Cosine, 0);
    assert!((schedule.lr(5, 0.5) - 1.0).abs() < 1e-12);
    schedule.min_lr_ratio = 0.1;
    assert!((schedule.lr(10, 1.0) - 0.2).abs() < 1e-12);
}
