//! Question sets: JSONL in GSM8K's format, one object a line with `question` and `answer`, the
//! answer ending in `#### <number>`.
//!
//! Lines end at `\n` only (questions contain U+2028, which is not a line end here). A question's id
//! is its `id` field where the file has one, else `q-` and 16 hexadecimal digits of the SHA-256 of
//! its text. So ids, and every key built on them, survive reordering, filtering and joining of
//! files; a second question with the very same text gets the suffix `-2`, and so on.

use crate::{
    digest::sha256_hex,
    number::{Number, scan},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// One problem of a question set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Unique in its set; see the module's text for how it is made.
    pub id: String,
    pub question: String,
    /// The full gold answer, as in the file: reasoning, annotations and `#### n`.
    pub answer: String,
    /// The number after `####`.
    pub gold: Number,
}

/// A file's questions, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionSet {
    pub questions: Vec<Question>,
    /// SHA-256 of the file's bytes, hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Error)]
pub enum QuestionError {
    #[error("cannot read questions from {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: LineProblem,
    },
    #[error("{} contains no questions", path.display())]
    Empty { path: PathBuf },
}

/// What is wrong with a line.
#[derive(Debug, Error)]
pub enum LineProblem {
    #[error("not valid UTF-8 at byte {byte} of the line")]
    NotUtf8 { byte: usize },
    #[error("expected a JSON object with the texts \"question\" and \"answer\": {}", without_line(.0))]
    Json(serde_json::Error),
    #[error("\"question\" is empty")]
    EmptyQuestion,
    #[error("expected \"answer\" to end in \"#### <number>\", found {found:?}")]
    NoGold { found: String },
    #[error("id {id:?} is already used on line {first_line}")]
    DuplicateId { id: String, first_line: usize },
}

/// What serde says, with the column but without its line: it saw one line only, and calls it 1.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(problem) => format!("{problem} (column {})", error.column()),
        None => text,
    }
}

/// Reads a question file. The first bad line is an error that names file, line and problem.
pub fn read_questions(path: &Path) -> Result<QuestionSet, QuestionError> {
    let bytes = std::fs::read(path).map_err(|source| QuestionError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse_questions(&bytes, path)
}

/// [`read_questions`] on bytes that are already here; `path` only names them in errors.
pub fn parse_questions(bytes: &[u8], path: &Path) -> Result<QuestionSet, QuestionError> {
    let mut questions = Vec::new();
    let mut ids = Ids::default();
    let without_bom = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    for (index, raw) in without_bom.split(|&byte| byte == b'\n').enumerate() {
        if raw.trim_ascii().is_empty() {
            continue;
        }
        let line = index + 1;
        let question = parse_line(raw).and_then(|parsed| ids.name(parsed, line));
        questions.push(question.map_err(|problem| QuestionError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?);
    }
    if questions.is_empty() {
        return Err(QuestionError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(QuestionSet {
        questions,
        sha256: sha256_hex(bytes),
    })
}

impl Question {
    /// The gold reasoning: the answer without calculator annotations and without the `####` line.
    pub fn solution(&self) -> String {
        let reasoning = self
            .answer
            .rfind("####")
            .map_or("", |at| &self.answer[..at]);
        crate::annotation::strip(reasoning).trim_end().to_owned()
    }
}

/// The id of a question without one of its own: `q-` and 16 hexadecimal digits of its SHA-256.
pub fn id_of_text(question: &str) -> String {
    format!("q-{}", &sha256_hex(question.as_bytes())[..16])
}

#[derive(Deserialize)]
struct Line {
    id: Option<IdField>,
    question: String,
    answer: AnswerField,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IdField {
    Text(String),
    Integer(i64),
}

/// Some sets (GSM1k) give only the number.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnswerField {
    Text(String),
    Number(serde_json::Number),
}

struct Parsed {
    id: Option<String>,
    question: String,
    answer: String,
    gold: Number,
}

fn parse_line(raw: &[u8]) -> Result<Parsed, LineProblem> {
    let text = std::str::from_utf8(raw).map_err(|error| LineProblem::NotUtf8 {
        byte: error.valid_up_to(),
    })?;
    let line: Line = serde_json::from_str(text).map_err(LineProblem::Json)?;
    if line.question.trim().is_empty() {
        return Err(LineProblem::EmptyQuestion);
    }
    let answer = match line.answer {
        AnswerField::Text(text) => text,
        AnswerField::Number(number) => number.to_string(),
    };
    let gold = gold_number(&answer).ok_or_else(|| LineProblem::NoGold {
        found: tail(&answer),
    })?;
    let id = line.id.map(|id| match id {
        IdField::Text(text) => text,
        IdField::Integer(integer) => integer.to_string(),
    });
    Ok(Parsed {
        id,
        question: line.question,
        answer,
        gold,
    })
}

/// The number after the last `####`, or the whole answer where it is nothing but a number.
pub fn gold_number(answer: &str) -> Option<Number> {
    let at = answer.rfind("####").map_or(0, |at| at + "####".len());
    scan::single(&answer[at..])
}

/// The last characters of a text, for an error that must stay one line long.
fn tail(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    let skip = text.chars().count().saturating_sub(MAX_CHARS);
    text.chars().skip(skip).collect()
}

#[derive(Default)]
struct Ids {
    first_line: HashMap<String, usize>,
    num_same_text: HashMap<String, usize>,
}

impl Ids {
    fn name(&mut self, parsed: Parsed, line: usize) -> Result<Question, LineProblem> {
        let Parsed {
            id,
            question,
            answer,
            gold,
        } = parsed;
        let id = id.unwrap_or_else(|| self.for_text(&question));
        if let Some(&first_line) = self.first_line.get(&id) {
            return Err(LineProblem::DuplicateId { id, first_line });
        }
        self.first_line.insert(id.clone(), line);
        Ok(Question {
            id,
            question,
            answer,
            gold,
        })
    }

    fn for_text(&mut self, question: &str) -> String {
        let id = id_of_text(question);
        let count = self.num_same_text.entry(id.clone()).or_default();
        *count += 1;
        if *count == 1 {
            id
        } else {
            format!("{id}-{count}")
        }
    }
}

#[cfg(test)]
mod tests;
