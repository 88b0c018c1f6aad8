//! Training and validation loss over the epochs.

use plotters::{
    chart::SeriesLabelPosition,
    coord::Shift,
    drawing::DrawingArea,
    element::{Circle, PathElement},
    prelude::{DrawingBackend, IntoFont},
    series::LineSeries,
    style::Color,
};
use serde::{Deserialize, Serialize};

use super::{
    BLUE, Drawn, FONT_FAMILY, INK, VERMILLION,
    parts::{empty_chart, legend, line_of_legend, mesh},
    top_of,
};

/// The logged losses of one fine-tuning, in nats per supervised token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LossCurve {
    /// (position in epochs, training loss) per optimizer step, thinned to a drawable number.
    pub steps: Vec<(f64, f64)>,
    pub epochs: Vec<EpochLoss>,
}

/// The losses at the end of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochLoss {
    /// From 1.
    pub epoch: u32,
    /// Mean over the epoch.
    pub train_loss: f64,
    pub validation_loss: Option<f64>,
}

type Points = Vec<(f64, f64)>;

/// What is drawn: finite points only.
struct Series {
    steps: Points,
    train: Points,
    validation: Points,
}

impl Series {
    fn of(curve: &LossCurve) -> Self {
        let finite = |points: Points| -> Points {
            points
                .into_iter()
                .filter(|(x, y)| x.is_finite() && y.is_finite())
                .collect()
        };
        let epochs = curve.epochs.iter();
        let train = epochs
            .clone()
            .map(|epoch| (f64::from(epoch.epoch), epoch.train_loss));
        let validation =
            epochs.filter_map(|epoch| Some((f64::from(epoch.epoch), epoch.validation_loss?)));
        Self {
            train: finite(train.collect()),
            validation: finite(validation.collect()),
            steps: finite(curve.steps.clone()),
        }
    }
}

pub(super) fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    title: &str,
    curve: &LossCurve,
) -> Drawn<B> {
    let Series {
        steps,
        train,
        validation,
    } = Series::of(curve);
    let all = || steps.iter().chain(&train).chain(&validation);
    let right = top_of(all().map(|point| point.0)).unwrap_or(1.0).max(1.0);
    let top = top_of(all().map(|point| point.1)).unwrap_or(1.0).max(1e-3) * 1.08;

    let mut chart = empty_chart(root, title, 0.0..right * 1.03, top)?;
    mesh(&mut chart)
        .x_desc("epoch")
        .y_desc("loss (nats per supervised token)")
        .label_style((FONT_FAMILY, 15).into_font().color(&INK))
        .x_label_formatter(&|x| {
            if x.fract().abs() < 1e-9 {
                format!("{x:.0}")
            } else {
                format!("{x:.1}")
            }
        })
        .draw()?;
    chart
        .draw_series(LineSeries::new(steps, BLUE.mix(0.35).stroke_width(2)))?
        .label("training, each step")
        .legend(|(x, y)| {
            PathElement::new(vec![(x, y), (x + 22, y)], BLUE.mix(0.3).stroke_width(2))
        });
    for (points, colour, label) in [
        (train, BLUE, "training, mean of epoch"),
        (validation, VERMILLION, "validation"),
    ] {
        if points.is_empty() {
            continue;
        }
        let marks = points.clone();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)))?
            .label(label)
            .legend(move |(x, y)| line_of_legend(x, y, colour));
        chart.draw_series(
            marks
                .into_iter()
                .map(|point| Circle::new(point, 5, colour.filled())),
        )?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}
