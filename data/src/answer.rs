//! From a generated text to the number it answers with.
//!
//! Five rules, because the rule decides more than the method does (one fixed set of outputs scores
//! 0.0 % to 76.5 % by rule alone). Every result names its rule; [`extract_all`] gives all of them
//! side by side.
//!
//! | rule | finds | compares |
//! |---|---|---|
//! | `numeric` | last `####` line, else last `\boxed{}`, else last "answer is", else last number | exact numbers |
//! | `openai` | first `#### (\-?[0-9\.\,]+)`, commas removed | strings |
//! | `lm-strict` | the same, as lm-evaluation-harness' task `gsm8k` compares it | strings |
//! | `lm-flexible` | last `(-?[$0-9.,]{2,})|(-?[0-9]+)`, its `flexible-extract` | strings |
//! | `report` | first number after a `####`, else last number | exact numbers |

mod lm;
mod numeric;
mod openai;
mod report;

use crate::number::{Number, scan};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, str::FromStr};
use thiserror::Error;

/// How an answer is looked for and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    Numeric,
    #[serde(rename = "openai")]
    OpenAi,
    LmStrict,
    LmFlexible,
    Report,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown extraction rule {name:?}; known rules: {known}")]
pub struct UnknownRule {
    pub name: String,
    pub known: String,
}

/// What pointed at the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundBy {
    /// `#### 18`
    HashMark,
    /// `\boxed{18}`
    Boxed,
    /// "the answer is 18", "Answer: 18", `<answer>18</answer>`, 18 below a heading "Final answer"
    AnswerIs,
    /// No marker: the last number of the text.
    LastNumber,
}

/// What a reader of the result should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// No marker was found, so the number is a guess: not fit for training data.
    Fallback,
    /// More than one marker of the kind that was used.
    SeveralMarkers,
    /// These markers name different numbers.
    ConflictingMarkers,
    /// The marked part holds more than one number.
    SeveralNumbers,
    /// The number does not fit [`Number`]; it is wrong, not missing.
    Unrepresentable,
}

/// What a rule found in a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extraction {
    pub rule: Rule,
    /// `None`: the rule finds no answer in this text.
    pub found_by: Option<FoundBy>,
    /// `None` also where what was found is no number (`...` by `lm-flexible`).
    pub value: Option<Number>,
    /// What was found, as the rules that compare strings compare it. Empty where nothing was.
    pub candidate: String,
    /// Byte range in the text.
    pub span: Option<Range<usize>>,
    pub flags: Vec<Flag>,
}

/// Applies a rule. Any text is fine, whatever bytes it came from.
pub fn extract(text: &str, rule: Rule) -> Extraction {
    match rule {
        Rule::Numeric => numeric::extract(text),
        Rule::OpenAi => openai::extract(text),
        Rule::LmStrict => lm::extract_strict(text),
        Rule::LmFlexible => lm::extract_flexible(text),
        Rule::Report => report::extract(text),
    }
}

/// All rules side by side, in the order of [`Rule::ALL`].
pub fn extract_all(text: &str) -> [Extraction; Rule::ALL.len()] {
    Rule::ALL.map(|rule| extract(text, rule))
}

impl Extraction {
    /// Whether this is the right answer under its own rule. Rules of other harnesses compare
    /// strings as these do: under `lm-strict`, `29.00` is not `29`.
    pub fn is_right(&self, gold: Number) -> bool {
        match self.rule {
            Rule::Numeric | Rule::Report => self.value == Some(gold),
            Rule::OpenAi | Rule::LmStrict | Rule::LmFlexible => {
                self.found_by.is_some() && self.candidate == gold.to_string()
            }
        }
    }

    pub fn has_flag(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    fn nothing(rule: Rule) -> Extraction {
        let (candidate, flags) = (String::new(), Vec::new());
        Extraction {
            rule,
            found_by: None,
            value: None,
            candidate,
            span: None,
            flags,
        }
    }

    /// A number of the text that a rule settled on.
    fn number(rule: Rule, found_by: FoundBy, text: &str, found: scan::Found) -> Extraction {
        let candidate = text[found.span.clone()].to_owned();
        let flags = if found.value.is_none() {
            vec![Flag::Unrepresentable]
        } else {
            Vec::new()
        };
        let (value, span) = (found.value, Some(found.span));
        Extraction {
            rule,
            found_by: Some(found_by),
            value,
            candidate,
            span,
            flags,
        }
    }
}

impl Rule {
    pub const ALL: [Rule; 5] = [
        Rule::Numeric,
        Rule::OpenAi,
        Rule::LmStrict,
        Rule::LmFlexible,
        Rule::Report,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Rule::Numeric => "numeric",
            Rule::OpenAi => "openai",
            Rule::LmStrict => "lm-strict",
            Rule::LmFlexible => "lm-flexible",
            Rule::Report => "report",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Rule, UnknownRule> {
        Rule::ALL
            .into_iter()
            .find(|rule| rule.name() == name)
            .ok_or_else(|| UnknownRule {
                name: name.to_owned(),
                known: Rule::ALL.map(Rule::name).join(", "),
            })
    }
}

#[cfg(test)]
mod tests;
