//! The report of an experiment: `report.html`, the plots as PNG and SVG, all from `results.json`.

pub mod html;
pub mod plots;
pub mod results;

use std::path::{Path, PathBuf};

use crate::{error::ClientError, files};
use plots::Plot;
use results::Results;

pub const RESULTS_FILE: &str = "results.json";
pub const REPORT_FILE: &str = "report.html";
/// The folder and the names are those of the reference report.
pub const PLOTS_FOLDER: &str = "plots";

/// The three pictures as SVG, for the page.
#[derive(Debug, Clone)]
pub struct Pictures {
    pub accuracy: String,
    pub star_loss: String,
    pub vanilla_loss: String,
}

/// Reads `results.json` of a run and writes page and plots beside it. Gives the page's path.
pub fn render(folder: &Path) -> Result<PathBuf, ClientError> {
    let results: Results = files::require_json(&folder.join(RESULTS_FILE))?;
    let plots = folder.join(PLOTS_FOLDER);
    files::create_folder(&plots)?;
    let pictures = draw(&results, &plots)?;
    let page = folder.join(REPORT_FILE);
    files::write_atomic(&page, html::page(&results, &pictures).as_bytes())?;
    Ok(page)
}

fn draw(results: &Results, folder: &Path) -> Result<Pictures, ClientError> {
    let bars = results.bars();
    let title = format!("Accuracy on {} test questions", results.inputs.num_test);
    let loss = |name: &str| format!("{name}: loss");
    let (star_title, vanilla_title) = (loss(&results.star.name), loss(&results.vanilla.name));
    let star = Plot::Loss {
        title: &star_title,
        curve: &results.star.losses,
    };
    let vanilla = Plot::Loss {
        title: &vanilla_title,
        curve: &results.vanilla.losses,
    };
    Ok(Pictures {
        accuracy: save(
            &Plot::Accuracy {
                title: &title,
                bars: &bars,
            },
            folder,
            "accuracy_comparison",
        )?,
        star_loss: save(&star, folder, "sft_star_loss")?,
        vanilla_loss: save(&vanilla, folder, "sft_vanilla_loss")?,
    })
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
