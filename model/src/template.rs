//! Chat templates: the folder's own Jinja template, or one of two built in by name. Rendered as
//! transformers renders them (trimmed blocks, `raise_exception`, `strftime_now`, Python's string
//! methods), but with a pinned date.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde_json::Value as Json;

use crate::error::{ModelError, Result};
use crate::template::date::PinnedDate;

mod date;

/// The date Llama 3.2's own template falls back to.
pub const DEFAULT_DATE: &str = "26 Jul 2024";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, `tool` or `ipython`.
    pub role: String,
    pub content: String,
}

/// Which template to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The folder's own, where it has one.
    Auto,
    /// None: chat prompts are refused.
    None,
    /// What Hugging Face's Llama-3.2-Instruct does: always a system turn, with the date in it.
    HfLlama32,
    /// What Meta's `chat_format.py` does: the turns and nothing else.
    MetaLlama3,
    /// A Jinja file.
    File(PathBuf),
}

impl FromStr for TemplateChoice {
    type Err = std::convert::Infallible;

    /// `auto`, `none`, `hf-llama3.2`, `meta-llama3`; everything else is a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            HF_LLAMA32_NAME => Self::HfLlama32,
            META_LLAMA3_NAME => Self::MetaLlama3,
            path => Self::File(path.into()),
        })
    }
}

const HF_LLAMA32_NAME: &str = "hf-llama3.2";
const META_LLAMA3_NAME: &str = "meta-llama3";

