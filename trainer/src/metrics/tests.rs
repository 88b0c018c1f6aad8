use super::*;
use crate::config::Method;
use crate::throughput::ModelFlops;

fn step(step: u64) -> StepRecord {
    StepRecord {
        step,
        epoch: 1,
        loss: 2.5,
        lr: 1e-5,
        grad_norm: 0.5,
        num_tokens: 10,
        num_label_tokens: 4,
        num_attention_pairs: 55,
        took: Duration::from_millis(100),
        skipped: None,
    }
}

fn losses(epoch: u32) -> EpochLosses {
    EpochLosses {
        epoch,
        train_loss: 0.0,
        validation_loss: None,
    }
}

/// A resumed run's files go on after the last saved step: later lines and a torn tail are gone.
#[test]
fn resume_drops_what_will_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = MetricsLog::open(dir.path(), 0, &[]).unwrap();
    for n in 1..=3 {
        log.step(&step(n)).unwrap();
    }
    log.epoch(losses(1)).unwrap();
    log.epoch(losses(2)).unwrap();
    log.steps.file.write_all(b"{\"step\":1,\"ep").unwrap();
    let seconds_before =
        StepMetrics::read_all(&dir.path().join("metrics.jsonl")).unwrap()[1].seconds;
    drop(log);
    let mut log = MetricsLog::open(dir.path(), 2, &[losses(1)]).unwrap();
    let again = log.step(&step(3)).unwrap();
    assert!(again.seconds >= seconds_before);
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
    let csv = read("steps.csv");
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some(StepMetrics::CSV_HEADER));
    let numbers: Vec<&str> = rows.map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    let num_event_files = std::fs::read_dir(dir.path().join("tensorboard"))
        .unwrap()
        .count();
    assert_eq!(num_event_files, 1);
    assert_eq!(read("losses.csv"), format!("{CSV_HEADER}\n1,0,1,,\n"));
}

/// A skipped step's loss is null, which every JSON reader understands.
#[test]
fn not_finite_is_null() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = MetricsLog::open(dir.path(), 0, &[]).unwrap();
    log.step(&StepRecord {
        loss: f64::NAN,
        skipped: Some("a spike".to_string()),
        ..step(1)
    })
    .unwrap();
    let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert!(text.contains("\"loss\":null"), "{text}");
    let again = StepMetrics::parse(text.trim()).unwrap();
    assert!(again.loss.is_nan() && again.skipped.is_some());
    let csv = std::fs::read_to_string(dir.path().join("steps.csv")).unwrap();
    assert!(csv.lines().nth(1).unwrap().starts_with("1,1,,"), "{csv}");
}

/// Rates are per second of the step, and the MFU is the formula's FLOP/s over the peak.
#[test]
fn rates_are_those_of_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::testing::tiny_config(crate::testing::Head::Tied);
    let flops = ModelFlops::new(&config, &Method::Full, config.num_parameters());
    let log = MetricsLog::open(dir.path(), 0, &[]).unwrap();
    let mut log = log.with_rates(Rates {
        flops,
        peak_tflops: 0.5,
    });
    let metrics = log.step(&step(1)).unwrap();
    let tflops = flops.of_step(10, 55) / 0.1 / 1e12;
    assert!((metrics.tokens_per_s - 100.0).abs() < 1e-9);
    assert_eq!(metrics.label_tokens_per_s, Some(40.0));
    assert!((metrics.tflops.unwrap() - tflops).abs() < 1e-15);
    assert!((metrics.mfu.unwrap() - tflops / 0.5).abs() < 1e-15);
}

/// The curves of a run that goes on: a validation point stands at its epoch's last step, and an
/// earlier version's lines are read, too.
#[test]
fn epochs_stand_at_their_last_step() {
    let line = |step: u64, epoch: u32| {
        let old = format!(
            "{{\"step\":{step},\"epoch\":{epoch},\"loss\":1.0,\"lr\":1e-5,\"grad_norm\":1.0,\
             \"tokens\":10,\"label_tokens\":5,\"tokens_per_s\":9.5}}"
        );
        StepMetrics::parse(&old).unwrap()
    };
    let steps = [line(1, 1), line(2, 1), line(3, 2)];
    let with_validation = EpochLosses {
        validation_loss: Some(0.5),
        ..losses(1)
    };
    let curves = curves(&steps, &[with_validation], SystemTime::UNIX_EPOCH);
    let shown: Vec<(u64, &str)> = curves
        .iter()
        .map(|scalars| (scalars.step, scalars.values[0].0))
        .collect();
    let loss = "train/loss";
    assert_eq!(
        shown,
        [(1, loss), (2, loss), (2, "epoch/train_loss"), (3, loss)]
    );
}
