//! How long the answers are: a histogram for each model, one above the other, with the token limit
//! and what was cut.

use plotters::{
    chart::ChartBuilder,
    coord::Shift,
    drawing::DrawingArea,
    element::{PathElement, Rectangle, Text},
    prelude::{DrawingBackend, IntoFont},
    style::{
        Color, RGBColor, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{COLOURS, Drawn, FONT_FAMILY, GRID, INK};
use crate::report::analysis::{Lengths, ModelAnalysis};

/// Cut answers: darker than any model's colour.
const CUT: RGBColor = RGBColor(60, 0, 60);
const TITLE_PIXELS: u32 = 46;
/// Below the last panel: the numbers and the name of the axis, which the others do without.
const AXIS_PIXELS: u32 = 48;

pub(super) fn draw<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    title: &str,
    models: &[ModelAnalysis],
) -> Drawn<B> {
    let (width, height) = root.dim_in_pixel();
    let large = (FONT_FAMILY, 26).into_font().color(&INK);
    let centred = large.pos(Pos::new(HPos::Center, VPos::Top));
    root.draw(&Text::new(title, (width.cast_signed() / 2, 18), centred))?;
    let right = models
        .iter()
        .map(|model| right_edge(&model.lengths))
        .max()
        .unwrap_or(1)
        .max(1);
    let count = models.len().max(1) as u32;
    let panel_height = (height - TITLE_PIXELS - AXIS_PIXELS) / count;
    for (index, model) in (0..).zip(models) {
        let axis_pixels = if index + 1 == count { AXIS_PIXELS } else { 0 };
        let place = Place {
            top: (TITLE_PIXELS + index * panel_height).cast_signed(),
            height: panel_height + axis_pixels,
            axis_pixels,
            colour: COLOURS[index as usize % COLOURS.len()],
        };
        draw_panel(root, model, right, &place)?;
    }
    Ok(())
}

/// Where a panel is drawn, in pixels, and how.
struct Place {
    top: i32,
    height: u32,
    axis_pixels: u32,
    colour: RGBColor,
}

/// The limit is in the picture where the answers come near it.
fn right_edge(lengths: &Lengths) -> u32 {
    let longest = lengths.bins.len() as u32 * lengths.bin_tokens;
    if lengths.limit <= longest.saturating_mul(5) / 4 {
        longest.max(lengths.limit + lengths.bin_tokens)
    } else {
        longest
    }
}

fn draw_panel<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    model: &ModelAnalysis,
    right: u32,
    place: &Place,
) -> Drawn<B> {
    let ModelAnalysis { name, lengths, .. } = model;
    let num_answers = lengths.num_answers();
    let percent = |count: u64| count as f64 * 100.0 / num_answers.max(1) as f64;
    let highest = lengths.bins.iter().copied().max().unwrap_or(0);
    let top = (percent(highest) * 1.1).max(1.0);
    let (width, _) = root.dim_in_pixel();
    let area = root.clone().shrink((0, place.top), (width, place.height));
    let mut chart = ChartBuilder::on(&area)
        .margin_left(20)
        .margin_right(24)
        .margin_top(30)
        .margin_bottom(4)
        .x_label_area_size(place.axis_pixels)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..f64::from(right), 0.0..top)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .y_desc("% of answers")
        .y_labels(4)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .axis_desc_style((FONT_FAMILY, 15).into_font().color(&INK))
        .label_style((FONT_FAMILY, 15).into_font().color(&INK));
    if place.axis_pixels > 0 {
        mesh.x_desc("tokens of the answer");
    }
    mesh.draw()?;
    let width = f64::from(lengths.bin_tokens);
    for (index, (&all, &cut)) in lengths.bins.iter().zip(&lengths.cut_bins).enumerate() {
        let left = index as f64 * width;
        let column = |from: u64, to: u64| {
            let (inner_left, inner_right) = (left + width * 0.06, left + width * 0.94);
            [(inner_left, percent(from)), (inner_right, percent(to))]
        };
        chart.draw_series([
            Rectangle::new(column(0, cut), CUT.filled()),
            Rectangle::new(column(cut, all), place.colour.mix(0.85).filled()),
        ])?;
    }
    let plotting = chart.plotting_area();
    if lengths.limit <= right {
        let at = |y: f64| plotting.map_coordinate(&(f64::from(lengths.limit), y));
        let line = vec![at(0.0), at(top)];
        root.draw(&PathElement::new(line, CUT.stroke_width(2)))?;
    }
    let cut = lengths.num_cut();
    let text = format!(
        "{name}: {cut} of {num_answers} cut ({:.1} %), limit {} tokens",
        percent(cut),
        lengths.limit
    );
    let (x, y) = plotting.map_coordinate(&(0.0, top));
    let style = (FONT_FAMILY, 17).into_font().color(&INK);
    let style = style.pos(Pos::new(HPos::Left, VPos::Bottom));
    root.draw(&Text::new(text, (x, y - 5), style))
}
