//! Training examples as JSONL: which keys a line may have, and what is asked and learned on it.
//!
//! Trainer and clients read the same files through this module, and [`ExampleText::exchanges`] is the
//! one place that says what stands before a learned text and how the two are joined. So what is
//! scored, or asked at evaluation, is what was trained on. Lines end at `\n` only: JSON text may hold
//! U+2028 and other Unicode line breaks.

use crate::{
    conversation::{self, Asked, Message, MessageKeys, Role, given},
    digest::sha256_hex,
    prompt::{PromptError, PromptFormat, PromptTemplate},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Which keys the lines have. One file has lines of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineFormat {
    /// `question` and `answer`: the answer is learned.
    Gsm8k,
    /// `question`, `gold_answer` and `rationale`: the rationale is learned.
    Star,
    /// `prompt` and `completion`, both taken as they are.
    #[serde(alias = "prompt-completion")]
    PromptCompletion,
    /// `messages`, a conversation: what the assistant says is learned.
    Messages,
}

/// A file of examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleFile {
    pub format: LineFormat,
    /// In the file's order; at least one.
    pub lines: Vec<ExampleLine>,
    /// SHA-256 of the file's bytes, hexadecimal.
    pub sha256: String,
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleLine {
    /// Counted from 1, as editors do.
    pub number: usize,
    pub text: ExampleText,
}

/// What is asked and what is learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExampleText {
    /// The question is to be put into the prompt template.
    Question {
        question: String,
        completion: String,
    },
    /// A finished prompt; both are taken as they are.
    Prompt { prompt: String, completion: String },
    /// A conversation in which the assistant says something.
    Messages(Vec<Message>),
}

/// Something that is said, and all that stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub asked: Asked,
    /// To be followed by the end of the text, or of the turn.
    pub completion: String,
}

#[derive(Debug, Error)]
pub enum ExampleError {
    #[error("cannot read examples from {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: String,
    },
    #[error("{} contains no examples", path.display())]
    Empty { path: PathBuf },
}

/// Reads a file of examples. Without `format` the first line's keys tell it. The first bad line is an
/// error that names file, line and what was expected; blank lines are allowed, an empty file is not.
pub fn read_examples(path: &Path, format: Option<LineFormat>) -> Result<ExampleFile, ExampleError> {
    let bytes = std::fs::read(path).map_err(read_error(path))?;
    let mut format = format;
    let mut lines = Vec::new();
    for_each_line(&bytes[..], path, |number, keys| {
        let known = match format {
            Some(format) => format,
            None => keys.format().ok_or(
                "its keys are of no known format: expected question+answer (gsm8k), \
                 question+rationale (star), prompt+completion or messages",
            )?,
        };
        format = Some(known);
        let text = keys.into_text(known)?;
        lines.push(ExampleLine { number, text });
        Ok(())
    })?;
    match format {
        Some(format) if !lines.is_empty() => Ok(ExampleFile {
            format,
            lines,
            sha256: sha256_hex(&bytes),
        }),
        _ => Err(ExampleError::Empty {
            path: path.to_owned(),
        }),
    }
}

/// Reads a file of documents (`text`, or `prompt` and `completion` to be joined), line by line, and
/// hands each one's text to `visit`.
pub fn for_each_document(path: &Path, mut visit: impl FnMut(String)) -> Result<(), ExampleError> {
    let file = File::open(path).map_err(read_error(path))?;
    for_each_line(BufReader::with_capacity(1 << 20, file), path, |_, keys| {
        visit(keys.into_document()?);
        Ok(())
    })
}

impl ExampleText {
    /// What tells examples about the same thing: the question, or the first thing a user says. Those
    /// with the same one are held out together.
    pub fn question(&self) -> &str {
        match self {
            Self::Question { question, .. } => question,
            Self::Prompt { prompt, .. } => prompt,
            Self::Messages(messages) => {
                let asked = messages.iter().find(|message| message.role == Role::User);
                &asked.unwrap_or(&messages[0]).content
            }
        }
    }

