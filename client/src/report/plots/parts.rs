//! What the charts have in common: frame, axes, legend.

use std::ops::Range;

use plotters::{
    chart::{ChartBuilder, ChartContext, MeshStyle, SeriesLabelPosition},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    drawing::{DrawingArea, DrawingAreaErrorKind},
    element::PathElement,
    prelude::{DrawingBackend, IntoFont},
    style::{Color, RGBColor, WHITE},
};

use super::{Drawn, FONT_FAMILY, GRID, INK};

/// A chart over two axes of numbers.
pub(super) type Curves<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// An empty chart with its title, from 0 to `top`.
pub(super) fn empty_chart<'a, B: DrawingBackend>(
    root: &'a DrawingArea<B, Shift>,
    title: &str,
    x: Range<f64>,
    top: f64,
) -> Result<Curves<'a, B>, DrawingAreaErrorKind<B::ErrorType>> {
    ChartBuilder::on(root)
        .caption(title, (FONT_FAMILY, 26).into_font().color(&INK))
        .margin(20)
        .x_label_area_size(52)
        .y_label_area_size(68)
        .build_cartesian_2d(x, 0.0..top)
}

/// Axes and horizontal lines in the style of all charts; names and numbers are the caller's.
pub(super) fn mesh<'a, 'b, B, X, Y>(
    chart: &'b mut ChartContext<'a, B, Cartesian2d<X, Y>>,
) -> MeshStyle<'a, 'b, X, Y, B>
where
    B: DrawingBackend,
    X: Ranged + ValueFormatter<<X as Ranged>::ValueType>,
    Y: Ranged + ValueFormatter<<Y as Ranged>::ValueType>,
{
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .axis_desc_style((FONT_FAMILY, 17).into_font().color(&INK))
        .label_style((FONT_FAMILY, 16).into_font().color(&INK));
    mesh
}

/// The names of the curves, in a corner.
pub(super) fn legend<'a, B: DrawingBackend + 'a>(
    chart: &mut Curves<'a, B>,
    corner: SeriesLabelPosition,
) -> Drawn<B> {
    chart
        .configure_series_labels()
        .position(corner)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font((FONT_FAMILY, 16).into_font().color(&INK))
        .draw()
}

/// A curve's colour beside its name.
pub(super) fn line_of_legend(x: i32, y: i32, colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 22, y)], colour.stroke_width(3))
}
