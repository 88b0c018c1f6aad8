//! Conversations through the chat template to ids: as prompts, and whole as training examples with the
//! assistant's turns as labels. What a message says stays plain text: its special tokens are broken by
//! a guard character while the template's own are looked for.

use std::ops::Range;

use super::special::{Piece, guard_for};
use super::{ModelTokenizer, Prompt};
use crate::error::{ModelError, Result};
use crate::template::{ChatMessage, ChatTemplate};

/// The ids of a conversation to be learned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationIds {
    /// Up to the end of the last learned turn: nothing after it can change what is learned.
    pub ids: Vec<u32>,
    /// What is learned, rising: what a turn says and the id at which generation ends. The ids before
    /// a range are those of the prompt that the messages before the turn make.
    pub labels: Vec<Range<usize>>,
    /// As in [`super::TrainingIds`], for any of the turns.
    pub split_at_border: bool,
}

/// Anything else could carry a special token into a turn's header.
const ROLES: [&str; 5] = ["system", "user", "assistant", "tool", "ipython"];

/// Ids under way, piece of text by piece of text.
#[derive(Default)]
struct Encoded {
    ids: Vec<u32>,
    split_at_border: bool,
    /// The text that the last ids are of and their number, where the next part may go on from it. (No
    /// part after the first is text alone: it has the end of its turn.)
    open: Option<(String, usize)>,
}

impl ModelTokenizer {
    /// The conversation as one training example: rendered and encoded once. `learned` are the indices
    /// of the turns that the model is to say, rising.
    ///
    /// # Errors
    /// As [`ModelTokenizer::encode_prompt`]'s; and [`ModelError::Prompt`] for a template that does not
    /// write the messages before a learned turn as it does at generation, or does not end the turn
    /// with the token at which generation stops.
    pub fn encode_conversation(
        &self,
        messages: &[ChatMessage],
        learned: &[usize],
    ) -> Result<ConversationIds> {
        let (template, guarded, guard) = self.guarded(messages, "")?;
        let end_id = self.end_of(&Prompt::Chat(Vec::new()))?;
        let rendered = template.render_whole(&guarded)?;
        let starts: Vec<usize> = learned
            .iter()
            .map(|&turn| {
                let span = span_of(template, &guarded, turn, &rendered)?;
                let pieces = self.inner.special.split(&rendered[span.clone()]);
                if pieces.contains(&Piece::Special(end_id)) {
                    return Ok(span.start);
                }
                Err(ModelError::Prompt(format!(
                    "chat template {}: expected turn {turn} to end with {:?}, at which generation \
                     stops",
                    template.name,
                    self.inner.special.text_of(end_id).unwrap_or_default(),
                )))
            })
            .collect::<Result<_>>()?;

        let mut encoded = Encoded::default();
        let mut labels = Vec::new();
        let first = starts.first().copied().unwrap_or(rendered.len());
        self.encode_part(&mut encoded, &rendered[..first], guard)?;
        for (index, &start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(rendered.len());
            let from = encoded.ids.len();
            self.encode_part(&mut encoded, &rendered[start..end], guard)?;
            let said = &encoded.ids[from..];
            let length = said.iter().position(|&id| id == end_id);
            labels.push(from..from + length.expect("it was looked for above") + 1);
        }
        if let Some(last) = labels.last() {
            encoded.ids.truncate(last.end);
        }
        let ids = self.with_one_bos(encoded.ids.clone());
        let num_added = ids.len() - encoded.ids.len();
        for range in &mut labels {
            *range = range.start + num_added..range.end + num_added;
        }
        self.check_ids(&ids)?;
        Ok(ConversationIds {
            ids,
            labels,
            split_at_border: encoded.split_at_border,
        })
    }

