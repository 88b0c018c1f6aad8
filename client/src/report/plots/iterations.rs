//! What the models of the STaR loop did, one after the other, each with its 95 % band.

use plotters::{
    chart::SeriesLabelPosition,
    coord::Shift,
    drawing::DrawingArea,
    element::{Circle, PathElement, Polygon},
    prelude::DrawingBackend,
    series::LineSeries,
    style::{Color, RGBColor},
};

use super::{
    BLUE, Drawn, GREEN, GREY, VERMILLION,
    parts::{empty_chart, legend, line_of_legend, mesh},
    top_of,
};

/// One kind of question over the models.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareCurve {
    pub name: &'static str,
    pub points: Vec<SharePoint>,
}

/// A share of right answers; fractions from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharePoint {
    /// 0 is the untouched model, 1 the one that the first iteration made.
    pub model: u32,
    pub share: f64,
    pub low: f64,
    pub high: f64,
}

const CURVE_COLOURS: [RGBColor; 4] = [BLUE, VERMILLION, GREEN, GREY];

pub(super) fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    title: &str,
    curves: &[ShareCurve],
) -> Drawn<B> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let last = points().map(|point| point.model).max().unwrap_or(0).max(1);
    let highest = top_of(points().map(|point| point.high)).unwrap_or(1.0);
    let top = ((highest * 100.0 * 1.1).max(10.0) / 10.0).ceil().min(10.0) * 10.0;
    let mut chart = empty_chart(root, title, -0.15..f64::from(last) + 0.15, top)?;
    mesh(&mut chart)
        .x_desc("model (0: untouched; n: made by iteration n)")
        .y_desc("%")
        .x_labels(last as usize + 1)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    // All bands below all lines: a band must not hide another curve.
    for (curve, colour) in curves.iter().zip(CURVE_COLOURS.iter().cycle()) {
        for run in runs(&curve.points) {
            if let [alone] = run {
                let ends = [alone.low, alone.high].map(|end| (x(alone), end * 100.0));
                let ends = ends.to_vec();
                chart.draw_series([PathElement::new(ends, colour.mix(0.5).stroke_width(2))])?;
            } else {
                chart.draw_series([Polygon::new(band(run), colour.mix(0.13))])?;
            }
        }
    }
    for (curve, &colour) in curves.iter().zip(CURVE_COLOURS.iter().cycle()) {
        let mark = |point: &SharePoint| (x(point), point.share * 100.0);
        for run in runs(&curve.points) {
            let line = run.iter().map(mark);
            chart.draw_series(LineSeries::new(line, colour.stroke_width(3)))?;
        }
        let marks = curve.points.iter().filter(|point| is_known(point));
        chart
            .draw_series(marks.map(|point| Circle::new(mark(point), 5, colour.filled())))?
            .label(curve.name)
            .legend(move |(x, y)| line_of_legend(x, y, colour));
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

fn x(point: &SharePoint) -> f64 {
    f64::from(point.model)
}

fn is_known(point: &SharePoint) -> bool {
    [point.share, point.low, point.high]
        .into_iter()
        .all(f64::is_finite)
}

/// Known points of successive models: no line is drawn over a model without a point.
fn runs(points: &[SharePoint]) -> impl Iterator<Item = &[SharePoint]> {
    let follows = |before: &SharePoint, after: &SharePoint| {
        is_known(before) && is_known(after) && after.model == before.model + 1
    };
    points
        .chunk_by(follows)
        .filter(|run| run.iter().all(is_known))
}

/// Along the lower ends to the right, along the upper ones back.
fn band(points: &[SharePoint]) -> Vec<(f64, f64)> {
    let lower = points.iter().map(|point| (x(point), point.low * 100.0));
    let upper = points.iter().rev();
    lower
        .chain(upper.map(|point| (x(point), point.high * 100.0)))
        .collect()
}
