//! The prompts, as versioned data: a name, an exact text or conversation, stop strings, a digest.
//!
//! A template is text, or the turns of a conversation, with `{question}` and, for hint prompts,
//! `{gold}`. The same template renders the prompt for generation, for training and for evaluation, so
//! the three cannot drift apart. A prompt's digest goes into every attempt; a changed text is another
//! prompt.

use crate::{
    conversation::{Asked, Message, MessageKeys, Role, messages},
    digest::sha256_hex,
    number::Number,
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The prompts of the reference report, word for word, and the bare question.
const TEXTS: [(&str, &str); 6] = [
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

/// Prompts as template files; `data/prompts/README.md` says where they come from.
const FILES: [(&str, &str); 3] = [
    ("cot-8shot", include_str!("../prompts/cot-8shot.json")),
    (
        "cot-8shot-hint",
        include_str!("../prompts/cot-8shot-hint.json"),
    ),
    (
        "llama-8shot-multiturn",
        include_str!("../prompts/llama-8shot-multiturn.json"),
    ),
];

const QUESTION: &str = "{question}";
const GOLD: &str = "{gold}";

#[derive(Debug, Error)]
pub enum PromptError {
    #[error("unknown prompt {name:?}; known prompts: {known}")]
    UnknownName { name: String, known: String },
    #[error("cannot read prompt template {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("prompt template {}: {problem}", path.display())]
    BadFile { path: PathBuf, problem: String },
    #[error("prompt {name:?} has no {{question}} placeholder")]
    NoQuestion { name: String },
    #[error("prompt {name:?}: its last turn must be the user's, with {{question}} in it")]
    NoLastQuestion { name: String },
    #[error(
        "prompt {name:?} is a conversation, which --prompt-format plain cannot carry (nor auto, where \
         the model has no chat template): use --prompt-format chat and a model with a chat template, \
         or a prompt that is text"
    )]
    NeedsChat { name: String },
    #[error(
        "prompt {name:?} asks for {{gold}}: it is a hint prompt and cannot be used as a forward prompt"
    )]
    NeedsGold { name: String },
    #[error("prompt {name:?} has no {{gold}} placeholder: it is not a hint prompt")]
    NoGold { name: String },
}

/// A prompt template. It holds `{question}`; a hint prompt also holds `{gold}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate {
    name: String,
    body: Body,
    stop: Vec<String>,
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Text(String),
    /// The last turn is the user's and asks the question.
    Turns(Vec<Message>),
}

