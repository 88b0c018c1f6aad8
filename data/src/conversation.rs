//! Turns of a conversation, and what a model is asked to continue: a text or a conversation.

use serde::{Deserialize, Serialize};

use crate::prompt::PromptFormat;

/// One turn of a conversation; it says something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    System,
    User,
    Assistant,
}

/// What the model is asked to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Text(String),
    /// To be rendered through the checkpoint's chat template.
    Chat(Vec<Message>),
}

impl Asked {
    /// A rendered prompt: as it is, or as the single user turn of a conversation.
    pub fn new(prompt: String, format: PromptFormat) -> Self {
        match format {
            PromptFormat::Plain => Self::Text(prompt),
            PromptFormat::Chat => Self::Chat(vec![Message {
                role: Role::User,
                content: prompt,
            }]),
        }
    }
}

impl Role {
    const ALL: [Self; 3] = [Self::System, Self::User, Self::Assistant];

    /// The word that files and templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A turn as files have it.
#[derive(Debug, Deserialize)]
pub(crate) struct MessageKeys {
    role: Option<String>,
    content: Option<String>,
}

/// The turns under a file's key `messages`; the error names the turn and its key.
pub(crate) fn messages(keys: Vec<MessageKeys>) -> Result<Vec<Message>, String> {
    let message = |(index, keys): (usize, MessageKeys)| {
        let found = given(&format!("messages[{index}].role"), keys.role)?;
        let role = Role::ALL.into_iter().find(|role| role.as_str() == found);
        let role = role.ok_or_else(|| {
            format!("messages[{index}].role: expected system, user or assistant, found {found:?}")
        })?;
        let content = given(&format!("messages[{index}].content"), keys.content)?;
        Ok(Message { role, content })
    };
    keys.into_iter().enumerate().map(message).collect()
}

/// The value of a key, which must be there and say something.
pub(crate) fn given(key: &str, value: Option<String>) -> Result<String, String> {
    match value {
        Some(text) if !text.trim().is_empty() => Ok(text),
        Some(_) => Err(format!("key \"{key}\" is empty")),
        None => Err(format!("key \"{key}\" is missing")),
    }
}
