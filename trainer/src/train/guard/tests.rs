use super::*;

fn guard(sigma: f64, window: usize) -> GuardConfig {
    GuardConfig {
        spike: Some(SpikeGuard { sigma, window }),
        max_skipped_in_a_row: 5,
    }
}

/// Loss and norm must both be finite; a skipped step is counted, a good one ends the row.
#[test]
fn not_finite_is_skipped() {
    let config = GuardConfig {
        spike: None,
        max_skipped_in_a_row: 5,
    };
    let mut state = GuardState::default();
    for (loss, norm) in [(f64::NAN, 1.0), (1.0, f64::INFINITY), (-f64::INFINITY, 1.0)] {
        let reason = state.judge(loss, norm, &config).unwrap();
        assert!(reason.contains("gradient norm"), "{reason}");
    }
    assert_eq!(state.skipped_in_a_row, 3);
    assert_eq!(state.judge(1e30, 1e30, &config), None);
    assert_eq!(state.skipped_in_a_row, 0);
    assert!(state.recent.is_empty(), "nothing to remember");
}

/// No verdict before the window is full; then a loss far above it is skipped and does not join it,
/// and one far below it is good.
#[test]
fn spikes_are_above_a_full_window() {
    let config = guard(3.0, 4);
    let mut state = GuardState::default();
    for loss in [1.0, 100.0, 2.0] {
        assert_eq!(
            state.judge(loss, 1.0, &config),
            None,
            "the window is filling"
        );
    }
    let mut state = GuardState::default();
    for loss in [2.0, 4.0, 2.0, 4.0] {
        assert_eq!(state.judge(loss, 1.0, &config), None);
    }
    // Mean 3, standard deviation 1.
    assert_eq!(state.clone().judge(5.9, 1.0, &config), None);
    let reason = state.judge(6.1, 1.0, &config).unwrap();
    assert!(
        reason.contains("loss 6.1000 is 3.1 standard deviations above 3.0000"),
        "{reason}"
    );
    assert_eq!(state.recent, [2.0, 4.0, 2.0, 4.0]);
    assert_eq!(state.judge(-50.0, 1.0, &config), None);
    assert_eq!(state.recent, [4.0, 2.0, 4.0, -50.0]);
}

/// A window of equal losses has no scale to measure by.
#[test]
fn equal_losses_give_no_verdict() {
    let config = guard(3.0, 2);
    let mut state = GuardState::default();
    for loss in [1.0, 1.0, 9.0] {
        assert_eq!(state.judge(loss, 1.0, &config), None);
    }
}

/// The memory survives being written as JSON, bit for bit.
#[test]
fn memory_is_saved_exactly() {
    let config = guard(3.0, 8);
    let mut state = GuardState::default();
    for n in 1..20 {
        state.judge(1.0 / f64::from(n), 1.0, &config);
    }
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<GuardState>(&text).unwrap(), state);
}

/// Settings out of range name their flag.
#[test]
fn bad_settings_name_the_flag() {
    guard(6.0, 64).check().unwrap();
    for (config, flag) in [
        (guard(0.0, 64), "--spike-sigma"),
        (guard(6.0, 1), "--spike-window"),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    }
}
