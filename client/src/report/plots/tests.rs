use super::*;

fn curve() -> LossCurve {
    LossCurve {
        steps: (1..=200)
            .map(|step| (f64::from(step) / 50.0, 2.0 / f64::from(step).sqrt()))
            .collect(),
        epochs: vec![
            EpochLoss {
                epoch: 1,
                train_loss: 0.6,
                validation_loss: Some(0.5),
            },
            EpochLoss {
                epoch: 2,
                train_loss: 0.4,
                validation_loss: Some(0.42),
            },
            EpochLoss {
                epoch: 3,
                train_loss: 0.3,
                validation_loss: None,
            },
        ],
    }
}

fn bars() -> Vec<AccuracyBar> {
    let bar = |label: &str, num_right, low, high| AccuracyBar {
        label: label.to_owned(),
        num_right,
        num_questions: 500,
        low,
        high,
    };
    vec![
        bar("zero-shot", 150, 0.262, 0.342),
        bar("vanilla SFT", 210, 0.378, 0.464),
        bar("STaR SFT", 260, 0.476, 0.563),
    ]
}

fn check_both(plot: Plot<'_>, name: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    plot.write_png(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "{name} is no PNG");
    // IHDR follows at once: width and height, big-endian.
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(16), word(20)), SIZE_PIXELS);
    assert!(bytes.ends_with(b"IEND\xae\x42\x60\x82"), "{name} is cut");
    let svg = plot.svg().unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    svg
}

/// A loss plot is a whole PNG and an SVG that names both curves.
#[test]
fn loss_plot_has_both_curves() {
    let svg = check_both(
        Plot::Loss {
            title: "STaR SFT",
            curve: &curve(),
        },
        "loss.png",
    );
    for text in ["STaR SFT", "validation", "training, mean of epoch", "epoch"] {
        assert!(svg.contains(text), "{text:?} is missing");
    }
}

/// The accuracy plot says percentage, counts and interval of every bar.
#[test]
fn accuracy_plot_says_counts_and_intervals() {
    let bars = bars();
    let plot = Plot::Accuracy {
        title: "Accuracy on the test split",
        bars: &bars,
    };
    let svg = check_both(plot, "accuracy.png");
    for text in [
        "52.0 %",
        "260/500",
        "[47.6, 56.3]",
        "zero-shot",
        "vanilla SFT",
    ] {
        assert!(svg.contains(text), "{text:?} is missing");
    }
}

/// No data, one point, one bar and values that are not finite still give pictures.
#[test]
fn odd_data_still_draws() {
    let odd = LossCurve {
        steps: vec![(0.1, f64::NAN), (f64::INFINITY, 1.0), (0.2, 1.0)],
        epochs: vec![EpochLoss {
            epoch: 1,
            train_loss: f64::INFINITY,
            validation_loss: None,
        }],
    };
    check_both(
        Plot::Loss {
            title: "odd",
            curve: &odd,
        },
        "odd.png",
    );
    check_both(
        Plot::Loss {
            title: "none",
            curve: &LossCurve::default(),
        },
        "none.png",
    );
    check_both(
        Plot::Accuracy {
            title: "none",
            bars: &[],
        },
        "no_bars.png",
    );
    check_both(
        Plot::Accuracy {
            title: "one",
            bars: &bars()[..1],
        },
        "one_bar.png",
    );
    let zero = AccuracyBar {
        label: "nothing".to_owned(),
        num_right: 0,
        num_questions: 0,
        low: f64::NAN,
        high: f64::NAN,
    };
    check_both(
        Plot::Accuracy {
            title: "zero",
            bars: &[zero],
        },
        "zero.png",
    );
}
