//! Files of texts: attempts of this program, or JSONL of any other, with gold answers in the same
//! lines or in a question file.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use data::{
    number::Number,
    question::{Question, gold_number},
    record::{Attempt, Source},
};
use serde_json::Value;

use super::{End, Knew, Output, keys::value};
use crate::{
    dataset::{self, Keys},
    error::{ClientError, file_error},
    eval::read_attempts,
};

/// What a line says of a text that a limit has cut.
const CUT: &str = "length";

/// Where the lines of a file of another program have what is judged.
#[derive(Debug, Clone, Default)]
pub struct OutputKeys {
    /// `None`: `text`, unless the file holds attempts of this program.
    pub text: Option<String>,
    pub gold: GoldSource,
    /// What tells the questions apart where the gold answers are not looked up: outputs that have the
    /// same here answer one question.
    pub question: Option<String>,
    /// Where the line says how its text ended.
    pub finish: Option<String>,
    /// Lines that are read; `None` for all.
    pub chosen: Option<Chosen>,
}

/// Lines whose `key` holds `value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub key: String,
    pub value: String,
}

/// Where the gold answers are.
#[derive(Debug, Clone, Default)]
pub enum GoldSource {
    /// Under `gold`, or in the attempts.
    #[default]
    Usual,
    /// In the line: a number, or a text that ends in `#### n`.
    Key(String),
    /// In a question file.
    Questions(Box<LookUp>),
}

impl OutputKeys {
    /// The file may be this program's own, for which no key is needed.
    fn may_be_attempts(&self) -> bool {
        let usual = matches!(self.gold, GoldSource::Usual) && self.question.is_none();
        usual && self.text.is_none() && self.finish.is_none()
    }
}

/// Questions by what a line says of them.
#[derive(Debug, Clone)]
pub struct LookUp {
    key: String,
    /// What `key` holds, for errors.
    what: &'static str,
    /// By id, text or place.
    gold: HashMap<String, Number>,
}

impl LookUp {
    /// `key` holds the question's id.
    pub fn by_id(path: &Path, key: String) -> Result<Self, ClientError> {
        Self::new(path, key, "id", |_, question| question.id.clone())
    }

    /// `key` holds the question's exact text.
    pub fn by_question(path: &Path, key: String) -> Result<Self, ClientError> {
        Self::new(path, key, "text", |_, question| question.question.clone())
    }

    /// `key` holds the question's place in the file, from 0.
    pub fn by_index(path: &Path, key: String) -> Result<Self, ClientError> {
        Self::new(path, key, "place", |index, _| index.to_string())
    }

    fn new(
        path: &Path,
        key: String,
        what: &'static str,
        name: impl Fn(usize, &Question) -> String,
    ) -> Result<Self, ClientError> {
        let set = dataset::read(path, &Keys::default())?;
        let mut gold = HashMap::new();
        for (index, question) in set.questions.iter().enumerate() {
            let other = gold.insert(name(index, question), question.gold);
            if other.is_some_and(|other| other != question.gold) {
                let problem = format!(
                    "two questions have the same {what} and different answers: {:?}",
                    name(index, question)
                );
                let path = path.to_owned();
                return Err(ClientError::BadFile { path, problem });
            }
        }
        Ok(Self { key, what, gold })
    }

    /// Which question a line means, and its answer.
    fn look_up(&self, line: &Value) -> Result<(String, Number), String> {
        let found = name(line, &self.key)?;
        match self.gold.get(&found) {
            Some(gold) => Ok((found, *gold)),
            None => Err(format!(
                "--dataset has no question with the {} {found:?}",
                self.what
            )),
        }
    }
}

/// What a line calls its question under this key.
fn name(line: &Value, key: &str) -> Result<String, String> {
    match value(line, key)? {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("key {key:?} is no text or number: {other}")),
    }
}

