//! `plots/` of a run, each picture as SVG and PNG: `loss` (training loss per step, raw and smoothed,
//! with the validation losses) and `epochs` (loss and perplexity per epoch). Drawn from `metrics.jsonl`
//! and the epochs, so that a resumed run shows its whole history.

use std::path::Path;
use std::sync::OnceLock;

use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement};
use plotters::prelude::{DrawingBackend, IntoFont};
use plotters::series::LineSeries;
use plotters::style::{Color, FontStyle, RGBColor, WHITE, register_font};

use crate::error::{Result, TrainError};
use crate::metrics::{EpochLosses, StepMetrics};

/// The client's, for the same pictures on a machine without fonts; its licence lies beside it.
const FONT: &[u8] = include_bytes!("../../client/assets/DejaVuSans.ttf");
const FONT_FAMILY: &str = "sans-serif";
const SIZE_PIXELS: (u32, u32) = (960, 600);

/// Okabe and Ito's palette, as in the client's plots.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// More points than pixels help nobody.
const MAX_POINTS: usize = 2000;

/// The smoothed curve forgets by half in this part of the run, in steps but never less than one.
const SMOOTHING_PART: f64 = 0.02;

type Points = Vec<(f64, f64)>;

/// One picture's axes and curves.
struct Panel {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    curves: Vec<Curve>,
}

struct Curve {
    label: &'static str,
    points: Points,
    colour: RGBColor,
    look: Look,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Faint,
    Line,
    LineWithMarks,
}

/// Draws what there is so far. A picture is replaced as a whole, never half written.
pub(crate) fn write(out: &Path, epochs: &[EpochLosses]) -> Result<()> {
    let steps = StepMetrics::read_all(&out.join("metrics.jsonl"))?;
    let folder = out.join("plots");
    std::fs::create_dir_all(&folder).map_err(TrainError::io(&folder))?;
    save(&folder, "loss", &[loss_panel(&steps, epochs)])?;
    if epochs.is_empty() {
        return Ok(());
    }
    save(&folder, "epochs", &epoch_panels(epochs))
}

fn loss_panel(steps: &[StepMetrics], epochs: &[EpochLosses]) -> Panel {
    let raw: Points = steps
        .iter()
        .map(|metrics| (metrics.step as f64, metrics.loss))
        .filter(|(_, loss)| loss.is_finite())
        .collect();
    let last_step = |epoch: u32| {
        let of_epoch = steps.iter().rev().find(|metrics| metrics.epoch == epoch);
        of_epoch.map(|metrics| metrics.step as f64)
    };
    let validation = epochs
        .iter()
        .filter_map(|losses| Some((last_step(losses.epoch)?, losses.validation_loss?)))
        .collect();
    Panel {
        title: "Training",
        x: "optimizer step",
        y: "loss (nats per label token)",
        curves: vec![
            curve("training, each step", thinned(&raw), (BLUE, Look::Faint)),
            curve(
                "training, smoothed",
                thinned(&smoothed(&raw)),
                (BLUE, Look::Line),
            ),
            curve("validation", validation, (VERMILLION, Look::LineWithMarks)),
        ],
    }
}

fn epoch_panels(epochs: &[EpochLosses]) -> [Panel; 2] {
    let panel = |title, y, shown: fn(f64) -> f64| {
        let point = |losses: &EpochLosses, loss: f64| (f64::from(losses.epoch), shown(loss));
        let train = epochs.iter().map(|losses| point(losses, losses.train_loss));
        let validation = epochs
            .iter()
            .filter_map(|losses| Some(point(losses, losses.validation_loss?)));
        Panel {
            title,
            x: "epoch",
            y,
            curves: vec![
                curve("training", train.collect(), (BLUE, Look::LineWithMarks)),
                curve(
                    "validation",
                    validation.collect(),
                    (VERMILLION, Look::LineWithMarks),
                ),
            ],
        }
    };
    [
        panel("Loss", "loss (nats per label token)", |loss| loss),
        panel("Perplexity", "exp(NLL / label tokens)", f64::exp),
    ]
}

