//! Guesses of the next tokens by looking the last ones up in the text so far (prompt lookup decoding):
//! word problems and explanations copy numbers and phrases from their prompt. A guess costs nothing to
//! make, is verified by the model in the same step, and never changes what is generated.

/// Longest run of last tokens that is looked up; longer runs find fewer places, but better ones.
const MAX_MATCHED_TOKENS: usize = 4;
/// A single token occurs everywhere and says nothing about the next.
const MIN_MATCHED_TOKENS: usize = 2;

/// Appends to `drafts` the `num_wanted` tokens that followed the last occurrence of the text's end, if
/// there is one. Where the text itself ends before that, the guesses go on as if it repeated itself.
pub(super) fn look_up(tokens: &[u32], num_wanted: usize, drafts: &mut Vec<u32>) {
    if num_wanted == 0 {
        return;
    }
    for num_matched in (MIN_MATCHED_TOKENS..=MAX_MATCHED_TOKENS).rev() {
        let Some(start) = tokens.len().checked_sub(num_matched) else {
            continue;
        };
        let end = &tokens[start..];
        // The newest earlier occurrence: what was said last is most often said again.
        let found = (0..start)
            .rev()
            .find(|&at| &tokens[at..at + num_matched] == end);
        if let Some(at) = found {
            let period = start - at;
            for place in tokens.len()..tokens.len() + num_wanted {
                let source = place - period;
                let repeated = source.checked_sub(tokens.len());
                drafts.push(repeated.map_or_else(|| tokens[source], |index| drafts[index]));
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(tokens: &[u32], num_wanted: usize) -> Vec<u32> {
        let mut drafts = Vec::new();
        look_up(tokens, num_wanted, &mut drafts);
        drafts
    }

    /// The longest matching end counts, then the newest place.
    #[test]
    fn guesses_what_followed_before() {
        assert_eq!(guess(&[1, 2, 3, 4, 9, 1, 2, 3], 2), [4, 9]);
        assert_eq!(guess(&[1, 2, 5, 1, 2, 6, 1, 2], 1), [6]);
        assert_eq!(guess(&[7, 1, 2, 5, 8, 1, 2, 6, 7, 1, 2], 1), [5]);
    }

    /// Text that repeats itself is guessed to go on doing so.
    #[test]
    fn guesses_go_on_past_the_end() {
        assert_eq!(guess(&[1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
        assert_eq!(guess(&[7, 7, 7], 3), [7, 7, 7]);
    }

    /// No guess without an earlier occurrence.
    #[test]
    fn guesses_nothing_out_of_thin_air() {
        assert!(guess(&[1, 2, 3], 5).is_empty());
        assert!(guess(&[3], 5).is_empty());
        assert!(guess(&[1, 2, 3, 1, 2], 0).is_empty());
    }
}
