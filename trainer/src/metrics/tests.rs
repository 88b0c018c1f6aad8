use super::*;

fn step(step: u64) -> StepMetrics {
    StepMetrics {
        step,
        epoch: 1,
        loss: 2.5,
        lr: 1e-5,
        grad_norm: 0.5,
        tokens: 10,
        label_tokens: 4,
        tokens_per_s: 100.0,
    }
}

fn losses(epoch: u32) -> EpochLosses {
    EpochLosses {
        epoch,
        train_loss: 0.0,
        validation_loss: None,
    }
}

/// A resumed run's files go on after the last complete epoch: later lines and a torn tail are gone.
#[test]
fn resume_drops_what_will_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = MetricsLog::open(dir.path(), 0, &[]).unwrap();
    (1..=3).for_each(|n| log.step(&step(n)).unwrap());
    log.epoch(losses(1)).unwrap();
    log.epoch(losses(2)).unwrap();
    log.steps.file.write_all(b"{\"step\":1,\"ep").unwrap();
    drop(log);
    let mut log = MetricsLog::open(dir.path(), 2, &[losses(1)]).unwrap();
    log.step(&step(3)).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let steps: Vec<serde_json::Value> = read("metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        steps
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(read("losses.csv"), format!("{CSV_HEADER}\n1,0,1,,\n"));
}

/// A skipped step's loss is null, which every JSON reader understands.
#[test]
fn not_finite_is_null() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = MetricsLog::open(dir.path(), 0, &[]).unwrap();
    log.step(&StepMetrics {
        loss: f64::NAN,
        ..step(1)
    })
    .unwrap();
    let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert!(text.contains("\"loss\":null"), "{text}");
}
