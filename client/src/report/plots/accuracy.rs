//! Accuracies side by side, each with its interval and its counts.

use plotters::{
    chart::ChartBuilder,
    coord::{Shift, ranged1d::IntoSegmentedCoord, ranged1d::SegmentValue},
    drawing::DrawingArea,
    element::{PathElement, Rectangle, Text},
    prelude::{DrawingBackend, IntoFont},
    style::{
        Color,
        text_anchor::{HPos, Pos, VPos},
    },
};
use serde::{Deserialize, Serialize};

use super::{COLOURS, Drawn, FONT_FAMILY, INK, parts::mesh, top_of};

/// One accuracy with its counts and interval; fractions from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyBar {
    pub label: String,
    pub num_right: u64,
    pub num_questions: u64,
    pub low: f64,
    pub high: f64,
}

impl AccuracyBar {
    pub fn accuracy(&self) -> f64 {
        self.num_right as f64 / self.num_questions.max(1) as f64
    }
}

pub(super) fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    title: &str,
    bars: &[AccuracyBar],
) -> Drawn<B> {
    let highest = top_of(bars.iter().map(|bar| bar.high)).unwrap_or(1.0);
    // Room for two lines of text above the highest interval, but no more than that.
    let top = ((highest * 100.0 * 1.22).max(10.0) / 10.0).ceil() * 10.0;
    let count = i32::try_from(bars.len()).unwrap_or(i32::MAX).max(1);
    let mut chart = ChartBuilder::on(root)
        .caption(title, (FONT_FAMILY, 26).into_font().color(&INK))
        .margin(20)
        .x_label_area_size(44)
        .y_label_area_size(68)
        .build_cartesian_2d((0..count - 1).into_segmented(), 0.0..top)?;
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(index) => usize::try_from(*index)
            .ok()
            .and_then(|index| bars.get(index))
            .map_or_else(String::new, |bar| bar.label.clone()),
        _ => String::new(),
    };
    mesh(&mut chart)
        .y_desc("exact match, % of questions")
        .x_labels(bars.len())
        .x_label_formatter(&name)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    // Drawn in pixels from the chart's own translation: bars narrower than their segment.
    let area = chart.plotting_area();
    for (index, bar) in (0..count).zip(bars) {
        let colour = COLOURS[index as usize % COLOURS.len()];
        let at = |percent: f64| area.map_coordinate(&(SegmentValue::CenterOf(index), percent));
        let (x, y_top) = at(bar.accuracy() * 100.0);
        let (_, y_zero) = at(0.0);
        let (_, y_low) = at(bar.low * 100.0);
        let (_, y_high) = at(bar.high * 100.0);
        let half = (area.dim_in_pixel().0 / (count as u32 * 4))
            .min(90)
            .cast_signed();
        root.draw(&Rectangle::new(
            [(x - half, y_top), (x + half, y_zero)],
            colour.mix(0.85).filled(),
        ))?;
        let ink = INK.stroke_width(2);
        root.draw(&PathElement::new(vec![(x, y_low), (x, y_high)], ink))?;
        for y in [y_low, y_high] {
            root.draw(&PathElement::new(vec![(x - 9, y), (x + 9, y)], ink))?;
        }
        let centred = Pos::new(HPos::Center, VPos::Bottom);
        let large = (FONT_FAMILY, 20).into_font().color(&INK).pos(centred);
        let small = (FONT_FAMILY, 14).into_font().color(&INK).pos(centred);
        let percent = format!("{:.1} %", bar.accuracy() * 100.0);
        let counts = format!(
            "{}/{}  [{:.1}, {:.1}]",
            bar.num_right,
            bar.num_questions,
            bar.low * 100.0,
            bar.high * 100.0
        );
        root.draw(&Text::new(percent, (x, y_high - 28), large))?;
        root.draw(&Text::new(counts, (x, y_high - 8), small))?;
    }
    Ok(())
}
