//! The pictures of an experiment, as PNG and as SVG from one drawing each: accuracies with their 95 %
//! intervals, loss curves, iterations, lengths of answers, accuracy by steps. Only logged numbers
//! are drawn.

mod accuracy;
mod iterations;
mod lengths;
mod loss;
mod parts;
mod steps;

use std::{path::Path, sync::OnceLock};

use plotters::{
    backend::{BitMapBackend, SVGBackend},
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    prelude::DrawingBackend,
    style::{FontStyle, RGBColor, register_font},
};

use super::analysis::ModelAnalysis;
use crate::error::ClientError;

pub use accuracy::AccuracyBar;
pub use iterations::{ShareCurve, SharePoint};
pub use loss::{EpochLoss, LossCurve};

/// DejaVu Sans, so that a machine without fonts or fontconfig draws the same picture. Its licence
/// lies beside it.
const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
/// The name under which both back ends find it; an SVG viewer takes its own sans-serif.
const FONT_FAMILY: &str = "sans-serif";

const SIZE_PIXELS: (u32, u32) = (960, 600);

/// Okabe and Ito's palette: told apart by the colour-blind too.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const GREY: RGBColor = RGBColor(120, 120, 120);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// In the order of the models: the base in grey, then one colour per method.
const COLOURS: [RGBColor; 4] = [GREY, BLUE, VERMILLION, GREEN];

/// One of the pictures.
#[derive(Debug, Clone, Copy)]
pub enum Plot<'a> {
    Loss {
        title: &'a str,
        curve: &'a LossCurve,
    },
    Accuracy {
        title: &'a str,
        bars: &'a [AccuracyBar],
    },
    /// Shares of right answers by model of the STaR loop: 0 is the untouched one.
    Iterations {
        title: &'a str,
        curves: &'a [ShareCurve],
    },
    /// How long the answers are, a panel for each model.
    Lengths {
        title: &'a str,
        models: &'a [ModelAnalysis],
    },
    /// Accuracy by the number of steps of the gold solution.
    Steps {
        title: &'a str,
        models: &'a [ModelAnalysis],
    },
}

impl Plot<'_> {
    /// The picture as SVG text.
    pub fn svg(&self) -> Result<String, ClientError> {
        register()?;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE_PIXELS).into_drawing_area();
            self.draw(&root).map_err(|cause| failed("an SVG", &cause))?;
            root.present().map_err(|cause| failed("an SVG", &cause))?;
        }
        Ok(svg)
    }

    /// Writes the picture as a PNG file.
    pub fn write_png(&self, path: &Path) -> Result<(), ClientError> {
        register()?;
        let what = path.display().to_string();
        let root = BitMapBackend::new(path, SIZE_PIXELS).into_drawing_area();
        self.draw(&root).map_err(|cause| failed(&what, &cause))?;
        root.present().map_err(|cause| failed(&what, &cause))
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B> {
        root.fill(&plotters::style::WHITE)?;
        match self {
            Self::Loss { title, curve } => loss::draw(root, title, curve),
            Self::Accuracy { title, bars } => accuracy::draw(root, title, bars),
            Self::Iterations { title, curves } => iterations::draw(root, title, curves),
            Self::Lengths { title, models } => lengths::draw(root, title, models),
            Self::Steps { title, models } => steps::draw(root, title, models),
        }
    }
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn failed(what: &str, cause: &dyn std::fmt::Display) -> ClientError {
    ClientError::Plot {
        what: what.to_owned(),
        cause: cause.to_string(),
    }
}

/// plotters keeps registered fonts in a table of the process: once is enough.
fn register() -> Result<(), ClientError> {
    static FONT_IS_GOOD: OnceLock<bool> = OnceLock::new();
    let good =
        *FONT_IS_GOOD.get_or_init(|| register_font(FONT_FAMILY, FontStyle::Normal, FONT).is_ok());
    if good {
        Ok(())
    } else {
        Err(failed("text", &"the embedded font is damaged"))
    }
}

/// The largest of the finite values, with some air above.
fn top_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.filter(|value| value.is_finite()).reduce(f64::max)
}

#[cfg(test)]
mod tests;
