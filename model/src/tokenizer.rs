//! Prompts to token ids and back. User text never becomes a special token, templated text carries
//! no second BOS, and a training example begins with the ids its prompt has at generation.

use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::decode_stream::{ByteTable, DecodeStream};
use crate::error::{ModelError, Result};
use crate::template::{self, ChatMessage, ChatTemplate, TemplateChoice, TemplateTokens};
use crate::tokenizer::files::{
    end_ids, named_token, prefix_ids, read_config, read_json, tokenizer_error,
};
use crate::tokenizer::special::SpecialTokens;

mod conversation;
mod files;
mod special;

pub use conversation::ConversationIds;
pub(crate) use files::{num_ids, read_tokenizer};

/// What a caller asks the model to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Encoded as it stands, after BOS where the tokenizer's own post-processor adds one.
    Text(String),
    /// Rendered through the chat template, ending with the header of the assistant's turn.
    Chat(Vec<ChatMessage>),
    /// Taken as they are; checked against the vocabulary.
    TokenIds(Vec<u32>),
}

/// How a tokenizer is loaded where the folder alone does not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerOptions {
    pub template: TemplateChoice,
    /// What a template that writes today's date is given, as `26 Jul 2024`. Pinned, since a prompt
    /// that changes every day makes answers and numbers change every day.
    pub template_date: String,
}

impl Default for TokenizerOptions {
    fn default() -> Self {
        Self {
            template: TemplateChoice::Auto,
            template_date: template::DEFAULT_DATE.to_owned(),
        }
    }
}

/// The ids of a training example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingIds {
    /// Prompt, completion, end of text (of turn, for a chat).
    pub ids: Vec<u32>,
    /// `ids[..label_start]` are exactly [`ModelTokenizer::encode_prompt`]'s; the rest is to be
    /// learned.
    pub label_start: usize,
    /// Encoding prompt and completion in one go would have put a token across their border (a
    /// prompt that ends in a space, say), so they were encoded apart: what the model meets at
    /// generation, where the prompt's ids are fixed, but rarely what the author of a prompt wants.
    pub split_at_border: bool,
}

/// Tokenizer and chat template of a checkpoint folder. Clones share everything.
#[derive(Clone)]
pub struct ModelTokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    /// Set to read special tokens in a text as plain text.
    tokenizer: Arc<Tokenizer>,
    special: SpecialTokens,
    template: Option<ChatTemplate>,
    /// For streams, where the decoder is byte-level.
    byte_table: Option<Arc<ByteTable>>,
    /// What the tokenizer's post-processor puts in front of a text: BOS or nothing.
    prefix: Vec<u32>,
    bos_id: Option<u32>,
    text_end_id: Option<u32>,
    chat_end_id: Option<u32>,
    /// The network's, where the folder has a config, else the tokenizer's.
    vocab_size: usize,
    digest: String,
}

impl std::fmt::Debug for ModelTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelTokenizer")
            .field("vocab_size", &self.inner.vocab_size)
            .field("template", &self.template_name())
            .finish_non_exhaustive()
    }
}