/// How a rendered prompt reaches the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptFormat {
    /// Text, with BOS where the tokenizer adds it.
    Plain,
    /// Through the checkpoint's chat template; a text is one user message.
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
        let with_name = |built_in: &&(&str, &'static str)| built_in.0 == name;
        if let Some((_, text)) = TEXTS.iter().find(with_name) {
            return Self::from_text(name, text);
        }
        if let Some((_, json)) = FILES.iter().find(with_name) {
            return Self::from_json(name, json, Path::new(name));
        }
        Err(PromptError::UnknownName {
            name: name.to_owned(),
            known: Self::names().collect::<Vec<_>>().join(", "),
        })
    }

    /// A template file; its name is the file's name without extension. A `.json` file holds
    /// `messages` or `text`, and `stop` where it has stop strings. Any other is a text, used as it
    /// stands: a final line break is part of the prompt.
    pub fn from_file(path: &Path) -> Result<PromptTemplate, PromptError> {
        let content = std::fs::read_to_string(path).map_err(|source| PromptError::Read {
            path: path.to_owned(),
            source,
        })?;
        let name = path.file_stem().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy();
        match path.extension() {
            Some(extension) if extension == "json" => Self::from_json(&name, &content, path),
            _ => Self::from_text(&name, &content),
        }
    }

    pub fn from_text(name: &str, text: &str) -> Result<PromptTemplate, PromptError> {
        Self::new(name, Body::Text(text.to_owned()), Vec::new())
    }

    /// `path` only names the source in errors.
    fn from_json(name: &str, json: &str, path: &Path) -> Result<PromptTemplate, PromptError> {
        let bad = |problem: String| PromptError::BadFile {
            path: path.to_owned(),
            problem,
        };
        let keys: FileKeys = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        let body = match (keys.text, keys.messages) {
            (Some(text), None) => Body::Text(text),
            (None, Some(turns)) => Body::Turns(messages(turns).map_err(bad)?),
            _ => return Err(bad("expected one of the keys text and messages".to_owned())),
        };
        if keys.stop.iter().any(String::is_empty) {
            return Err(bad("stop: a stop string is empty".to_owned()));
        }
        Self::new(name, body, keys.stop)
    }

    fn new(name: &str, body: Body, stop: Vec<String>) -> Result<PromptTemplate, PromptError> {
        let name = name.to_owned();
        match &body {
            Body::Text(text) if !text.contains(QUESTION) => {
                return Err(PromptError::NoQuestion { name });
            }
            Body::Turns(turns) if !turns.last().is_some_and(asks) => {
                return Err(PromptError::NoLastQuestion { name });
            }
            Body::Text(_) | Body::Turns(_) => {}
        }
        Ok(PromptTemplate {
            name,
            digest: digest(&body, &stop),
            body,
            stop,
        })
    }

    /// The names that [`PromptTemplate::by_name`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TEXTS.iter().chain(&FILES).map(|(name, _)| *name)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where an answer ends beside the model's own end, unless the user says otherwise.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// SHA-256, hexadecimal: of the text, or of turns and stop strings as JSON.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// True for a hint prompt.
    pub fn needs_gold(&self) -> bool {
        match &self.body {
            Body::Text(text) => text.contains(GOLD),
            Body::Turns(turns) => turns.iter().any(|turn| turn.content.contains(GOLD)),
        }
    }

    /// An error where the prompt cannot reach the model in this format.
    pub fn require(&self, format: PromptFormat) -> Result<(), PromptError> {
        match (&self.body, format) {
            (Body::Turns(_), PromptFormat::Plain) => Err(PromptError::NeedsChat {
                name: self.name.clone(),
            }),
            (Body::Text(_) | Body::Turns(_), _) => Ok(()),
        }
    }

    /// The forward prompt of a question. A hint prompt is refused.
    pub fn render(&self, question: &str, format: PromptFormat) -> Result<Asked, PromptError> {
        if self.needs_gold() {
            return Err(PromptError::NeedsGold {
                name: self.name.clone(),
            });
        }
        self.fill(question, "", format)
    }

    /// The hint prompt of a question: only the final number is given away, never the gold
    /// reasoning. A template without `{gold}` is refused.
    pub fn render_hint(
        &self,
        question: &str,
        gold: Number,
        format: PromptFormat,
    ) -> Result<Asked, PromptError> {
        if !self.needs_gold() {
            return Err(PromptError::NoGold {
                name: self.name.clone(),
            });
        }
        self.fill(question, &gold.to_string(), format)
    }

    fn fill(&self, question: &str, gold: &str, format: PromptFormat) -> Result<Asked, PromptError> {
        self.require(format)?;
        Ok(match &self.body {
            Body::Text(text) => Asked::new(fill(text, question, gold), format),
            Body::Turns(turns) => {
                let filled = turns.iter().map(|turn| Message {
                    role: turn.role,
                    content: fill(&turn.content, question, gold),
                });
                Asked::Chat(filled.collect())
            }
        })
    }
}

/// The keys of a template file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    text: Option<String>,
    messages: Option<Vec<MessageKeys>>,
    #[serde(default)]
    stop: Vec<String>,
}

fn asks(turn: &Message) -> bool {
    turn.role == Role::User && turn.content.contains(QUESTION)
}

/// Of what a digest is made where a text alone is not the whole prompt. The order of the fields and
/// their names are part of every digest.
#[derive(Serialize)]
struct Digested<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [Message]>,
    stop: &'a [String],
}

fn digest(body: &Body, stop: &[String]) -> String {
    let (text, messages) = match body {
        Body::Text(text) if stop.is_empty() => return sha256_hex(text.as_bytes()),
        Body::Text(text) => (Some(text.as_str()), None),
        Body::Turns(turns) => (None, Some(turns.as_slice())),
    };
    let digested = Digested {
        text,
        messages,
        stop,
    };
    let json = serde_json::to_vec(&digested).expect("plain texts always serialise");
    sha256_hex(&json)
}

/// One pass from left to right, so a question that itself contains `{gold}` stays as it is.
fn fill(template: &str, question: &str, gold: &str) -> String {
    let mut filled = String::with_capacity(template.len() + question.len() + gold.len());
    let mut rest = template;
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

#[cfg(test)]
mod tests;