    /// The conversation as the template writes it.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String> {
        let (rendered, guard) = self.render_guarded(messages, "")?;
        Ok(rendered.replace(guard, ""))
    }

    /// Renders `messages` followed by `completion`; see [`Self::encode_rendered`].
    pub(super) fn render_guarded(
        &self,
        messages: &[ChatMessage],
        completion: &str,
    ) -> Result<(String, char)> {
        let (template, guarded, guard) = self.guarded(messages, completion)?;
        let mut rendered = template.render(&guarded)?;
        rendered.push_str(&self.inner.special.guard(completion, guard));
        Ok((rendered, guard))
    }

    /// The template, and the messages with every special token they spell out broken by a guard
    /// character, which neither they nor `completion` contain.
    fn guarded(
        &self,
        messages: &[ChatMessage],
        completion: &str,
    ) -> Result<(&ChatTemplate, Vec<ChatMessage>, char)> {
        let template = self.template().ok_or_else(|| {
            ModelError::Prompt(
                "this model has no chat template; send the prompt as text, or name a template \
                 (hf-llama3.2, meta-llama3 or a file)"
                    .to_owned(),
            )
        })?;
        if messages.is_empty() {
            return Err(ModelError::Prompt("the conversation is empty".to_owned()));
        }
        if let Some(message) = messages.iter().find(|m| !ROLES.contains(&m.role.as_str())) {
            return Err(ModelError::Prompt(format!(
                "role: expected one of {}, found {:?}",
                ROLES.join(", "),
                message.role
            )));
        }
        let mut texts: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
        texts.push(completion);
        let unbreakable = |text: &&str| self.inner.special.unbreakable_in(text);
        if let Some(token) = texts.iter().find_map(unbreakable) {
            let message = format!("a message contains the special token {token:?}");
            return Err(ModelError::Prompt(message));
        }
        let guard = guard_for(&texts).ok_or_else(|| {
            ModelError::Prompt("the text uses every private-use character there is".to_owned())
        })?;
        let guarded = messages
            .iter()
            .map(|message| ChatMessage {
                role: message.role.clone(),
                content: self.inner.special.guard(&message.content, guard),
            })
            .collect();
        Ok((template, guarded, guard))
    }

    /// Template output to ids: the special tokens in it are the template's own, since those that
    /// messages spell out carry the guard, which is removed from the plain text between them.
    pub(super) fn encode_rendered(&self, rendered: &str, guard: char) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for piece in self.inner.special.split(rendered) {
            match piece {
                Piece::Special(id) => ids.push(id),
                Piece::Text(text) => {
                    ids.extend(self.encode_text(&text.replace(guard, ""))?);
                }
            }
        }
        Ok(self.with_one_bos(ids))
    }

    /// Adds a part of a rendered conversation. Text that goes on across the border is encoded in one
    /// go where that leaves the ids before the border as they are.
    fn encode_part(&self, encoded: &mut Encoded, part: &str, guard: char) -> Result<()> {
        for piece in self.inner.special.split(part) {
            let text = match piece {
                Piece::Special(id) => {
                    encoded.ids.push(id);
                    encoded.open = None;
                    continue;
                }
                Piece::Text(text) => text.replace(guard, ""),
            };
            let Some((before, num_before)) = encoded.open.take() else {
                let ids = self.encode_text(&text)?;
                encoded.open = Some((text, ids.len()));
                encoded.ids.extend(ids);
                continue;
            };
            let border = encoded.ids.len();
            let joined = self.encode_text(&format!("{before}{text}"))?;
            if joined.starts_with(&encoded.ids[border - num_before..]) {
                encoded.ids.extend(&joined[num_before..]);
            } else {
                encoded.split_at_border = true;
                encoded.ids.extend(self.encode_text(&text)?);
            }
        }
        Ok(())
    }
}

/// Where in the rendered conversation a turn stands: after the header that generation begins with.
fn span_of(
    template: &ChatTemplate,
    messages: &[ChatMessage],
    turn: usize,
    rendered: &str,
) -> Result<Range<usize>> {
    let before = template.render(&messages[..turn])?;
    let through = template.render_whole(&messages[..=turn])?;
    if rendered.starts_with(&before) && rendered.starts_with(&through) {
        return Ok(before.len()..through.len());
    }
    Err(ModelError::Prompt(format!(
        "chat template {}: the messages before turn {turn} are not written as they are at generation, \
         so what is learned there is not what would be asked; train on the last turn only, or with \
         another template",
        template.name
    )))
}

#[cfg(test)]
mod tests;
