//! The lines of a fine-tuning file, and how each becomes a prompt and a completion.

use std::path::Path;

use data::prompt::PromptTemplate;
use serde::{Deserialize, Serialize};

use crate::{
    error::{ClientError, file_error},
    files::sha256_hex,
    request::{PromptFormat, ScoreItem},
};

/// Which keys the lines have; the first line tells it, as in the trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineFormat {
    /// `question` and `rationale`.
    Star,
    /// `question` and `answer`.
    Gsm8k,
    /// `prompt` and `completion`, both taken as they are.
    PromptCompletion,
}

/// A file of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// As the user named it.
    pub path: String,
    /// Of the whole file.
    pub sha256: String,
    pub format: LineFormat,
    pub list: Vec<Example>,
}

/// What is asked and what is scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Counted from 1.
    pub line: usize,
    /// A question for the prompt template, or a finished prompt.
    asked: String,
    solution: String,
    format: LineFormat,
}

/// Every key a line may have; others are ignored.
#[derive(Debug, Deserialize)]
struct RawLine {
    question: Option<String>,
    answer: Option<String>,
    rationale: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
}

impl RawLine {
    fn format(&self) -> Option<LineFormat> {
        if self.question.is_some() && self.rationale.is_some() {
            Some(LineFormat::Star)
        } else if self.question.is_some() && self.answer.is_some() {
            Some(LineFormat::Gsm8k)
        } else if self.prompt.is_some() && self.completion.is_some() {
            Some(LineFormat::PromptCompletion)
        } else {
            None
        }
    }

    /// Both texts, or the key that is missing or empty.
    fn texts(self, format: LineFormat) -> Result<(String, String), &'static str> {
        let (asked, solution) = match format {
            LineFormat::Star => (("question", self.question), ("rationale", self.rationale)),
            LineFormat::Gsm8k => (("question", self.question), ("answer", self.answer)),
            LineFormat::PromptCompletion => {
                (("prompt", self.prompt), ("completion", self.completion))
            }
        };
        let given = |(key, text): (&'static str, Option<String>)| {
            text.filter(|text| !text.trim().is_empty()).ok_or(key)
        };
        Ok((given(asked)?, given(solution)?))
    }
}

impl Examples {
    /// Reads a file and keeps the first `limit` examples.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, ClientError> {
        let bytes = std::fs::read(path).map_err(file_error("read", path))?;
        let bad = |problem: String| ClientError::BadFile {
            path: path.to_owned(),
            problem,
        };
        let mut format = None;
        let mut list = Vec::new();
        // Lines end at '\n' only: JSON text may hold other Unicode line breaks.
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if list.len() == limit.unwrap_or(usize::MAX) {
                break;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line_number = index + 1;
            let raw: RawLine = serde_json::from_slice(line)
                .map_err(|error| bad(format!("line {line_number}: {error}")))?;
            let found = format.or(raw.format()).ok_or_else(|| {
                bad(format!(
                    "line {line_number}: expected question and answer, question and rationale, or \
                     prompt and completion"
                ))
            })?;
            format = Some(found);
            let (asked, solution) = raw.texts(found).map_err(|key| {
                bad(format!(
                    "line {line_number}: key \"{key}\" is missing or empty"
                ))
            })?;
            list.push(Example {
                line: line_number,
                asked,
                solution,
                format: found,
            });
        }
        Ok(Self {
            path: path.display().to_string(),
            sha256: sha256_hex(&bytes),
            format: format.ok_or_else(|| bad("it has no examples".to_owned()))?,
            list,
        })
    }
}

impl Example {
    /// What is put to the server. A built prompt ends in "A:", after which running text has a space;
    /// through a chat template the answer begins the assistant's turn. As in the trainer.
    pub(super) fn item(
        &self,
        request_id: String,
        template: &PromptTemplate,
        format: PromptFormat,
    ) -> Result<ScoreItem, ClientError> {
        let (prompt, completion) = match self.format {
            LineFormat::PromptCompletion => (self.asked.clone(), self.solution.clone()),
            LineFormat::Star | LineFormat::Gsm8k => {
                let prompt = template.render(&self.asked)?;
                let space = match format {
                    PromptFormat::Plain if !prompt.ends_with(char::is_whitespace) => " ",
                    PromptFormat::Plain | PromptFormat::Chat => "",
                };
                let completion = format!("{space}{}", self.solution.trim());
                (prompt, completion)
            }
        };
        Ok(ScoreItem {
            request_id,
            prompt: format.wrap(prompt),
            completion,
        })
    }
}