fn curve(label: &'static str, points: Points, (colour, look): (RGBColor, Look)) -> Curve {
    Curve {
        label,
        points: points.into_iter().filter(|(_, y)| y.is_finite()).collect(),
        colour,
        look,
    }
}

/// An exponential mean that starts unbiased.
fn smoothed(points: &[(f64, f64)]) -> Points {
    let half_life = (points.len() as f64 * SMOOTHING_PART).max(1.0);
    let keep = 0.5_f64.powf(1.0 / half_life);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut mean = |&(x, y): &(f64, f64)| {
        sum = keep * sum + y;
        weight = keep * weight + 1.0;
        (x, sum / weight)
    };
    points.iter().map(&mut mean).collect()
}

fn thinned(points: &[(f64, f64)]) -> Points {
    let stride = points.len().div_ceil(MAX_POINTS).max(1);
    points.iter().copied().step_by(stride).collect()
}

fn save(folder: &Path, name: &str, panels: &[Panel]) -> Result<()> {
    register()?;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE_PIXELS).into_drawing_area();
        draw_all(&root, panels).map_err(|cause| failed(name, &cause))?;
    }
    let png = folder.join(format!(".{name}.tmp.png"));
    {
        let root = BitMapBackend::new(&png, SIZE_PIXELS).into_drawing_area();
        draw_all(&root, panels).map_err(|cause| failed(name, &cause))?;
    }
    let svg_beside = folder.join(format!(".{name}.tmp.svg"));
    std::fs::write(&svg_beside, svg).map_err(TrainError::io(&svg_beside))?;
    for (beside, end) in [(png, "png"), (svg_beside, "svg")] {
        let path = folder.join(format!("{name}.{end}"));
        std::fs::rename(&beside, &path).map_err(TrainError::io(&path))?;
    }
    Ok(())
}

type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn draw_all<B: DrawingBackend>(root: &DrawingArea<B, Shift>, panels: &[Panel]) -> Drawn<B> {
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        draw(area, panel)?;
    }
    root.present()
}

fn draw<B: DrawingBackend>(area: &DrawingArea<B, Shift>, panel: &Panel) -> Drawn<B> {
    let all = || panel.curves.iter().flat_map(|curve| &curve.points);
    let right = all().map(|point| point.0).fold(1.0, f64::max);
    let top = all().map(|point| point.1).fold(1e-3, f64::max) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT_FAMILY, 26).into_font().color(&INK))
        .margin(20)
        .x_label_area_size(52)
        .y_label_area_size(68)
        .build_cartesian_2d(0.0..right * 1.03, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(panel.x)
        .y_desc(panel.y)
        .axis_desc_style((FONT_FAMILY, 17).into_font().color(&INK))
        .label_style((FONT_FAMILY, 15).into_font().color(&INK))
        .draw()?;
    for curve in panel.curves.iter().filter(|curve| !curve.points.is_empty()) {
        let style = match curve.look {
            Look::Faint => curve.colour.mix(0.25).stroke_width(1),
            Look::Line | Look::LineWithMarks => curve.colour.stroke_width(3),
        };
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(curve.label)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
        if curve.look == Look::LineWithMarks {
            let marks = curve.points.iter();
            chart.draw_series(marks.map(|&point| Circle::new(point, 5, curve.colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font((FONT_FAMILY, 16).into_font().color(&INK))
        .draw()
}

fn failed(what: &str, cause: &dyn std::fmt::Display) -> TrainError {
    TrainError::Plot {
        what: what.to_string(),
        cause: cause.to_string(),
    }
}

/// plotters keeps registered fonts in a table of the process: once is enough.
fn register() -> Result<()> {
    static FONT_IS_GOOD: OnceLock<bool> = OnceLock::new();
    let good =
        *FONT_IS_GOOD.get_or_init(|| register_font(FONT_FAMILY, FontStyle::Normal, FONT).is_ok());
    if good {
        Ok(())
    } else {
        Err(failed("text", &"the embedded font is damaged"))
    }
}

#[cfg(test)]
mod tests;
