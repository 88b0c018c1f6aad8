//! The words that the client's parts share about a generation: what is asked, what comes back.
//! Nothing here knows protobuf; `connection` translates. Settings and stamps are those of
//! `data::record`, so that what was asked is what is written down.

use data::{
    conversation::{Asked, Message},
    prompt::PromptFormat,
    record::{Decoding, FinishReason, WeightsStamp},
};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// What the model is asked to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Plain text; special tokens in it are text.
    Text(String),
    /// A conversation, rendered on the server with the checkpoint's chat template.
    Chat(Vec<ChatMessage>),
}

impl Prompt {
    /// A rendered prompt: as it is, or as the single user turn of a conversation.
    pub fn new(text: String, format: PromptFormat) -> Self {
        Asked::new(text, format).into()
    }
}

impl From<Asked> for Prompt {
    fn from(asked: Asked) -> Self {
        let message = |message: Message| ChatMessage {
            role: message.role.as_str().to_owned(),
            content: message.content,
        };
        match asked {
            Asked::Text(text) => Self::Text(text),
            Asked::Chat(messages) => Self::Chat(messages.into_iter().map(message).collect()),
        }
    }
}

/// One prompt to be answered. Every sampling field is sent, so that no server default can change a
/// result.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Unique among everything this process has in flight; also the key for a safe retry.
    pub request_id: String,
    pub prompt: Prompt,
    pub decoding: Decoding,
    /// Only used where tokens are drawn.
    pub seed: u64,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub num_prompt_tokens: u32,
    /// Includes the token that ended the answer.
    pub num_generated_tokens: u32,
    pub finish: FinishReason,
    pub weights: WeightsStamp,
}

/// A prompt and what follows it, to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreItem {
    pub request_id: String,
    pub prompt: Prompt,
    /// Tokenised as in training; the token that ends an answer comes after it.
    pub completion: String,
}

/// How likely a completion was.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Of the prompt.
    pub num_context_tokens: u32,
    /// Natural logarithms, one for each of its tokens.
    pub logprobs: Vec<f32>,
    pub weights: WeightsStamp,
}
