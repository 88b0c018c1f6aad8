//! Tokens to text while they arrive: whole characters only, nothing of a stop string unless it is
//! wanted, nothing of the token that ends the answer.

use std::sync::Arc;

use model::{ModelError, decode_stream::DecodeStream};

use super::{
    answer::{StopIds, StopReason},
    stop::StopStrings,
};
use crate::convert::StopStringText;

/// The text of one answer.
#[derive(Debug)]
pub(crate) struct AnswerText {
    decode: DecodeStream,
    stop_strings: StopStrings,
    string_text: StopStringText,
    /// Their text is not part of the answer.
    stop_ids: Arc<StopIds>,
    /// A stop string that is complete at one of the first tokens does not count.
    num_tokens_left_unchecked: u32,
    stop_reason: Option<StopReason>,
}

impl AnswerText {
    pub(crate) fn new(
        decode: DecodeStream,
        stop_strings: Vec<String>,
        stop_ids: Arc<StopIds>,
    ) -> Self {
        Self {
            decode,
            stop_strings: StopStrings::new(stop_strings),
            string_text: StopStringText::LeftOut,
            stop_ids,
            num_tokens_left_unchecked: 0,
            stop_reason: None,
        }
    }

    /// Says what becomes of the stop string, and from when on there may be one.
    pub(crate) fn stopping_with(mut self, string_text: StopStringText, min_tokens: u32) -> Self {
        self.string_text = string_text;
        self.num_tokens_left_unchecked = min_tokens;
        self
    }

    /// Appends to `out` the text that has become certain with `token`; true if a stop string ended
    /// the answer.
    pub(super) fn push(&mut self, token: u32, out: &mut String) -> Result<bool, ModelError> {
        let is_checked = self.num_tokens_left_unchecked == 0;
        self.num_tokens_left_unchecked = self.num_tokens_left_unchecked.saturating_sub(1);
        if let Some(stop) = self.stop_ids.reason(token) {
            // The engine ends the answer with it.
            self.stop_reason = Some(stop);
            return Ok(false);
        }
        let text = self.decode.push(token)?;
        if is_checked {
            Ok(self.search(&text, out))
        } else {
            self.stop_strings.pass(&text, out);
            Ok(false)
        }
    }

    fn search(&mut self, text: &str, out: &mut String) -> bool {
        let Some(stop) = self.stop_strings.push(text, out) else {
            return false;
        };
        if self.string_text == StopStringText::Included {
            out.push_str(&stop);
        }
        self.stop_reason = Some(StopReason::Text(stop));
        true
    }

    /// Appends what was held back; nothing after a stop string.
    pub(super) fn finish(&mut self, out: &mut String) {
        if matches!(self.stop_reason, Some(StopReason::Text(_))) {
            return;
        }
        // Bytes that never became a character; a decoder that fails here has nothing to add.
        let rest = self.decode.finish().unwrap_or_default();
        let is_checked = self.num_tokens_left_unchecked == 0;
        if is_checked && self.search(&rest, out) {
            return;
        }
        if !is_checked {
            self.stop_strings.pass(&rest, out);
        }
        self.stop_strings.finish(out);
    }

    /// What ended the answer, where that was a stop.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.stop_reason.clone()
    }
}
