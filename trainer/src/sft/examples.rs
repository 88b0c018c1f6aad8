//! A question file as examples: encoded, split by question, what is too long left out or cut and
//! counted.

use std::io::Write;
use std::path::Path;

use data::conversation::{Asked, Message, Role};
use data::example::{ExampleLine, ExampleText};
use data::prompt::{PromptFormat, PromptTemplate};
use data::split::holdout_by_question;
use model::template::ChatMessage;
use model::tokenizer::{ConversationIds, ModelTokenizer, Prompt};
use rayon::prelude::*;
use serde_json::json;

use crate::config::{TooLong, TrainOn, TrainingConfig};
use crate::dataset::Examples;
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

/// How a line becomes a prompt and what is learned of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoding<'a> {
    pub(super) template: &'a PromptTemplate,
    pub(super) format: PromptFormat,
    pub(super) train_on: TrainOn,
}

/// Encodes every line, holds out questions, and leaves out or cuts what is too long.
pub(super) fn build_examples(
    lines: &[ExampleLine],
    tokenizer: &ModelTokenizer,
    template: &PromptTemplate,
    config: &TrainingConfig,
) -> Result<ExampleSet> {
    let how = Encoding {
        template,
        format: config.prompt_format,
        train_on: config.train_on,
    };
    let encoded: Vec<ConversationIds> = lines
        .par_iter()
        .map(|line| encode(&line.text, tokenizer, &how))
        .collect::<Result<_>>()?;
    let questions = lines.iter().map(|line| line.text.question());
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
            let num_prompt_tokens = example.labels[0].start;
            let keep =
                config.too_long == TooLong::TruncateAnswer && num_prompt_tokens < config.max_length;
            set.dropped.push(Dropped {
                line: line.number,
                num_prompt_tokens,
                num_tokens,
                truncated: keep,
            });
            if !keep {
                continue;
            }
            truncate(&mut example, config.max_length);
        }
        let side = if held_out {
            &mut set.validation
        } else {
            &mut set.train
        };
        side.push_labelled(&example.ids, &example.labels);
    }
    Ok(set)
}

fn truncate(example: &mut ConversationIds, max_length: usize) {
    example.ids.truncate(max_length);
    example.labels.retain(|range| range.start < max_length);
    if let Some(last) = example.labels.last_mut() {
        last.end = last.end.min(max_length);
    }
}

/// An example as token ids with its labels: what the prompt asks, then what is learned and its end. A
/// conversation is encoded whole.
pub(super) fn encode(
    text: &ExampleText,
    tokenizer: &ModelTokenizer,
    how: &Encoding<'_>,
) -> Result<ConversationIds> {
    if let ExampleText::Messages(messages) = text {
        let learned = learned_turns(messages, how.train_on);
        return Ok(tokenizer.encode_conversation(&chat(messages), &learned)?);
    }
    let exchanges = text.exchanges(how.template, how.format)?;
    let [exchange] = &exchanges[..] else {
        unreachable!("only a conversation has several exchanges");
    };
    let example = tokenizer.encode_training(&prompt(&exchange.asked), &exchange.completion)?;
    Ok(ConversationIds {
        labels: std::iter::once(example.label_start..example.ids.len()).collect(),
        ids: example.ids,
        split_at_border: example.split_at_border,
    })
}

fn learned_turns(messages: &[Message], train_on: TrainOn) -> Vec<usize> {
    let by_assistant = |index: &usize| messages[*index].role == Role::Assistant;
    let mut turns: Vec<usize> = (0..messages.len()).filter(by_assistant).collect();
    if train_on == TrainOn::LastAssistant {
        turns.drain(..turns.len().saturating_sub(1));
    }
    turns
}

/// What is asked, in the tokenizer's words.
pub(crate) fn prompt(asked: &Asked) -> Prompt {
    match asked {
        Asked::Text(text) => Prompt::Text(text.clone()),
        Asked::Chat(messages) => Prompt::Chat(chat(messages)),
    }
}

fn chat(messages: &[Message]) -> Vec<ChatMessage> {
    let message = |message: &Message| ChatMessage {
        role: message.role.as_str().to_string(),
        content: message.content.clone(),
    };
    messages.iter().map(message).collect()
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
