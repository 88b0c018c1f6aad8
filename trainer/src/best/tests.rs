use super::*;
use crate::metrics::EpochLosses;

fn values(list: &[f64]) -> Vec<EpochValue> {
    let value = |(epoch, &value): (u32, &f64)| EpochValue { epoch, value };
    (1..).zip(list).map(value).collect()
}

/// Lowest loss or highest accuracy; the earlier of equals.
#[test]
fn best_is_first_of_equals() {
    let best = |metric, list: &[f64]| Best::of(metric, values(list)).map(|best| best.epoch);
    assert_eq!(best(Metric::ValidationLoss, &[2.0, 1.0, 1.0, 3.0]), Some(2));
    assert_eq!(best(Metric::Accuracy, &[0.2, 0.5, 0.1, 0.5]), Some(2));
    assert_eq!(best(Metric::Accuracy, &[]), None);
}

/// Patience counts measured epochs since the last improvement that is large enough.
#[test]
fn patience_counts_epochs_without_improvement() {
    let over = |patience, min_improvement, list: &[f64]| {
        let stopping = EarlyStopping {
            patience,
            min_improvement,
        };
        stopping.is_over(Metric::ValidationLoss, &values(list))
    };
    assert!(!over(2, 0.0, &[3.0, 2.0, 2.0]));
    assert!(over(2, 0.0, &[3.0, 2.0, 2.0, 2.5]));
    assert!(!over(2, 0.0, &[3.0, 2.0, 2.0, 1.9]));
    // Steps of 0.05 add up: against the last mark, not against the epoch before.
    assert!(!over(2, 0.08, &[2.0, 1.95, 1.9, 1.85]));
    assert!(over(2, 0.2, &[2.0, 1.95, 1.9]));
    assert!(!over(1, 0.0, &[]));
}

/// A loss that is missing or not finite is no value.
#[test]
fn missing_values_are_left_out() {
    let losses = |epoch, validation_loss| EpochLosses {
        epoch,
        train_loss: 1.0,
        validation_loss,
    };
    let position = Position {
        history: vec![
            losses(1, Some(2.0)),
            losses(2, None),
            losses(3, Some(f64::NAN)),
            losses(4, Some(1.0)),
        ],
        ..Position::default()
    };
    let epochs = |metric: Metric| {
        let values = metric.values(&position).into_iter();
        values.map(|value| value.epoch).collect::<Vec<_>>()
    };
    assert_eq!(epochs(Metric::ValidationLoss), [1, 4]);
    assert!(epochs(Metric::Accuracy).is_empty());
}

/// What is written is read again; half a file is nothing.
#[test]
fn file_is_read_back() {
    let out = tempfile::tempdir().unwrap();
    assert_eq!(Best::read(out.path()), None);
    let best = Best::of(Metric::Accuracy, values(&[0.1, 1.0 / 3.0])).unwrap();
    best.write(out.path()).unwrap();
    assert_eq!(Best::read(out.path()), Some(best));
    std::fs::write(out.path().join(BEST_FILE), "{\"epoch\":1").unwrap();
    assert_eq!(Best::read(out.path()), None);
}
