//! A question file as examples: encoded, split by question, what is too long left out or cut and
//! counted.

use std::io::Write;
use std::path::Path;

use data::prompt::PromptTemplate;
use data::split::holdout_by_question;
use model::template::ChatMessage;
use model::tokenizer::{ModelTokenizer, Prompt, TrainingIds};
use rayon::prelude::*;
use serde_json::json;

use crate::config::{PromptFormat, TooLong, TrainingConfig};
use crate::dataset::{Examples, Line, LineText};
use crate::error::{Result, TrainError};

/// The tokenised file.
#[derive(Debug, Default)]
pub(super) struct ExampleSet {
    pub(super) train: Examples,
    pub(super) validation: Examples,
    pub(super) dropped: Vec<Dropped>,
    /// Examples whose prompt and answer meet inside a token.
    pub(super) num_split_at_border: usize,
}

/// An example that was left out or cut for its length.
#[derive(Debug)]
pub(super) struct Dropped {
    line: usize,
    num_prompt_tokens: usize,
    num_tokens: usize,
    /// Cut and kept, rather than left out.
    pub(super) truncated: bool,
}

/// Encodes every line, holds out questions, and leaves out or cuts what is too long.
pub(super) fn build_examples(
    lines: &[Line],
    tokenizer: &ModelTokenizer,
    template: &PromptTemplate,
    config: &TrainingConfig,
) -> Result<ExampleSet> {
    let encoded: Vec<TrainingIds> = lines
        .par_iter()
        .map(|line| encode(line, tokenizer, template, config.prompt_format))
        .collect::<Result<_>>()?;
    let questions = lines.iter().map(|line| match &line.text {
        LineText::Question { question, .. } => question.as_str(),
        LineText::Prompt { prompt, .. } => prompt.as_str(),
    });
    let split = holdout_by_question(questions, config.validation_fraction, config.seed).map_err(
        |error| TrainError::BadSetting {
            flag: "--validation-fraction",
            found: error.found.to_string(),
            expected: "0 <= fraction < 1".to_string(),
        },
    )?;
    let mut held_out = vec![false; lines.len()];
    split
        .held_out
        .iter()
        .for_each(|&index| held_out[index] = true);
    let mut set = ExampleSet::default();
    for ((line, mut example), held_out) in lines.iter().zip(encoded).zip(held_out) {
        set.num_split_at_border += usize::from(example.split_at_border);
        let num_tokens = example.ids.len();
        if num_tokens > config.max_length {
            let keep = config.too_long == TooLong::TruncateAnswer
                && example.label_start < config.max_length;
            set.dropped.push(Dropped {
                line: line.number,
                num_prompt_tokens: example.label_start,
                num_tokens,
                truncated: keep,
            });
            if !keep {
                continue;
            }
            example.ids.truncate(config.max_length);
        }
        let side = if held_out {
            &mut set.validation
        } else {
            &mut set.train
        };
        side.push(&example.ids, example.label_start);
    }
    Ok(set)
}

/// Prompt and completion as token ids. A built prompt ends in "A:", after which running text has a
/// space; through a chat template the answer begins the assistant's turn.
pub(super) fn encode(
    line: &Line,
    tokenizer: &ModelTokenizer,
    template: &PromptTemplate,
    format: PromptFormat,
) -> Result<TrainingIds> {
    let (prompt, completion) = match &line.text {
        LineText::Prompt { prompt, completion } => (prompt.clone(), completion.clone()),
        LineText::Question {
            question,
            completion,
        } => {
            let prompt = template.render(question)?;
            let space = match format {
                PromptFormat::Plain if !prompt.ends_with(char::is_whitespace) => " ",
                PromptFormat::Plain | PromptFormat::Chat => "",
            };
            (prompt, format!("{space}{}", completion.trim()))
        }
    };
    let prompt = match format {
        PromptFormat::Plain => Prompt::Text(prompt),
        PromptFormat::Chat => Prompt::Chat(vec![ChatMessage {
            role: "user".to_string(),
            content: prompt,
        }]),
    };
    Ok(tokenizer.encode_training(&prompt, &completion)?)
}

/// `dropped.jsonl`: one line per example that was left out or cut; empty where there is none.
pub(super) fn write_dropped(out: &Path, dropped: &[Dropped]) -> Result<()> {
    let path = out.join("dropped.jsonl");
    let mut text = Vec::new();
    for Dropped {
        line,
        num_prompt_tokens,
        num_tokens,
        truncated,
    } in dropped
    {
        let outcome = if *truncated {
            "answer_truncated"
        } else {
            "skipped_too_long"
        };
        let object = json!({
            "line": line,
            "num_prompt_tokens": num_prompt_tokens,
            "num_tokens": num_tokens,
            "outcome": outcome,
        });
        writeln!(text, "{object}").expect("writing to memory cannot fail");
    }
    std::fs::write(&path, text).map_err(TrainError::io(&path))
}
