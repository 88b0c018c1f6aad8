use super::*;

/// The smoothed curve begins at the first loss and keeps to a constant one.
#[test]
fn smoothing_starts_unbiased() {
    let constant: Points = (0..50).map(|x| (f64::from(x), 2.0)).collect();
    assert!(
        smoothed(&constant)
            .iter()
            .all(|(_, y)| (y - 2.0).abs() < 1e-12)
    );
    assert!(smoothed(&[]).is_empty());
}

/// Pictures appear whole, under their names only; a skipped step's missing loss is no obstacle, and
/// neither is a run without a step.
#[test]
fn pictures_are_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = dir.path().join("metrics.jsonl");
    std::fs::write(&metrics, "").unwrap();
    write(dir.path(), &[]).unwrap();
    let line = |step: u32, loss: &str| {
        format!(
            "{{\"step\":{step},\"epoch\":1,\"loss\":{loss},\"lr\":1e-5,\"grad_norm\":1.0,\
             \"tokens\":10,\"label_tokens\":5,\"tokens_per_s\":9.5}}\n"
        )
    };
    let text = [line(1, "2.5"), line(2, "null"), line(3, "1.5")].concat();
    std::fs::write(&metrics, text).unwrap();
    let epochs = [1, 2].map(|epoch| EpochLosses {
        epoch,
        train_loss: 2.0 / f64::from(epoch),
        validation_loss: (epoch == 1).then_some(2.5),
    });
    write(dir.path(), &epochs).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("plots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["epochs.png", "epochs.svg", "loss.png", "loss.svg"]);
    let svg = std::fs::read_to_string(dir.path().join("plots/loss.svg")).unwrap();
    for text in ["optimizer step", "validation", "training, smoothed"] {
        assert!(svg.contains(text), "{text}");
    }
}
