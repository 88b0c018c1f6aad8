//! The report of an experiment: `report.html`, the plots as PNG and SVG, all from `results.json`.

pub mod analysis;
mod evaluations;
pub mod html;
pub mod plots;
pub mod results;

use std::path::{Path, PathBuf};

use crate::{error::ClientError, files};
use analysis::Analysis;
pub use evaluations::render_evaluations;
use html::iterations;
use plots::{AccuracyBar, Plot};
use results::{Results, Variant};

pub const RESULTS_FILE: &str = "results.json";
pub const REPORT_FILE: &str = "report.html";
/// The folder and the names are those of the reference report.
pub const PLOTS_FOLDER: &str = "plots";

/// The pictures as SVG, for the page; those that there are no data for are absent.
#[derive(Debug, Clone)]
pub struct Pictures {
    pub accuracy: String,
    pub star_loss: String,
    pub vanilla_loss: String,
    pub iterations: Option<String>,
    pub lengths: Option<String>,
    pub steps: Option<String>,
}

/// Reads `results.json` of a run and writes page and plots beside it. Gives the page's path.
pub fn render(folder: &Path) -> Result<PathBuf, ClientError> {
    let file = folder.join(RESULTS_FILE);
    if !file.exists() {
        return Err(ClientError::Usage(format!(
            "there is no {}: {} is no folder of a run that has results. Evaluations are shown with \
             `star report NEW_FOLDER --from EVALUATION…`",
            file.display(),
            folder.display()
        )));
    }
    let results: Results = files::require_json(&file)?;
    let plots = folder.join(PLOTS_FOLDER);
    files::create_folder(&plots)?;
    let pictures = draw(&results, &plots)?;
    let page = folder.join(REPORT_FILE);
    files::write_atomic(&page, html::page(&results, &pictures).as_bytes())?;
    Ok(page)
}

fn draw(results: &Results, folder: &Path) -> Result<Pictures, ClientError> {
    let loss = |variant: &Variant, file: &str| {
        let plot = Plot::Loss {
            title: &format!("{}: loss", variant.name),
            curve: &variant.losses,
        };
        save(&plot, folder, file)
    };
    let analysis = results.analysis.as_ref();
    let curves = iterations::curves(results);
    let iterations = (!results.iterations.is_empty()).then_some(Plot::Iterations {
        title: "The STaR loop, model by model",
        curves: &curves,
    });
    let bars = results.bars();
    // One answer to each question.
    let num_questions = bars.iter().map(|bar| bar.num_questions).max();
    Ok(Pictures {
        accuracy: accuracy(num_questions.unwrap_or(0), &bars, folder)?,
        star_loss: loss(&results.star, "sft_star_loss")?,
        vanilla_loss: loss(&results.vanilla, "sft_vanilla_loss")?,
        iterations: iterations
            .map(|plot| save(&plot, folder, "iterations"))
            .transpose()?,
        lengths: analysis.map(|it| lengths(it, folder)).transpose()?,
        steps: analysis.map(|it| steps(it, folder)).transpose()?,
    })
}

fn accuracy(
    num_questions: u64,
    bars: &[AccuracyBar],
    folder: &Path,
) -> Result<String, ClientError> {
    let plot = Plot::Accuracy {
        title: &format!("Accuracy on {num_questions} test questions"),
        bars,
    };
    save(&plot, folder, "accuracy_comparison")
}

fn lengths(analysis: &Analysis, folder: &Path) -> Result<String, ClientError> {
    let plot = Plot::Lengths {
        title: "Lengths of answers (dark: cut at the limit)",
        models: &analysis.models,
    };
    save(&plot, folder, "answer_lengths")
}

fn steps(analysis: &Analysis, folder: &Path) -> Result<String, ClientError> {
    let plot = Plot::Steps {
        title: "Accuracy by the steps of the gold solution",
        models: &analysis.models,
    };
    save(&plot, folder, "accuracy_by_steps")
}

/// Writes PNG and SVG; gives the SVG's text.
fn save(plot: &Plot<'_>, folder: &Path, name: &str) -> Result<String, ClientError> {
    plot.write_png(&folder.join(format!("{name}.png")))?;
    let svg = plot.svg()?;
    files::write_atomic(&folder.join(format!("{name}.svg")), svg.as_bytes())?;
    Ok(svg)
}

#[cfg(test)]
mod tests;
