//! A file of examples, and what of each line is put to the server. The lines are read and joined to
//! prompts by `data::example`, as in the trainer.

use std::path::Path;

use data::{
    example::{ExampleLine, LineFormat, read_examples},
    prompt::{PromptFormat, PromptTemplate},
};

use crate::{error::ClientError, request::ScoreItem};

/// A file of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// As the user named it.
    pub path: String,
    /// Of the whole file.
    pub sha256: String,
    pub format: LineFormat,
    pub list: Vec<ExampleLine>,
}

impl Examples {
    /// Reads a file and keeps the first `limit` examples.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, ClientError> {
        let mut file = read_examples(path, None)?;
        file.lines.truncate(limit.unwrap_or(usize::MAX));
        Ok(Self {
            path: path.display().to_string(),
            sha256: file.sha256,
            format: file.format,
            list: file.lines,
        })
    }
}

/// What is put to the server for one line: all that would be learned from it, in order.
pub(super) fn items(
    line: &ExampleLine,
    nonce: &str,
    template: &PromptTemplate,
    format: PromptFormat,
) -> Result<Vec<ScoreItem>, ClientError> {
    let exchanges = line.text.exchanges(template, format)?;
    let numbered = exchanges.into_iter().enumerate();
    Ok(numbered
        .map(|(index, exchange)| ScoreItem {
            request_id: format!("{nonce}-loss-{}-{index}", line.number),
            prompt: exchange.asked.into(),
            completion: exchange.completion,
        })
        .collect())
}
