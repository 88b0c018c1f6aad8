//! The trainer's own loss files, read for the plots.

use std::path::Path;

use crate::{
    error::ClientError,
    report::plots::{EpochLoss, LossCurve},
};

/// More points than pixels help nobody.
const MAX_POINTS: usize = 800;

/// Reads `metrics.jsonl` and `losses.csv` of a fine-tuning. A line that cannot be read (half a line
/// of a killed run) is left out of the curve; the epochs must be whole.
pub(super) fn read(folder: &Path) -> Result<LossCurve, ClientError> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(crate::error::file_error("read", &path))
    };
    let epochs = epochs(&read("losses.csv")?).map_err(|line| ClientError::BadFile {
        path: folder.join("losses.csv"),
        problem: format!("line {line} is not epoch,train_loss,…,validation_loss"),
    })?;
    Ok(LossCurve {
        steps: steps(&read("metrics.jsonl")?),
        epochs,
    })
}

/// (position in epochs, loss) per step: steps of an epoch are spread evenly over it.
fn steps(text: &str) -> Vec<(f64, f64)> {
    let parse = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((value["epoch"].as_u64()?, value["loss"].as_f64()?))
    };
    let parsed: Vec<(u64, f64)> = text.lines().filter_map(parse).collect();
    let stride = parsed.len().div_ceil(MAX_POINTS).max(1);
    let mut points = Vec::with_capacity(parsed.len());
    for chunk in parsed.chunk_by(|left, right| left.0 == right.0) {
        for (index, (epoch, loss)) in chunk.iter().enumerate() {
            let within = (index + 1) as f64 / chunk.len() as f64;
            points.push((*epoch as f64 - 1.0 + within, *loss));
        }
    }
    points.into_iter().step_by(stride).collect()
}

/// The rows of `losses.csv`; columns are found by name. The error is the line's number.
fn epochs(text: &str) -> Result<Vec<EpochLoss>, usize> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines
        .next()
        .map_or_else(Vec::new, |(_, line)| line.split(',').collect());
    let column = |name: &str| header.iter().position(|cell| *cell == name).ok_or(1_usize);
    let (epoch, train, validation) = (
        column("epoch")?,
        column("train_loss")?,
        column("validation_loss")?,
    );
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let cells: Vec<&str> = line.split(',').collect();
            let number =
                |column: usize| cells.get(column).and_then(|cell| cell.parse::<f64>().ok());
            let parsed = || {
                Some(EpochLoss {
                    epoch: cells.get(epoch)?.parse().ok()?,
                    train_loss: number(train)?,
                    validation_loss: number(validation),
                })
            };
            parsed().ok_or(index + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps are placed within their epoch; a torn last line is left out.
    #[test]
    fn steps_are_placed_in_epochs() {
        let text = "{\"step\":1,\"epoch\":1,\"loss\":2.0}\n{\"step\":2,\"epoch\":1,\"loss\":1.0}\n\
                    {\"step\":3,\"epoch\":2,\"loss\":null}\n{\"step\":4,\"epoch\":2,\"loss\":0.5}\n{\"st";
        assert_eq!(steps(text), [(0.5, 2.0), (1.0, 1.0), (2.0, 0.5)]);
    }

    /// A long run is thinned, not cut.
    #[test]
    fn long_runs_are_thinned() {
        let lines: Vec<String> = (0..10_000)
            .map(|step| format!("{{\"epoch\":{},\"loss\":1.0}}", 1 + step / 5000))
            .collect();
        let points = steps(&lines.join("\n"));
        assert!(
            (700..=MAX_POINTS).contains(&points.len()),
            "{}",
            points.len()
        );
        assert!(points.last().unwrap().0 > 1.99);
    }

    /// Epochs without validation have none; a damaged row is named.
    #[test]
    fn epochs_are_read_by_name() {
        let header = "epoch,train_loss,train_perplexity,validation_loss,validation_perplexity";
        let text = format!("{header}\n1,0.5,1.6,0.6,1.8\n2,0.4,1.5,,\n");
        let expected = [
            EpochLoss {
                epoch: 1,
                train_loss: 0.5,
                validation_loss: Some(0.6),
            },
            EpochLoss {
                epoch: 2,
                train_loss: 0.4,
                validation_loss: None,
            },
        ];
        assert_eq!(epochs(&text).unwrap(), expected);
        assert_eq!(
            epochs(&format!("{header}\n1,0.5,1.6,0.6,1.8\nx,y\n")),
            Err(3)
        );
        assert_eq!(epochs(""), Err(1));
    }
}
