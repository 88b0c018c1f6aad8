//! Tokens to text while they arrive: whole characters only, nothing of a stop string, nothing of the
//! token that ends the answer.

use std::sync::Arc;

use model::{ModelError, decode_stream::DecodeStream};

use super::stop::StopStrings;

/// The text of one answer.
#[derive(Debug)]
pub(crate) struct AnswerText {
    decode: DecodeStream,
    stop_strings: StopStrings,
    /// Their text is not part of the answer.
    stop_token_ids: Arc<[u32]>,
    has_stopped: bool,
}

impl AnswerText {
    pub(crate) fn new(
        decode: DecodeStream,
        stop_strings: Vec<String>,
        stop_token_ids: Arc<[u32]>,
    ) -> Self {
        let stop_strings = StopStrings::new(stop_strings);
        Self {
            decode,
            stop_strings,
            stop_token_ids,
            has_stopped: false,
        }
    }

    /// Appends to `out` the text that has become certain with `token`; true if a stop string ended
    /// the answer.
    pub(super) fn push(&mut self, token: u32, out: &mut String) -> Result<bool, ModelError> {
        if !self.stop_token_ids.contains(&token) {
            let text = self.decode.push(token)?;
            self.has_stopped = self.stop_strings.push(&text, out);
        }
        Ok(self.has_stopped)
    }

    /// Appends what was held back; nothing after a stop string.
    pub(super) fn finish(&mut self, out: &mut String) {
        if self.has_stopped {
            return;
        }
        // Bytes that never became a character; a decoder that fails here has nothing to add.
        let rest = self.decode.finish().unwrap_or_default();
        if !self.stop_strings.push(&rest, out) {
            self.stop_strings.finish(out);
        }
        self.has_stopped = true;
    }
}
