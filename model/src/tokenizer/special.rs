//! Special tokens in text: which there are, where a template wrote one, and how to keep a user's
//! text from spelling one out.

use std::collections::{BTreeMap, BTreeSet};

use tokenizers::Tokenizer;

/// The special tokens of a tokenizer.
pub(super) struct SpecialTokens {
    /// Longest first.
    tokens: Vec<SpecialToken>,
    /// By id, the index into `tokens`.
    by_id: BTreeMap<u32, usize>,
    /// The bytes some token begins with: most places of a text are none, at the cost of one look.
    first_bytes: BTreeSet<u8>,
}

struct SpecialToken {
    text: String,
    id: u32,
    /// It takes the white space before (after) it along.
    lstrip: bool,
    rstrip: bool,
}

/// A stretch of templated text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Special(u32),
    Text(&'a str),
}

impl SpecialTokens {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let mut tokens: Vec<SpecialToken> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| SpecialToken {
                text: token.content,
                id,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
            })
            .collect();
        tokens.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        let by_id = tokens
            .iter()
            .enumerate()
            .map(|(index, token)| (token.id, index))
            .collect();
        let first_bytes = tokens
            .iter()
            .map(|token| token.text.as_bytes()[0])
            .collect();
        Self {
            tokens,
            by_id,
            first_bytes,
        }
    }

    /// The text of a special token; `None` for an ordinary one.
    pub(super) fn text_of(&self, id: u32) -> Option<&str> {
        self.by_id
            .get(&id)
            .map(|&index| self.tokens[index].text.as_str())
    }

    /// The first special token in `text` that [`Self::guard`] cannot break, being one character.
    pub(super) fn unbreakable_in(&self, text: &str) -> Option<&str> {
        let short = self
            .tokens
            .iter()
            .filter(|token| token.text.chars().nth(1).is_none());
        short
            .map(|token| token.text.as_str())
            .find(|token| text.contains(token))
    }

    /// `text` with `guard` put inside every special token it spells out, after the first character.
    pub(super) fn guard(&self, text: &str, guard: char) -> String {
        let mut guarded = String::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            guarded.push(c);
            // Not only at matches found left to right: removing one must not reveal another.
            if self.at(&text[start..]).is_some() {
                guarded.push(guard);
            }
        }
        guarded
    }

    /// Cuts `text` at its special tokens, leftmost and longest first.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut plain_start, mut position) = (0, 0);
        while position < text.len() {
            let Some(token) = self.at(&text[position..]) else {
                position += text[position..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let before = &text[plain_start..position];
            let before = if token.lstrip {
                before.trim_end()
            } else {
                before
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before));
            }
            pieces.push(Piece::Special(token.id));
            position += token.text.len();
            if token.rstrip {
                position = text.len() - text[position..].trim_start().len();
            }
            plain_start = position;
        }
        if plain_start < text.len() {
            pieces.push(Piece::Text(&text[plain_start..]));
        }
        pieces
    }

    /// The special token `text` begins with.
    fn at(&self, text: &str) -> Option<&SpecialToken> {
        let first = text.as_bytes().first()?;
        if !self.first_bytes.contains(first) {
            return None;
        }
        self.tokens
            .iter()
            .find(|token| text.starts_with(&token.text))
    }
}

/// A private-use character that none of `texts` contains.
pub(super) fn guard_for(texts: &[&str]) -> Option<char> {
    ('\u{E000}'..='\u{F8FF}').find(|&c| texts.iter().all(|text| !text.contains(c)))
}

#[cfg(test)]
mod tests;
