//! The prompt of a request, checked as far as it can be without a tokenizer.

use model::{template::ChatMessage, tokenizer::Prompt};
use proto::genserver::v1 as pb;

use super::Parser;

const MAX_CHAT_MESSAGES: usize = 1024;

impl Parser<'_> {
    pub(super) fn prompt(
        &mut self,
        prompt: Option<pb::generate_request::Prompt>,
    ) -> Option<Prompt> {
        use pb::generate_request::Prompt as Asked;
        match prompt {
            None => {
                self.refuse(
                    "prompt",
                    "expected one of text, chat and token_ids, found none",
                );
                None
            }
            Some(Asked::Text(text)) => {
                if text.is_empty() {
                    self.refuse("text", "expected a prompt, found an empty text");
                }
                Some(Prompt::Text(text))
            }
            Some(Asked::Chat(chat)) => Some(Prompt::Chat(self.chat(chat))),
            Some(Asked::TokenIds(token_ids)) => {
                if token_ids.ids.is_empty() {
                    self.refuse("token_ids.ids", "expected a prompt, found no ids");
                }
                self.vocabulary("token_ids.ids", &token_ids.ids);
                Some(Prompt::TokenIds(token_ids.ids))
            }
        }
    }

    fn chat(&mut self, chat: pb::Chat) -> Vec<ChatMessage> {
        if !self.limits.has_chat_template {
            let problem = "this model has no chat template; send the prompt as text, or start the \
                           server with --chat-template";
            self.refuse("chat", problem);
        }
        let num_messages = chat.messages.len();
        if !(1..=MAX_CHAT_MESSAGES).contains(&num_messages) {
            let problem =
                format!("expected 1 to {MAX_CHAT_MESSAGES} messages, found {num_messages}");
            self.refuse("chat.messages", problem);
        }
        for (index, message) in chat.messages.iter().enumerate().take(MAX_CHAT_MESSAGES) {
            if !["system", "user", "assistant"].contains(&message.role.as_str()) {
                let found = shortened(&message.role);
                let problem = format!("expected system, user or assistant, found {found:?}");
                self.refuse(format!("chat.messages[{index}].role"), problem);
            }
        }
        let messages = chat.messages.into_iter();
        messages
            .map(|each| ChatMessage {
                role: each.role,
                content: each.content,
            })
            .collect()
    }
}

/// The beginning of a text that came from outside, for a message.
fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(24))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
