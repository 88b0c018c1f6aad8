//! The prompts, as versioned data: a name, an exact text, a digest.
//!
//! A template is text with `{question}` and, for hint prompts, `{gold}`. The same template renders
//! the prompt for generation, for training and for evaluation, so the three cannot drift apart. A
//! prompt's digest goes into every attempt; a changed text is another prompt.

use crate::{digest::sha256_hex, number::Number};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The prompts of the reference report, word for word, and the bare question.
const BUILT_IN: [(&str, &str); 6] = [
    (
        "basic",
        "You are a helpful math tutor. Solve the following problem step by step. Show your \
         reasoning and then give the final answer.\n\nQ: {question}\nA:",
    ),
    (
        // `basic` as the report's bootstrapping script has it: a line break after "step by step."
        "basic-forward",
        "You are a helpful math tutor. Solve the following problem step by step.\nShow your \
         reasoning and then give the final answer.\n\nQ: {question}\nA:",
    ),
    (
        "marked",
        "You are an expert math tutor who explains your reasoning clearly and precisely.\nSolve \
         the following problem carefully step by step, showing your full thought process.\nAt the \
         end of your reasoning, write the final numeric answer on a new line in the format: \
         '#### [number]'.\n\nQuestion: {question}\nAnswer:",
    ),
    (
        "hint",
        "You are a helpful math tutor. The correct final answer is already known.\nExplain step \
         by step how to arrive at it, showing your reasoning clearly.\nConclude again with the \
         final answer.\n\nQ: {question}\n\nCorrect Answer: {gold}\n\nA:",
    ),
    (
        "sft",
        "You are a helpful math tutor. Solve step by step.\n\nQ: {question}\n\nA:",
    ),
    // What stands before an answer once the worked examples of a few-shot prompt are gone.
    ("qa", "Q: {question}\nA:"),
];

const QUESTION: &str = "{question}";
const GOLD: &str = "{gold}";

#[derive(Debug, Error)]
pub enum PromptError {
    #[error("unknown prompt {name:?}; known prompts: {known}")]
    UnknownName { name: String, known: String },
    #[error("cannot read prompt template {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("prompt {name:?} has no {{question}} placeholder")]
    NoQuestion { name: String },
    #[error(
        "prompt {name:?} asks for {{gold}}: it is a hint prompt and cannot be used as a forward prompt"
    )]
    NeedsGold { name: String },
    #[error("prompt {name:?} has no {{gold}} placeholder: it is not a hint prompt")]
    NoGold { name: String },
}

/// A prompt template. Its text holds `{question}`; a hint prompt's text also holds `{gold}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate {
    name: String,
    text: String,
    digest: String,
}

/// How a rendered prompt reaches the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptFormat {
    /// Text, with BOS where the tokenizer adds it.
    Plain,
    /// One user message through the checkpoint's chat template.
    Chat,
}

impl PromptFormat {
    /// The word that command lines and files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Chat => "chat",
        }
    }
}

impl PromptTemplate {
    /// One of the built-in prompts; the error for an unknown name lists them.
    pub fn by_name(name: &str) -> Result<PromptTemplate, PromptError> {
        let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
            let known = Self::names().collect::<Vec<_>>().join(", ");
            return Err(PromptError::UnknownName {
                name: name.to_owned(),
                known,
            });
        };
        Self::from_text(name, text)
    }

    /// A template file; its name is the file's name without extension. The text is used as it
    /// stands: a final line break is part of the prompt.
    pub fn from_file(path: &Path) -> Result<PromptTemplate, PromptError> {
        let text = std::fs::read_to_string(path).map_err(|source| PromptError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy();
        Self::from_text(&name, &text)
    }

    pub fn from_text(name: &str, text: &str) -> Result<PromptTemplate, PromptError> {
        if !text.contains(QUESTION) {
            return Err(PromptError::NoQuestion {
                name: name.to_owned(),
            });
        }
        Ok(PromptTemplate {
            name: name.to_owned(),
            text: text.to_owned(),
            digest: sha256_hex(text.as_bytes()),
        })
    }

    /// The names that [`PromptTemplate::by_name`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The template's text, placeholders included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the template's text, hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// True for a hint prompt.
    pub fn needs_gold(&self) -> bool {
        self.text.contains(GOLD)
    }

    /// The forward prompt of a question. A hint prompt is refused.
    pub fn render(&self, question: &str) -> Result<String, PromptError> {
        if self.needs_gold() {
            return Err(PromptError::NeedsGold {
                name: self.name.clone(),
            });
        }
        Ok(self.fill(question, ""))
    }

    /// The hint prompt of a question: only the final number is given away, never the gold
    /// reasoning. A template without `{gold}` is refused.
    pub fn render_hint(&self, question: &str, gold: Number) -> Result<String, PromptError> {
        if !self.needs_gold() {
            return Err(PromptError::NoGold {
                name: self.name.clone(),
            });
        }
        Ok(self.fill(question, &gold.to_string()))
    }

    /// One pass from left to right, so a question that itself contains `{gold}` stays as it is.
    fn fill(&self, question: &str, gold: &str) -> String {
        let mut filled = String::with_capacity(self.text.len() + question.len() + gold.len());
        let mut rest = self.text.as_str();
        while let Some(at) = rest.find('{') {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix(QUESTION) {
                filled.push_str(question);
                rest = after;
            } else if let Some(after) = rest.strip_prefix(GOLD) {
                filled.push_str(gold);
                rest = after;
            } else {
                filled.push('{');
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        filled
    }
}

#[cfg(test)]
mod tests;