    /// Everything that may be learned here, in order: one exchange, or one for each turn of the
    /// assistant. A built prompt ends in "A:", after which running text has a space; through a chat
    /// template what is learned begins the assistant's turn. A conversation is a chat whatever the
    /// format.
    pub fn exchanges(
        &self,
        template: &PromptTemplate,
        format: PromptFormat,
    ) -> Result<Vec<Exchange>, PromptError> {
        let (asked, completion) = match self {
            Self::Messages(messages) => return Ok(turns(messages)),
            Self::Prompt { prompt, completion } => {
                (Asked::new(prompt.clone(), format), completion.clone())
            }
            Self::Question {
                question,
                completion,
            } => {
                let asked = template.render(question, format)?;
                let space = match &asked {
                    Asked::Text(prompt) if !prompt.ends_with(char::is_whitespace) => " ",
                    Asked::Text(_) | Asked::Chat(_) => "",
                };
                (asked, format!("{space}{}", completion.trim()))
            }
        };
        Ok(vec![Exchange { asked, completion }])
    }
}

/// Templates trim what a turn says; so does an exchange.
fn turns(messages: &[Message]) -> Vec<Exchange> {
    let by_assistant = |index: &usize| messages[*index].role == Role::Assistant;
    let indices = (0..messages.len()).filter(by_assistant);
    indices
        .map(|index| Exchange {
            asked: Asked::Chat(messages[..index].to_vec()),
            completion: messages[index].content.trim().to_owned(),
        })
        .collect()
}

/// Every key a line may have; others are ignored (records carry provenance beside the text).
#[derive(Deserialize)]
struct Keys {
    text: Option<String>,
    question: Option<String>,
    answer: Option<String>,
    rationale: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
    messages: Option<Vec<MessageKeys>>,
}

impl Keys {
    /// The format these keys belong to.
    fn format(&self) -> Option<LineFormat> {
        if self.question.is_some() && self.rationale.is_some() {
            Some(LineFormat::Star)
        } else if self.question.is_some() && self.answer.is_some() {
            Some(LineFormat::Gsm8k)
        } else if self.prompt.is_some() && self.completion.is_some() {
            Some(LineFormat::PromptCompletion)
        } else if self.messages.is_some() {
            Some(LineFormat::Messages)
        } else {
            None
        }
    }

    fn into_text(self, format: LineFormat) -> Result<ExampleText, Problem> {
        match format {
            LineFormat::Gsm8k => Ok(ExampleText::Question {
                question: given("question", self.question)?,
                completion: given("answer", self.answer)?,
            }),
            LineFormat::Star => Ok(ExampleText::Question {
                question: given("question", self.question)?,
                completion: given("rationale", self.rationale)?,
            }),
            LineFormat::PromptCompletion => Ok(ExampleText::Prompt {
                prompt: given("prompt", self.prompt)?,
                completion: given("completion", self.completion)?,
            }),
            LineFormat::Messages => conversation(self.messages),
        }
    }

    /// As a document.
    fn into_document(self) -> Result<String, Problem> {
        match (self.text, self.prompt, self.completion) {
            (Some(text), _, _) if text.is_empty() => Err("key \"text\" is empty".into()),
            (Some(text), _, _) => Ok(text),
            (None, Some(prompt), Some(completion)) => Ok(prompt + &completion),
            _ => Err("expected {\"text\": ...} or {\"prompt\": ..., \"completion\": ...}".into()),
        }
    }
}

fn conversation(messages: Option<Vec<MessageKeys>>) -> Result<ExampleText, Problem> {
    let messages = messages.ok_or("key \"messages\" is missing")?;
    let messages = conversation::messages(messages)?;
    let by_assistant = |message: &Message| message.role == Role::Assistant;
    if !messages.iter().any(by_assistant) {
        return Err("messages: expected a turn with role \"assistant\", found none".into());
    }
    Ok(ExampleText::Messages(messages))
}

/// What is wrong with a line, before its place is known.
struct Problem(String);

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<&str> for Problem {
    fn from(what: &str) -> Self {
        Self(what.to_owned())
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ExampleError + use<'_> {
    move |source| ExampleError::Read {
        path: path.to_owned(),
        source,
    }
}

fn for_each_line(
    mut reader: impl BufRead,
    path: &Path,
    mut visit: impl FnMut(usize, Keys) -> Result<(), Problem>,
) -> Result<(), ExampleError> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let num_bytes = reader.read_until(b'\n', &mut bytes);
        if num_bytes.map_err(read_error(path))? == 0 {
            break;
        }
        // Some editors begin a file with a byte order mark.
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").filter(|_| line == 1);
        let text = text.unwrap_or(&bytes).trim_ascii();
        if text.is_empty() {
            continue;
        }
        let outcome = serde_json::from_slice::<Keys>(text)
            .map_err(|error| Problem(format!("not the expected JSON object: {error}")))
            .and_then(|keys| visit(line, keys));
        outcome.map_err(|Problem(problem)| ExampleError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
