//! The name under which the prefix cache knows a full block: a hash of the weights version, of all
//! tokens before it and of its own. Two blocks with the same name hold the same keys and values, and no
//! block of one version can be found under another.

use sha2::{Digest as _, Sha256};

/// 128 bits of sha256; see the file's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockHash([u8; 16]);

impl BlockHash {
    /// Where every chain begins: nothing computed yet under these weights.
    pub(crate) fn root(weights_version: u64) -> Self {
        Self::of(&[], weights_version.to_le_bytes())
    }

    /// The block that holds `tokens` after the block with this name.
    pub(crate) fn child(self, tokens: &[u32]) -> Self {
        Self::of(&self.0, tokens.iter().flat_map(|token| token.to_le_bytes()))
    }

    fn of(parent: &[u8], content: impl IntoIterator<Item = u8>) -> Self {
        let mut bytes = parent.to_vec();
        bytes.extend(content);
        let digest = Sha256::digest(&bytes);
        let mut name = [0; 16];
        name.copy_from_slice(&digest[..16]);
        Self(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another version, another history or another token is another name.
    #[test]
    fn names_cover_version_history_and_tokens() {
        let names = [
            BlockHash::root(1),
            BlockHash::root(2),
            BlockHash::root(1).child(&[1, 2]),
            BlockHash::root(2).child(&[1, 2]),
            BlockHash::root(1).child(&[1, 3]),
            BlockHash::root(1).child(&[1, 2]).child(&[1, 2]),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{index}");
        }
        assert_eq!(BlockHash::root(1).child(&[1, 2]), names[2]);
    }
}
