//! The words that the client's parts share about a generation: what is asked, what comes back.
//! Nothing here knows protobuf; `connection` translates. Settings and stamps are those of
//! `data::record`, so that what was asked is what is written down.

use data::record::{Decoding, FinishReason, WeightsStamp};
use serde::{Deserialize, Serialize};

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

/// How a rendered question becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptFormat {
    Plain,
    Chat,
}

impl PromptFormat {
    /// The word that command lines and files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Chat => "chat",
        }
    }

    /// The rendered text as a prompt: as it is, or as the single user turn of a conversation.
    pub fn wrap(self, text: String) -> Prompt {
        match self {
            Self::Plain => Prompt::Text(text),
            Self::Chat => Prompt::Chat(vec![ChatMessage {
                role: "user".to_owned(),
                content: text,
            }]),
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
