//! Question files of other layouts and with other names for their fields, read as the one layout
//! that `data::question` knows: JSONL with `question` and `answer`.
//!
//! Read are JSONL, a JSON array and parquet; which of them it is, the bytes say. `hub` finds the file
//! that a name such as `openai/gsm8k:main/test` stands for.

pub mod hub;
#[cfg(feature = "parquet")]
mod parquet;

use std::path::Path;

use data::question::{QuestionError, QuestionSet, parse_questions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{ClientError, file_error},
    files::sha256_hex,
};

/// What the fields of a question file are called; those not named are found by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    pub question: Option<String>,
    pub answer: Option<String>,
}

impl Keys {
    pub(crate) fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads a question file. The digest is that of the file's bytes, whatever its layout.
pub fn read(path: &Path, keys: &Keys) -> Result<QuestionSet, ClientError> {
    let bytes = std::fs::read(path).map_err(|source| QuestionError::Read {
        path: path.to_owned(),
        source,
    })?;
    let bad = |problem: String| ClientError::BadFile {
        path: path.to_owned(),
        problem,
    };
    if let Some(problem) = misnamed(path, &bytes) {
        return Err(bad(problem));
    }
    let table = match Layout::of(&bytes) {
        Layout::Lines if keys.are_default() && is_plain(&bytes) => {
            return Ok(parse_questions(&bytes, path)?);
        }
        Layout::Lines => lines(&bytes),
        Layout::Array => array(&bytes),
        Layout::Parquet => parquet_table(path),
    };
    let table = table.map_err(bad)?;
    let jsonl = table.to_jsonl(keys).map_err(bad)?;
    match parse_questions(jsonl.as_bytes(), path) {
        Ok(set) => Ok(QuestionSet {
            sha256: sha256_hex(&bytes),
            ..set
        }),
        Err(QuestionError::Line { line, problem, .. }) => {
            Err(bad(format!("{} {line}: {problem}", table.unit)))
        }
        Err(other) => Err(other.into()),
    }
}

/// Whether the file is one of lines, whatever they hold, and no array or parquet.
pub(crate) fn holds_lines(path: &Path) -> Result<bool, ClientError> {
    let bytes = std::fs::read(path).map_err(file_error("read", path))?;
    Ok(matches!(Layout::of(&bytes), Layout::Lines))
}

enum Layout {
    Lines,
    Array,
    Parquet,
}

impl Layout {
    fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"PAR1") {
            Self::Parquet
        } else if without_bom(bytes).trim_ascii_start().starts_with(b"[") {
            Self::Array
        } else {
            Self::Lines
        }
    }
}

fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// Whether the first line is none that has to be translated: `data::question` reads the file, or
/// says what is wrong with it.
fn is_plain(bytes: &[u8]) -> bool {
    let mut lines = without_bom(bytes).split(|&byte| byte == b'\n');
    let first = lines.find(|line| !line.trim_ascii().is_empty());
    match first.map(serde_json::from_slice::<Map<String, Value>>) {
        Some(Ok(first)) => first.contains_key("question") && first.contains_key("answer"),
        _ => true,
    }
}

/// The records of a file with their places in it, from 1.
struct Table {
    /// What a place is called.
    unit: &'static str,
    rows: Vec<(usize, Map<String, Value>)>,
}

/// What is wrong with a file that is named parquet and is none, such as a Git LFS pointer.
fn misnamed(path: &Path, bytes: &[u8]) -> Option<String> {
    let is_parquet = matches!(Layout::of(bytes), Layout::Parquet);
    let is_named_parquet = path.extension().is_some_and(|it| it == "parquet");
    (is_named_parquet && !is_parquet && !bytes.is_empty()).then(|| {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        format!(
            "a parquet file starts with PAR1, and this one with {start:?}: was it downloaded whole?"
        )
    })
}