impl ModelTokenizer {
    /// Loads `dir` with its own template and the default date.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_with(dir, &TokenizerOptions::default())
    }

    /// Loads `dir/tokenizer.json` and, where they exist, `tokenizer_config.json`,
    /// `special_tokens_map.json`, `chat_template.jinja`, `config.json`, `generation_config.json`.
    pub fn load_with(dir: &Path, options: &TokenizerOptions) -> Result<Self> {
        let (tokenizer, digest) = read_tokenizer(dir)?;
        let config = read_config(dir)?;
        let tokenizer_config = read_json(&dir.join("tokenizer_config.json"))?;
        let special_map = read_json(&dir.join("special_tokens_map.json"))?;
        let named = |key| named_token(&tokenizer_config, key).or(named_token(&special_map, key));
        let id_of = |name: Option<&String>| name.and_then(|name| tokenizer.token_to_id(name));
        let from_id = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
        let stops = config
            .as_ref()
            .map_or(&[][..], |(_, generation)| &generation.eos_token_ids);
        let bos_of_config = config.as_ref().and_then(|(config, _)| config.bos_token_id);
        let tokens = TemplateTokens {
            bos: named("bos_token").or(from_id(bos_of_config)),
            eos: named("eos_token").or(from_id(stops.first().copied())),
            pad: named("pad_token"),
        };
        let template = ChatTemplate::load(
            &options.template,
            &options.template_date,
            dir,
            &tokenizer_config,
            &tokens,
        )?;

        let num_ids = num_ids(&tokenizer);
        let vocab_size = config
            .as_ref()
            .map_or(num_ids, |(config, _)| config.vocab_size);
        if num_ids > vocab_size {
            return Err(tokenizer_error(
                dir,
                format!(
                    "expected ids below vocab_size of config.json ({vocab_size}), found {}",
                    num_ids - 1
                ),
            ));
        }
        let (text_end_id, chat_end_id) = end_ids(&tokenizer, id_of(tokens.eos.as_ref()), stops);
        Ok(Self {
            inner: Arc::new(Inner {
                special: SpecialTokens::of(&tokenizer),
                template,
                byte_table: ByteTable::build(&tokenizer).map(Arc::new),
                prefix: prefix_ids(&tokenizer)
                    .map_err(|error| tokenizer_error(dir, error.to_string()))?,
                bos_id: id_of(tokens.bos.as_ref()),
                text_end_id,
                chat_end_id,
                vocab_size,
                digest,
                tokenizer: Arc::new(tokenizer),
            }),
        })
    }

    /// The ids the model is to continue.
    ///
    /// # Errors
    /// [`ModelError::Prompt`] for an empty prompt, an id outside the vocabulary, a second BOS, a
    /// role that is not known, a chat without a template; [`ModelError::Template`] where the
    /// template refuses the conversation.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let ids = match prompt {
            Prompt::Text(text) => self.with_prefix(&self.encode_text(text)?),
            Prompt::Chat(messages) => {
                let (rendered, guard) = self.render_guarded(messages, "")?;
                self.encode_rendered(&rendered, guard)?
            }
            Prompt::TokenIds(ids) => ids.clone(),
        };
        self.check_ids(&ids)?;
        Ok(ids)
    }

    /// Prompt and completion as one training example: [`Self::encode_continued`], followed by the id at
    /// which generation ends.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`]'s; [`ModelError::Prompt`] for a tokenizer without such an id.
    pub fn encode_training(&self, prompt: &Prompt, completion: &str) -> Result<TrainingIds> {
        let mut example = self.encode_continued(prompt, completion)?;
        example.ids.push(self.end_of(prompt)?);
        Ok(example)
    }

    /// Prompt and completion, with no end. They are encoded in one go, so that the completion's first
    /// token is the one the model would meet in running text; where that would change the prompt's
    /// own ids, they are encoded apart (see [`TrainingIds::split_at_border`]).
    pub fn encode_continued(&self, prompt: &Prompt, completion: &str) -> Result<TrainingIds> {
        let prompt_ids = self.encode_prompt(prompt)?;
        let whole = match prompt {
            Prompt::Text(text) => {
                self.with_prefix(&self.encode_text(&format!("{text}{completion}"))?)
            }
            Prompt::Chat(messages) => {
                let (rendered, guard) = self.render_guarded(messages, completion)?;
                self.encode_rendered(&rendered, guard)?
            }
            Prompt::TokenIds(ids) => [ids.as_slice(), &self.encode_text(completion)?].concat(),
        };
        let label_start = prompt_ids.len();
        let split_at_border = !whole.starts_with(&prompt_ids);
        let ids = if split_at_border {
            [prompt_ids, self.encode_text(completion)?].concat()
        } else {
            whole
        };
        Ok(TrainingIds {
            ids,
            label_start,
            split_at_border,
        })
    }

    /// The id at which an answer to this prompt ends.
    fn end_of(&self, prompt: &Prompt) -> Result<u32> {
        let (end, kind) = match prompt {
            Prompt::Chat(_) => (self.inner.chat_end_id, "end-of-turn"),
            _ => (self.inner.text_end_id, "end-of-text"),
        };
        end.ok_or_else(|| {
            ModelError::Prompt(format!(
                "the tokenizer has no {kind} token (eos_token of tokenizer_config.json, \
                 eos_token_id of config.json)"
            ))
        })
    }

    /// The ids of plain text: no BOS, no special tokens.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.tokenizer.encode_fast(text, false);
        let encoding =
            encoding.map_err(|error| ModelError::Prompt(format!("cannot encode: {error}")))?;
        let ids = encoding.get_ids();
        // A tokenizer may list a special token among its ordinary ones as well and find it there.
        match ids.iter().find_map(|&id| self.inner.special.text_of(id)) {
            None => Ok(ids.to_vec()),
            Some(token) => Err(ModelError::Prompt(format!(
                "the text contains {token:?}, which this tokenizer cannot encode as plain text"
            ))),
        }
    }

    /// All ids as text, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = self.inner.tokenizer.decode(ids, true);
        text.map_err(|error| ModelError::Prompt(format!("cannot decode: {error}")))
    }

    /// Text of ids as they arrive.
    pub fn decode_stream(&self) -> DecodeStream {
        match &self.inner.byte_table {
            Some(table) => DecodeStream::bytes(Arc::clone(table)),
            None => DecodeStream::window(Arc::clone(&self.inner.tokenizer)),
        }
    }

    /// Ids are below this: `vocab_size` of `config.json`, or the tokenizer's own without one.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.inner.bos_id
    }

    /// Ends the completion of a text: the tokenizer's EOS, where generation stops at it.
    pub fn text_end_id(&self) -> Option<u32> {
        self.inner.text_end_id
    }

    /// Ends the assistant's turn: `<|eot_id|>` where there is one and generation stops at it, else
    /// as [`Self::text_end_id`].
    pub fn chat_end_id(&self) -> Option<u32> {
        self.inner.chat_end_id
    }

    /// The id of a token by its text, special ones included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// sha256 (hex) of `tokenizer.json`.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    pub fn has_chat_template(&self) -> bool {
        self.inner.template.is_some()
    }

    /// A built-in's name, or the file the template came from.
    pub fn template_name(&self) -> Option<&str> {
        self.template().map(|template| template.name.as_str())
    }

    /// sha256 (hex) of the template's source.
    pub fn template_digest(&self) -> Option<&str> {
        self.template().map(|template| template.digest.as_str())
    }

    /// The pinned date a template is given.
    pub fn template_date(&self) -> Option<&str> {
        self.template().map(|template| template.date.as_str())
    }

    fn template(&self) -> Option<&ChatTemplate> {
        self.inner.template.as_ref()
    }

    /// A template that writes BOS itself must not get a second one.
    fn with_one_bos(&self, ids: Vec<u32>) -> Vec<u32> {
        let bos = self.inner.bos_id;
        if bos.is_some_and(|bos| ids.first() == Some(&bos)) {
            ids
        } else {
            self.with_prefix(&ids)
        }
    }

    fn with_prefix(&self, ids: &[u32]) -> Vec<u32> {
        [&self.inner.prefix[..], ids].concat()
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let wrong = |message| Err(ModelError::Prompt(message));
        if ids.is_empty() {
            return wrong("the prompt is empty".to_owned());
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.inner.vocab_size) {
            let size = self.inner.vocab_size;
            return wrong(format!("token ids: expected ids below {size}, found {id}"));
        }
        if self
            .inner
            .bos_id
            .is_some_and(|bos| ids.starts_with(&[bos, bos]))
        {
            return wrong("the prompt begins with BOS twice".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