/// BOS; a system turn, there or not, with the two dates; the turns, trimmed.
const HF_LLAMA32: &str = "\
{{- bos_token -}}
{%- if messages and messages[0].role == 'system' -%}
    {%- set system = messages[0].content | trim -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set system = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' ~ date_string ~ '\\n\\n' -}}
{{- system ~ '<|eot_id|>' -}}
{%- for turn in turns -%}
    {{- '<|start_header_id|>' ~ turn.role ~ '<|end_header_id|>\\n\\n' -}}
    {{- turn.content | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
";

/// BOS and the turns, trimmed.
const META_LLAMA3: &str = "\
{{- bos_token -}}
{%- for turn in messages -%}
    {{- '<|start_header_id|>' ~ turn.role ~ '<|end_header_id|>\\n\\n' -}}
    {{- turn.content | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
";

/// A template is code from a folder someone else made: it gets this many instructions (a real one
/// takes a few hundred for a turn) and no more.
const MAX_INSTRUCTIONS: u64 = 2_000_000;

/// A compiled chat template with its name, digest and date.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) date: String,
    environment: Environment<'static>,
    special_tokens: Vec<(&'static str, Option<String>)>,
}

/// What rendered text ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    GenerationPrompt,
    LastTurn,
}

/// What every template may name.
#[derive(Debug, Clone, Default)]
pub(crate) struct TemplateTokens {
    pub(crate) bos: Option<String>,
    pub(crate) eos: Option<String>,
    pub(crate) pad: Option<String>,
}

impl ChatTemplate {
    /// The template of `choice` for the folder `dir`, whose parsed `tokenizer_config.json` is
    /// `tokenizer_config`; `None` where there is none to use.
    pub(crate) fn load(
        choice: &TemplateChoice,
        date: &str,
        dir: &Path,
        tokenizer_config: &Json,
        tokens: &TemplateTokens,
    ) -> Result<Option<Self>> {
        let (name, source) = match choice {
            TemplateChoice::None => return Ok(None),
            TemplateChoice::HfLlama32 => (HF_LLAMA32_NAME.to_owned(), HF_LLAMA32.to_owned()),
            TemplateChoice::MetaLlama3 => (META_LLAMA3_NAME.to_owned(), META_LLAMA3.to_owned()),
            TemplateChoice::File(path) => {
                let source = std::fs::read_to_string(path).map_err(ModelError::io(path, "read"))?;
                (path.display().to_string(), source)
            }
            TemplateChoice::Auto => match folder_template(dir, tokenizer_config)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        Self::compile(name, source, date, tokens).map(Some)
    }

    pub(crate) fn compile(
        name: String,
        source: String,
        date: &str,
        tokens: &TemplateTokens,
    ) -> Result<Self> {
        let wrong = |message: String| ModelError::Template {
            name: name.clone(),
            message,
        };
        let pinned = PinnedDate::parse(date).ok_or_else(|| {
            wrong(format!(
                "the template date must look like {DEFAULT_DATE}, found {date:?}"
            ))
        })?;
        let digest = crate::manifest::sha256_hex(source.as_bytes());
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| wrong(error.to_string()))?);
        environment.set_fuel(Some(MAX_INSTRUCTIONS));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: &str| {
            pinned
                .format(format)
                .map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(TEMPLATE_KEY, source)
            .map_err(|error| wrong(format!("does not parse: {}", describe(&error))))?;
        let special_tokens = vec![
            ("bos_token", tokens.bos.clone()),
            ("eos_token", tokens.eos.clone()),
            ("pad_token", tokens.pad.clone()),
        ];
        Ok(Self {
            name,
            digest,
            date: date.to_owned(),
            environment,
            special_tokens,
        })
    }

    /// The conversation as text, ending with the header of the assistant's turn.
    pub(crate) fn render(&self, messages: &[ChatMessage]) -> Result<String> {
        self.render_to(messages, Ending::GenerationPrompt)
    }

    /// The conversation as text, ending where it ends.
    pub(crate) fn render_whole(&self, messages: &[ChatMessage]) -> Result<String> {
        self.render_to(messages, Ending::LastTurn)
    }

    fn render_to(&self, messages: &[ChatMessage], ending: Ending) -> Result<String> {
        let wrong = |error: &Error| ModelError::Template {
            name: self.name.clone(),
            message: describe(error),
        };
        let template = self
            .environment
            .get_template(TEMPLATE_KEY)
            .map_err(|error| wrong(&error))?;
        // A token the tokenizer lacks stays undefined, as in transformers.
        let tokens = Value::from_pairs(
            self.special_tokens
                .iter()
                .filter_map(|(key, token)| token.clone().map(|token| (*key, Value::from(token)))),
        );
        let context = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => ending == Ending::GenerationPrompt,
            date_string => &self.date,
            ..tokens
        };
        template.render(context).map_err(|error| wrong(&error))
    }
}

const TEMPLATE_KEY: &str = "chat";

/// `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`: a string, or a list of
/// named ones of which `default` is taken.
fn folder_template(dir: &Path, tokenizer_config: &Json) -> Result<Option<(String, String)>> {
    let file = dir.join("chat_template.jinja");
    if file.exists() {
        let source = std::fs::read_to_string(&file).map_err(ModelError::io(&file, "read"))?;
        return Ok(Some(("chat_template.jinja".to_owned(), source)));
    }
    let path = dir.join("tokenizer_config.json");
    let name = "tokenizer_config.json".to_owned();
    match &tokenizer_config["chat_template"] {
        Json::Null => Ok(None),
        Json::String(source) => Ok(Some((name, source.clone()))),
        Json::Array(templates) => {
            let found = templates
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str());
            match found {
                Some(source) => Ok(Some((name, source.to_owned()))),
                None => Err(ModelError::value(
                    &path,
                    "chat_template",
                    "a template named default",
                    "a list without one",
                )),
            }
        }
        _ => Err(ModelError::value(
            &path,
            "chat_template",
            "a string or a list of named templates",
            "something else",
        )),
    }
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// Python's `json.dumps(.., ensure_ascii=False)`; minijinja's own filter escapes HTML.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a filter takes its options so"
)]
fn to_json(value: &Value, options: minijinja::value::Kwargs) -> Result<String, Error> {
    let wrong =
        |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let Some(indent) = indent else {
        return serde_json::to_string(value)
            .map_err(wrong)
            .map(|text| spaced(&text));
    };
    let spaces = " ".repeat(indent.min(16));
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).map_err(wrong)?;
    String::from_utf8(bytes)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `{"a":1,"b":2}` as Python spaces it: `{"a": 1, "b": 2}`.
fn spaced(compact: &str) -> String {
    let (mut text, mut in_string, mut escaped) = (String::new(), false, false);
    for c in compact.chars() {
        text.push(c);
        if escaped {
            escaped = false;
        } else if c == '"' {
            in_string = !in_string;
        } else if in_string {
            escaped = c == '\\';
        } else if c == ',' || c == ':' {
            text.push(' ');
        }
    }
    text
}

/// The sentence and, where known, the line; never the template's context.
fn describe(error: &Error) -> String {
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{detail} (line {line})"),
        None => detail,
    }
}

#[cfg(test)]
mod tests;
