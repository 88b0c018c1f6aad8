//! Accuracy by the number of reasoning steps of the gold solution, the models side by side.

use plotters::{
    chart::SeriesLabelPosition,
    coord::Shift,
    drawing::DrawingArea,
    element::{Circle, PathElement},
    prelude::DrawingBackend,
    series::LineSeries,
    style::Color,
};

use super::{
    COLOURS, Drawn,
    parts::{empty_chart, legend, line_of_legend, mesh},
    top_of,
};
use crate::report::analysis::{MAX_STEPS, ModelAnalysis, StepAccuracy};

/// From one model's mark to the next at the same number of steps: apart, so that no interval hides
/// another.
const SHIFT: f64 = 0.09;

pub(super) fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    title: &str,
    models: &[ModelAnalysis],
) -> Drawn<B> {
    let all = || models.iter().flat_map(|model| &model.steps);
    let first = all().map(|row| row.steps).min().unwrap_or(1);
    let last = all().map(|row| row.steps).max().unwrap_or(1);
    let highest = top_of(all().map(|row| row.interval.high)).unwrap_or(1.0);
    // Room for the legend above the highest interval.
    let top = ((highest * 100.0 * 1.2).max(10.0) / 10.0).ceil() * 10.0;
    let mut chart = empty_chart(
        root,
        title,
        f64::from(first) - 0.5..f64::from(last) + 0.5,
        top,
    )?;
    mesh(&mut chart)
        .x_desc("reasoning steps of the gold solution")
        .y_desc("right, % of questions")
        .x_labels((last - first) as usize + 2)
        .x_label_formatter(&|x| label(*x))
        .y_label_formatter(&|y| percent_label(*y))
        .draw()?;
    let middle = (models.len() as f64 - 1.0) / 2.0;
    for (index, model) in models.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let x = |row: &StepAccuracy| f64::from(row.steps) + (index as f64 - middle) * SHIFT;
        let line: Vec<(f64, f64)> = model
            .steps
            .iter()
            .map(|row| {
                (
                    x(row),
                    row.right as f64 * 100.0 / row.questions.max(1) as f64,
                )
            })
            .collect();
        chart
            .draw_series(LineSeries::new(
                line.clone(),
                colour.mix(0.5).stroke_width(2),
            ))?
            .label(&model.name)
            .legend(move |(x, y)| line_of_legend(x, y, colour));
        chart.draw_series(model.steps.iter().map(|row| {
            let ends = [row.interval.low, row.interval.high];
            let line = ends.map(|share| (x(row), share * 100.0));
            PathElement::new(line.to_vec(), colour.stroke_width(2))
        }))?;
        chart.draw_series(
            line.into_iter()
                .map(|point| Circle::new(point, 5, colour.filled())),
        )?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

/// The room above 100 % has no number.
fn percent_label(y: f64) -> String {
    if y > 100.0 {
        String::new()
    } else {
        format!("{y:.0}")
    }
}

/// Whole numbers only.
fn label(x: f64) -> String {
    if (x - x.round()).abs() > 1e-6 {
        return String::new();
    }
    let steps = x.round() as u32;
    let more = if steps == MAX_STEPS { " or more" } else { "" };
    format!("{steps}{more}")
}