fn lines(bytes: &[u8]) -> Result<Table, String> {
    let mut rows = Vec::new();
    for (line, raw) in (1..).zip(without_bom(bytes).split(|&byte| byte == b'\n')) {
        if raw.trim_ascii().is_empty() {
            continue;
        }
        let row = serde_json::from_slice(raw);
        rows.push((line, row.map_err(|error| format!("line {line}: {error}"))?));
    }
    Ok(Table { unit: "line", rows })
}

fn array(bytes: &[u8]) -> Result<Table, String> {
    let rows: Vec<Map<String, Value>> =
        serde_json::from_slice(without_bom(bytes)).map_err(|error| error.to_string())?;
    Ok(Table {
        unit: "item",
        rows: (1..).zip(rows).collect(),
    })
}

#[cfg(feature = "parquet")]
fn parquet_table(path: &Path) -> Result<Table, String> {
    Ok(Table {
        unit: "row",
        rows: (1..).zip(parquet::rows(path)?).collect(),
    })
}

#[cfg(not(feature = "parquet"))]
fn parquet_table(_path: &Path) -> Result<Table, String> {
    let problem = "this is a parquet file, which this program was built without reading: build it \
                   with feature `parquet`, or write the file as JSONL";
    Err(problem.to_owned())
}

impl Table {
    /// Each record on the line of its number, so that what is wrong with a line names its place.
    fn to_jsonl(&self, keys: &Keys) -> Result<String, String> {
        let fields = Fields::choose(keys, self.rows.first().map(|(_, row)| row));
        let mut text = String::new();
        let mut line = 1;
        for (place, row) in &self.rows {
            let record = fields.record(row);
            let record = record.map_err(|problem| format!("{} {place}: {problem}", self.unit))?;
            while line < *place {
                text.push('\n');
                line += 1;
            }
            text.push_str(&Value::Object(record).to_string());
        }
        Ok(text)
    }
}

/// Which fields make a question and its answer.
struct Fields {
    /// Joined by a space.
    question: Vec<String>,
    answer: String,
}

impl Fields {
    fn choose(keys: &Keys, first: Option<&Map<String, Value>>) -> Self {
        let has = |key: &str| first.is_some_and(|row| row.contains_key(key));
        // SVAMP tells the story in one field and asks in another.
        let is_svamp = ["Body", "Question", "Answer"].into_iter().all(has);
        let question = match &keys.question {
            Some(key) => vec![key.clone()],
            None if is_svamp => vec!["Body".to_owned(), "Question".to_owned()],
            None => vec!["question".to_owned()],
        };
        let answer = match &keys.answer {
            Some(key) => key.clone(),
            None if is_svamp => "Answer".to_owned(),
            None => "answer".to_owned(),
        };
        Self { question, answer }
    }

    fn record(&self, row: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut texts = Vec::new();
        for key in &self.question {
            match field(row, key)? {
                Value::String(text) => texts.push(text.as_str()),
                other => return Err(unexpected(key, "a text", other)),
            }
        }
        let question = match texts.as_slice() {
            [text] => (*text).to_owned(),
            several => several
                .iter()
                .map(|text| text.trim())
                .collect::<Vec<_>>()
                .join(" "),
        };
        let answer = match field(row, &self.answer)? {
            answer @ (Value::String(_) | Value::Number(_)) => answer.clone(),
            other => return Err(unexpected(&self.answer, "a text or a number", other)),
        };
        let mut record = Map::new();
        // An id of the file's own, where it is one that `data::question` takes.
        let id = ["id", "ID"].into_iter().find_map(|key| row.get(key));
        if let Some(id) = id.filter(|id| id.is_string() || id.is_i64()) {
            record.insert("id".to_owned(), id.clone());
        }
        record.insert("question".to_owned(), Value::String(question));
        record.insert("answer".to_owned(), answer);
        Ok(record)
    }
}

fn field<'a>(row: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    row.get(key).ok_or_else(|| {
        let found: Vec<&str> = row.keys().map(String::as_str).collect();
        format!(
            "there is no {key:?}; found are {}. --question-key and --answer-key name the fields",
            found.join(", ")
        )
    })
}

fn unexpected(key: &str, expected: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("expected {key:?} to be {expected}, found {found}")
}

#[cfg(test)]
mod tests;
