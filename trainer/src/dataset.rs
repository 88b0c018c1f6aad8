//! Tokenised examples with their label masks, in one flat store, and the JSONL lines they come from.
//! No order here: `rng::shuffled` gives it, `pack` turns it into batches.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::config::DataFormat;
use crate::error::{Result, TrainError};

/// One example: the loss is on `ids[label_start..]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example<'a> {
    pub ids: &'a [u32],
    /// At least 1: the first token has nothing before it to be predicted from.
    pub label_start: usize,
}

impl Example<'_> {
    /// Positions that go through the network: the last token is only ever a label.
    pub fn num_inputs(&self) -> usize {
        self.ids.len() - 1
    }

    pub fn num_labels(&self) -> usize {
        self.ids.len() - self.label_start
    }
}

/// Many examples: 4 bytes a token and 12 an example.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    ids: Vec<u32>,
    ends: Vec<usize>,
    label_starts: Vec<u32>,
}

impl Examples {
    /// Adds an example with at least one label.
    ///
    /// # Panics
    /// Unless `1 <= label_start < ids.len()`: the makers of examples check it where data enters.
    pub fn push(&mut self, ids: &[u32], label_start: usize) {
        assert!(label_start >= 1, "the first token cannot be a label");
        assert!(label_start < ids.len(), "an example needs a label");
        self.ids.extend_from_slice(ids);
        self.ends.push(self.ids.len());
        self.label_starts.push(label_start as u32);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn get(&self, index: usize) -> Example<'_> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Example {
            ids: &self.ids[start..self.ends[index]],
            label_start: self.label_starts[index] as usize,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Example<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Tokens that go through the network in one epoch.
    pub fn num_inputs(&self) -> usize {
        self.ids.len() - self.len()
    }
}

/// One line of a fine-tuning file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1, as editors do.
    pub number: usize,
    pub text: LineText,
}

/// What is asked and what is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineText {
    /// The question is to be put into the prompt template.
    Question {
        question: String,
        completion: String,
    },
    /// A finished prompt; both are taken as they are.
    Prompt { prompt: String, completion: String },
}

/// Every key a line may have; others are ignored (records carry provenance beside the text).
#[derive(Debug, Default, Deserialize)]
struct RawLine {
    text: Option<String>,
    question: Option<String>,
    answer: Option<String>,
    rationale: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
}

impl RawLine {
    /// The fine-tuning format these keys belong to.
    fn format(&self) -> Option<DataFormat> {
        if self.question.is_some() && self.rationale.is_some() {
            Some(DataFormat::Star)
        } else if self.question.is_some() && self.answer.is_some() {
            Some(DataFormat::Gsm8k)
        } else if self.prompt.is_some() && self.completion.is_some() {
            Some(DataFormat::PromptCompletion)
        } else {
            None
        }
    }

    fn into_text(self, format: DataFormat) -> std::result::Result<LineText, String> {
        let need = |key: &str, value: Option<String>| match value {
            Some(text) if !text.trim().is_empty() => Ok(text),
            Some(_) => Err(format!("key \"{key}\" is empty")),
            None => Err(format!("key \"{key}\" is missing")),
        };
        match format {
            DataFormat::Gsm8k => Ok(LineText::Question {
                question: need("question", self.question)?,
                completion: need("answer", self.answer)?,
            }),
            DataFormat::Star => Ok(LineText::Question {
                question: need("question", self.question)?,
                completion: need("rationale", self.rationale)?,
            }),
            DataFormat::PromptCompletion => Ok(LineText::Prompt {
                prompt: need("prompt", self.prompt)?,
                completion: need("completion", self.completion)?,
            }),
        }
    }

    /// As a pre-training document.
    fn into_document(self) -> std::result::Result<String, String> {
        match (self.text, self.prompt, self.completion) {
            (Some(text), _, _) if text.is_empty() => Err("key \"text\" is empty".to_string()),
            (Some(text), _, _) => Ok(text),
            (None, Some(prompt), Some(completion)) => Ok(prompt + &completion),
            _ => Err(
                "expected {\"text\": ...} or {\"prompt\": ..., \"completion\": ...}".to_string(),
            ),
        }
    }
}

/// Reads a fine-tuning file. Without `format` the first line's keys tell it.
///
/// # Errors
/// File, line number and what is wrong; blank lines are allowed, an empty file is not.
pub fn read_lines(path: &Path, format: Option<DataFormat>) -> Result<(DataFormat, Vec<Line>)> {
    let mut format = format;
    let mut lines = Vec::new();
    for_each_line(path, |number, raw| {
        let found = match format {
            Some(format) => format,
            None => raw.format().ok_or(
                "its keys are of no known format: expected question+answer (gsm8k), \
                 question+rationale (star) or prompt+completion",
            )?,
        };
        format = Some(found);
        let text = raw.into_text(found)?;
        lines.push(Line { number, text });
        Ok(())
    })?;
    match format {
        Some(format) if !lines.is_empty() => Ok((format, lines)),
        _ => Err(TrainError::NoExamples {
            what: path.display().to_string(),
            details: "the file has no lines".to_string(),
        }),
    }
}

/// Reads a pre-training file and hands each document's text to `visit`.
pub fn for_each_document(path: &Path, mut visit: impl FnMut(String)) -> Result<()> {
    for_each_line(path, |_, raw| {
        visit(raw.into_document()?);
        Ok(())
    })
}

/// What is wrong with a line, before its place is known.
struct LineError(String);

impl From<String> for LineError {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<&str> for LineError {
    fn from(what: &str) -> Self {
        Self(what.to_string())
    }
}

fn for_each_line(
    path: &Path,
    mut visit: impl FnMut(usize, RawLine) -> std::result::Result<(), LineError>,
) -> Result<()> {
    let file = File::open(path).map_err(TrainError::io(path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut bytes = Vec::new();
    // Lines end at '\n' only: JSON text may hold U+2028 and other Unicode line breaks.
    for number in 1.. {
        bytes.clear();
        if reader
            .read_until(b'\n', &mut bytes)
            .map_err(TrainError::io(path))?
            == 0
        {
            break;
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let outcome = serde_json::from_slice::<RawLine>(&bytes)
            .map_err(|error| LineError(format!("not the expected JSON object: {error}")))
            .and_then(|raw| visit(number, raw));
        outcome.map_err(|LineError(what)| TrainError::BadLine {
            path: path.to_path_buf(),
            line: number,
            what,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
