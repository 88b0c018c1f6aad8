//! A file of examples, and what of each line is put to the server. The lines are read and joined to
//! prompts by `data::example`, as in the trainer.

use std::path::Path;

use data::{
    annotation,
    example::{ExampleLine, ExampleText, LineFormat, read_examples},
    prompt::{PromptFormat, PromptTemplate},
    question::Question,
};
use serde::{Deserialize, Serialize};

use crate::{error::ClientError, request::ScoreItem, session::Questions};

/// A file of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// As the user named it.
    pub path: String,
    /// Of the whole file.
    pub sha256: String,
    pub format: LineFormat,
    pub annotations: Annotations,
    pub list: Vec<ExampleLine>,
}

/// What becomes of the calculator annotations (`<<3*4=12>>`) in gold solutions. Other lines than
/// questions with answers are taken as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Annotations {
    /// Left out: no prompt asks for them, so a model that never saw any is not charged for them.
    Stripped,
    Kept,
}

impl Annotations {
    /// What results say that were written before there was a choice.
    pub(super) fn kept() -> Self {
        Self::Kept
    }

    /// The word that results use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stripped => "stripped",
            Self::Kept => "kept",
        }
    }
}

impl Examples {
    /// Reads a file and keeps the first `limit` examples.
    pub fn read(
        path: &Path,
        limit: Option<usize>,
        annotations: Annotations,
    ) -> Result<Self, ClientError> {
        let mut file = read_examples(path, None)?;
        file.lines.truncate(limit.unwrap_or(usize::MAX));
        let mut examples = Self {
            path: path.display().to_string(),
            sha256: file.sha256,
            format: file.format,
            annotations,
            list: file.lines,
        };
        examples.strip_annotations();
        Ok(examples)
    }

    /// Questions with their gold solutions, as [`Examples::read`] gives those of a GSM8K file.
    ///
    /// # Errors
    /// An answer that is only a number is no solution.
    pub fn of_questions(
        questions: &Questions,
        annotations: Annotations,
    ) -> Result<Self, ClientError> {
        let line = |(number, question): (usize, &Question)| {
            if !question.answer.contains("####") {
                return Err(ClientError::BadFile {
                    path: questions.path.clone().into(),
                    problem: format!(
                        "a loss needs solutions, and question {} has only the answer {:?}",
                        question.id, question.answer
                    ),
                });
            }
            let text = ExampleText::Question {
                question: question.question.clone(),
                completion: question.answer.clone(),
            };
            Ok(ExampleLine { number, text })
        };
        let mut examples = Self {
            path: questions.path.clone(),
            sha256: questions.sha256.clone(),
            format: LineFormat::Gsm8k,
            annotations,
            list: (1..)
                .zip(&questions.list)
                .map(line)
                .collect::<Result<_, _>>()?,
        };
        examples.strip_annotations();
        Ok(examples)
    }

    fn strip_annotations(&mut self) {
        if self.annotations != Annotations::Stripped || self.format != LineFormat::Gsm8k {
            return;
        }
        for line in &mut self.list {
            if let ExampleText::Question { completion, .. } = &mut line.text {
                *completion = annotation::strip(completion);
            }
        }
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
