//! Token ids to text while they arrive: whole characters only, and all pieces together are exactly
//! what decoding all ids at once gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::error::{ModelError, Result};

/// Turns one answer's ids into text. Special tokens are skipped.
#[derive(Debug)]
pub struct DecodeStream {
    state: State,
}

#[derive(Debug)]
enum State {
    /// A byte-level tokenizer: every id is a few fixed bytes.
    Bytes {
        table: Arc<ByteTable>,
        pending: Vec<u8>,
    },
    /// Any other decoder: decode the ids not yet settled, twice (see [`Window`]).
    Window(Window),
}

impl DecodeStream {
    pub(crate) fn bytes(table: Arc<ByteTable>) -> Self {
        Self {
            state: State::Bytes {
                table,
                pending: Vec::new(),
            },
        }
    }

    pub(crate) fn window(tokenizer: Arc<Tokenizer>) -> Self {
        Self {
            state: State::Window(Window {
                tokenizer,
                ids: Vec::new(),
                read: 0,
            }),
        }
    }

    /// The text that became certain with `id`; empty in the midst of a character. An id outside the
    /// vocabulary adds nothing.
    pub fn push(&mut self, id: u32) -> Result<String> {
        match &mut self.state {
            State::Bytes { table, pending } => {
                pending.extend_from_slice(table.bytes(id));
                Ok(take_complete(pending))
            }
            State::Window(window) => window.push(id),
        }
    }

    /// What is left at the end: bytes that never became a character, as U+FFFD.
    pub fn finish(&mut self) -> Result<String> {
        match &mut self.state {
            State::Bytes { pending, .. } => {
                let text = String::from_utf8_lossy(pending).into_owned();
                pending.clear();
                Ok(text)
            }
            State::Window(window) => window.finish(),
        }
    }
}

/// Takes from `pending` all but a last character that is still incomplete; bytes that can never
/// become one are replaced by U+FFFD, exactly as `String::from_utf8_lossy` does over the whole.
fn take_complete(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut start = 0;
    loop {
        match std::str::from_utf8(&pending[start..]) {
            Ok(rest) => {
                text.push_str(rest);
                pending.clear();
                return text;
            }
            Err(error) => {
                let valid = start + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[start..valid]));
                let Some(bad) = error.error_len() else {
                    pending.drain(..valid);
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                start = valid + bad;
            }
        }
    }
}

/// The bytes of every id of a byte-level tokenizer; special tokens have none.
#[derive(Debug)]
pub(crate) struct ByteTable {
    bytes: Vec<u8>,
    /// Id `i` is `bytes[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
}

impl ByteTable {
    /// `None` for a tokenizer whose decoder is not byte-level.
    pub(crate) fn build(tokenizer: &Tokenizer) -> Option<Self> {
        use tokenizers::DecoderWrapper;
        if !matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return None;
        }
        let byte_of: BTreeMap<char, u8> = byte_alphabet()
            .into_iter()
            .map(|(byte, c)| (c, byte))
            .collect();
        let added = tokenizer.get_added_vocabulary();
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        // Ids may have holes; the highest decides the length.
        let highest = tokenizer.get_vocab(true).values().copied().max()?;
        for id in 0..=highest {
            if let Some(token) = tokenizer
                .id_to_token(id)
                .filter(|t| !added.is_special_token(t))
            {
                // As the byte-level decoder does: a token with a character outside the byte
                // alphabet (an added one) stands for itself.
                let decoded: Option<Vec<u8>> =
                    token.chars().map(|c| byte_of.get(&c).copied()).collect();
                bytes.extend(decoded.unwrap_or_else(|| token.into_bytes()));
            }
            starts.push(bytes.len() as u32);
        }
        Some(Self { bytes, starts })
    }

    fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match (self.starts.get(id), self.starts.get(id + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// GPT-2's alphabet: printable Latin-1 bytes are themselves, the others follow from U+0100.
pub(crate) fn byte_alphabet() -> BTreeMap<u8, char> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255u8).filter(|b| !printable(b)).zip(0x100u32..);
    let shifted = others.map(|(b, c)| (b, char::from_u32(c).expect("below U+D800")));
    (0..=255u8)
        .filter(printable)
        .map(|b| (b, char::from(b)))
        .chain(shifted)
        .collect()
}

/// Decoding a token may depend on the one before it (a leading space dropped at the start), so the
/// text of new ids is the difference of two decodings that begin at a settled place.
struct Window {
    tokenizer: Arc<Tokenizer>,
    /// `ids[..read]` have been given out and are kept as context; the rest wait.
    ids: Vec<u32>,
    read: usize,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window")
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

impl Window {
    fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.unread()?;
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.ids.drain(..self.read);
        self.read = self.ids.len();
        Ok(text)
    }

    fn finish(&mut self) -> Result<String> {
        let text = self.unread()?;
        self.ids.clear();
        self.read = 0;
        Ok(text)
    }

    fn unread(&self) -> Result<String> {
        let decode = |ids: &[u32]| {
            let text = self.tokenizer.decode(ids, true);
            text.map_err(|error| ModelError::Prompt(format!("cannot decode {ids:?}: {error}")))
        };
        let (old, new) = (decode(&self.ids[..self.read])?, decode(&self.ids)?);
        Ok(new.get(old.len()..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests;