/// The file's texts, at least one.
pub(super) fn read(path: &Path, keys: &OutputKeys) -> Result<Vec<Output>, ClientError> {
    let file = std::fs::read(path).map_err(file_error("read", path))?;
    let bad = |problem: String| ClientError::BadFile {
        path: path.to_owned(),
        problem,
    };
    let lines = file.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut outputs = Vec::new();
    let mut filters = BTreeSet::new();
    for (index, line) in lines {
        let at = |problem: String| bad(format!("line {}: {problem}", index + 1));
        let line = serde_json::from_slice(line).map_err(|error| at(error.to_string()))?;
        if outputs.is_empty() && keys.may_be_attempts() && is_attempt(&line) {
            outputs = attempts(path, keys).map_err(at)?;
            break;
        }
        if !is_chosen(&line, keys).map_err(at)? {
            continue;
        }
        filters.extend(filter_of(&line).map(str::to_owned));
        outputs.push(output(&line, keys).map_err(at)?);
    }
    if filters.len() > 1 {
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        return Err(bad(format!(
            "every output is there once for each of the filters {}: choose one, as in --where \
             filter={}",
            filters.join(", "),
            filters[0]
        )));
    }
    match &keys.chosen {
        _ if !outputs.is_empty() => Ok(outputs),
        None => Err(bad("it holds no output".to_owned())),
        Some(Chosen { key, value }) => Err(bad(format!("no line has {key}={value} (--where)"))),
    }
}

/// The attempts of a log of this program, each once, that are chosen.
fn attempts(path: &Path, keys: &OutputKeys) -> Result<Vec<Output>, String> {
    let mut outputs = Vec::new();
    for attempt in read_attempts(path).map_err(|error| error.to_string())? {
        let line = serde_json::to_value(&attempt).map_err(|error| error.to_string())?;
        if is_chosen(&line, keys)? {
            outputs.push(Output::from(attempt));
        }
    }
    Ok(outputs)
}

fn is_attempt(line: &Value) -> bool {
    line.get("verdict").is_some() && line.get("leaks").is_some()
}

fn is_chosen(line: &Value, keys: &OutputKeys) -> Result<bool, String> {
    let Some(chosen) = &keys.chosen else {
        return Ok(true);
    };
    let found = value(line, &chosen.key)?;
    let text = found
        .as_str()
        .map_or_else(|| found.to_string(), str::to_owned);
    Ok(text == chosen.value)
}

/// lm-evaluation-harness writes every output once for each of its filters.
fn filter_of(line: &Value) -> Option<&str> {
    line.get("filtered_resps")?;
    line.get("filter")?.as_str()
}

impl From<Attempt> for Output {
    fn from(attempt: Attempt) -> Self {
        Self {
            question: Some(attempt.question_id),
            knew: match attempt.source {
                Source::Forward => Knew::Question,
                Source::Hint => Knew::Answer,
            },
            text: attempt.text,
            gold: attempt.gold,
            end: if attempt.finish_reason.is_cut() {
                End::Cut
            } else {
                End::Whole
            },
        }
    }
}

fn output(line: &Value, keys: &OutputKeys) -> Result<Output, String> {
    let text_key = keys.text.as_deref().unwrap_or("text");
    let text = value(line, text_key)?.as_str();
    let text = text.ok_or_else(|| format!("key {text_key:?} is not a text"))?;
    let question = || keys.question.as_deref().map(|key| name(line, key));
    let (question, gold) = match &keys.gold {
        GoldSource::Usual => (question().transpose()?, gold_under(line, "gold")?),
        GoldSource::Key(key) => (question().transpose()?, gold_under(line, key)?),
        GoldSource::Questions(questions) => {
            let (question, gold) = questions.look_up(line)?;
            (Some(question), gold)
        }
    };
    let end = match &keys.finish {
        None => End::Untold,
        Some(key) if value(line, key)?.as_str() == Some(CUT) => End::Cut,
        Some(_) => End::Whole,
    };
    Ok(Output {
        question,
        knew: Knew::Question,
        text: text.to_owned(),
        gold,
        end,
    })
}

fn gold_under(line: &Value, key: &str) -> Result<Number, String> {
    let found = value(line, key)?;
    let gold = match found {
        Value::String(text) => gold_number(text),
        Value::Number(number) => Number::parse(&number.to_string()),
        _ => None,
    };
    gold.ok_or_else(|| {
        format!("key {key:?} holds no gold number (a number, or a text ending in #### n): {found}")
    })
}
