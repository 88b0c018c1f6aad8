//! Every picture is whole, says its numbers and survives odd data.

use data::stats::wilson;

use super::*;
use crate::report::analysis::{Lengths, MAX_STEPS, ModelAnalysis, StepAccuracy};

fn models() -> Vec<ModelAnalysis> {
    let step = |steps: u32, right: u64| StepAccuracy {
        steps,
        questions: 100,
        right,
        interval: wilson(right, 100),
    };
    let model = |name: &str, bonus: u64, cut: u64| ModelAnalysis {
        name: name.to_owned(),
        lengths: Lengths {
            bin_tokens: 10,
            bins: vec![1, 5, 20, 31, 12, 7, 4, 5 + cut],
            cut_bins: vec![0, 0, 0, 0, 0, 0, 0, cut],
            limit: 80,
        },
        steps: (2..=MAX_STEPS)
            .map(|steps| step(steps, 70 + bonus - 7 * u64::from(steps)))
            .collect(),
        num_without_steps: 0,
    };
    vec![
        model("zero-shot", 0, 20),
        model("vanilla SFT", 15, 4),
        model("STaR SFT", 25, 0),
    ]
}

fn share_curve(name: &'static str, start: u64) -> ShareCurve {
    let point = |model: u32| {
        let right = start + 8 * u64::from(model);
        SharePoint {
            model,
            share: right as f64 / 100.0,
            low: wilson(right, 100).low,
            high: wilson(right, 100).high,
        }
    };
    ShareCurve {
        name,
        points: (0..4).map(point).collect(),
    }
}

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

/// The curves over the iterations are all named.
#[test]
fn iterations_plot_names_its_curves() {
    let curves = [share_curve("held-out", 30), share_curve("training", 40)];
    let plot = Plot::Iterations {
        title: "The loop",
        curves: &curves,
    };
    let svg = check_both(plot, "iterations.png");
    for text in ["The loop", "held-out", "training", "made by iteration n"] {
        assert!(svg.contains(text), "{text:?} is missing");
    }
    assert_eq!(svg.matches("<polygon").count(), 2, "a band for each curve");

    // Models 0 and 2 alone: two points and no line, for nothing is known of the one between.
    let mut gap = share_curve("test", 30);
    gap.points
        .retain(|point| point.model == 0 || point.model == 2);
    let plot = Plot::Iterations {
        title: "A gap",
        curves: &[gap],
    };
    let svg = check_both(plot, "gap.png");
    assert_eq!(svg.matches("<polygon").count(), 0);
    assert_eq!(svg.matches("<circle").count(), 2);
}

/// Each panel of the lengths says what was cut, of how many, and at which limit.
#[test]
fn length_plot_says_what_was_cut() {
    let models = models();
    let plot = Plot::Lengths {
        title: "Lengths of answers",
        models: &models,
    };
    let svg = check_both(plot, "lengths.png");
    for text in [
        "zero-shot: 20 of 105 cut (19.0 %), limit 80 tokens",
        "vanilla SFT: 4 of 89 cut (4.5 %), limit 80 tokens",
        "STaR SFT: 0 of 85 cut (0.0 %), limit 80 tokens",
        "tokens of the answer",
    ] {
        assert!(svg.contains(text), "{text:?} is missing");
    }
}

/// The accuracies by steps name the models and the row that stands for many steps.
#[test]
fn steps_plot_names_models_and_steps() {
    let models = models();
    let plot = Plot::Steps {
        title: "Accuracy by steps",
        models: &models,
    };
    let svg = check_both(plot, "steps.png");
    for text in ["zero-shot", "STaR SFT", "8 or more", "reasoning steps"] {
        assert!(svg.contains(text), "{text:?} is missing");
    }
}

/// No models, no answers, one iteration and shares that are not finite still give pictures.
#[test]
fn odd_answers_still_draw() {
    let (title, nothing) = (
        "odd",
        ModelAnalysis {
            name: "nothing".to_owned(),
            lengths: Lengths {
                bin_tokens: 1,
                bins: Vec::new(),
                cut_bins: Vec::new(),
                limit: 0,
            },
            steps: Vec::new(),
            num_without_steps: 0,
        },
    );
    let mut curve = share_curve("odd", 0);
    curve.points.truncate(1);
    curve.points[0].low = f64::NAN;
    let curves = [curve];
    for (name, models) in [("none.png", &[][..]), ("empty.png", &[nothing])] {
        check_both(Plot::Lengths { title, models }, name);
        check_both(Plot::Steps { title, models }, name);
        let curves = if models.is_empty() { &[][..] } else { &curves };
        check_both(Plot::Iterations { title, curves }, name);
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
