//! Finds stop strings in text that arrives in pieces. Text that may be the beginning of a stop string
//! is held back until the next piece decides.

/// The stop strings of one answer and the text held back.
#[derive(Debug)]
pub(super) struct StopStrings {
    strings: Vec<String>,
    held_back: String,
}

impl StopStrings {
    /// None of `strings` is empty: that is refused where requests come in.
    pub(super) fn new(strings: Vec<String>) -> Self {
        assert!(
            strings.iter().all(|stop| !stop.is_empty()),
            "an empty stop string stops nothing"
        );
        Self {
            strings,
            held_back: String::new(),
        }
    }

    /// Appends to `out` the text that certainly precedes any stop string; gives the one that was
    /// found. The one that is complete first counts, wherever the pieces begin; of those that end at
    /// the same place the longest.
    pub(super) fn push(&mut self, text: &str, out: &mut String) -> Option<String> {
        if self.strings.is_empty() {
            out.push_str(text);
            return None;
        }
        for character in text.chars() {
            self.held_back.push(character);
            let complete = self
                .strings
                .iter()
                .filter(|stop| self.held_back.ends_with(*stop));
            if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
                out.push_str(&self.held_back[..self.held_back.len() - stop.len()]);
                let stop = stop.clone();
                self.held_back.clear();
                return Some(stop);
            }
        }
        self.give_out_certain(out);
        None
    }

    /// As [`Self::push`], but a stop string that is complete in `text` does not count. One may begin
    /// there.
    pub(super) fn pass(&mut self, text: &str, out: &mut String) {
        self.held_back.push_str(text);
        self.give_out_certain(out);
    }

    fn give_out_certain(&mut self, out: &mut String) {
        let num_certain = self.held_back.len() - self.num_undecided_bytes();
        out.push_str(&self.held_back[..num_certain]);
        self.held_back.drain(..num_certain);
    }

    /// The text ends: what was held back is no stop string.
    pub(super) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held_back);
        self.held_back.clear();
    }

    /// Length of the longest end of the held back text with which a stop string begins.
    fn num_undecided_bytes(&self) -> usize {
        let held = &self.held_back;
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let earliest = (held.len() + 1).saturating_sub(longest);
        (earliest..held.len())
            .filter(|&start| held.is_char_boundary(start))
            .find(|&start| {
                self.strings
                    .iter()
                    .any(|stop| stop.starts_with(&held[start..]))
            })
            .map_or(0, |start| held.len() - start)
    }
}
