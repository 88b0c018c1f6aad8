//! Where a workload's prompts come from: a file, or random token ids.

use std::path::Path;

use serde::Deserialize;

use crate::{
    connection::LoadPrompt,
    error::{ClientError, file_error},
    generate::splitmix64,
};

/// The prompts of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptSource {
    /// In the file's order; every repetition asks the same.
    List {
        path: String,
        prompts: Vec<LoadPrompt>,
    },
    /// Random ids, others in every repetition; the first `num_shared` of a prompt are the same in
    /// all prompts of a repetition.
    Random {
        num_tokens: usize,
        num_shared: usize,
    },
}

/// A line of a prompt file: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    token_ids: Option<Vec<u32>>,
}

/// Reads a prompt file: JSONL, each line an object with `text` or `token_ids`.
pub fn read_prompts(path: &Path) -> Result<PromptSource, ClientError> {
    let text = std::fs::read_to_string(path).map_err(file_error("read", path))?;
    let mut prompts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |problem: String| ClientError::BadFile {
            path: path.to_owned(),
            problem: format!("line {}: {problem}", index + 1),
        };
        let line: Line = serde_json::from_str(line).map_err(|cause| wrong(cause.to_string()))?;
        prompts.push(match (line.text, line.token_ids) {
            (Some(text), None) => LoadPrompt::Text(text),
            (None, Some(ids)) if !ids.is_empty() => LoadPrompt::TokenIds(ids),
            _ => return Err(wrong("expected `text` or `token_ids`".to_owned())),
        });
    }
    Ok(PromptSource::List {
        path: path.display().to_string(),
        prompts,
    })
}

impl PromptSource {
    /// The first `count` prompts of a repetition (`stream`).
    pub(super) fn take(
        &self,
        count: usize,
        seed: u64,
        stream: u64,
        vocab_size: u32,
    ) -> Vec<LoadPrompt> {
        let (num_tokens, num_shared) = match self {
            Self::List { prompts, .. } => return prompts.iter().take(count).cloned().collect(),
            Self::Random {
                num_tokens,
                num_shared,
            } => (*num_tokens, *num_shared),
        };
        let base = splitmix64(seed ^ splitmix64(stream));
        let id = |prompt: u64, place: usize| {
            let draw = splitmix64(splitmix64(base ^ prompt) ^ place as u64);
            // The high half of a product maps a draw onto 0..vocab_size without a bias that matters.
            ((u128::from(draw) * u128::from(vocab_size)) >> 64) as u32
        };
        (1..=count as u64)
            .map(|prompt| {
                let ids = (0..num_shared)
                    .map(|place| id(0, place))
                    .chain((num_shared..num_tokens).map(|place| id(prompt, place)));
                LoadPrompt::TokenIds(ids.collect())
            })
            .collect()
    }

    /// For the warm-up: about as long as the prompts.
    pub(super) fn typical_num_tokens(&self) -> usize {
        match self {
            Self::Random { num_tokens, .. } => *num_tokens,
            Self::List { prompts, .. } => match prompts.first() {
                Some(LoadPrompt::TokenIds(ids)) => ids.len(),
                // English text has about four bytes a token.
                Some(LoadPrompt::Text(text)) => (text.len() / 4).max(1),
                None => 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both kinds of line are read; a line that is neither is named.
    #[test]
    fn a_prompt_file_holds_texts_and_ids() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "{\"text\": \"Hi\"}\n\n{\"token_ids\": [1, 2]}\n",
        )
        .unwrap();
        let PromptSource::List { prompts, .. } = read_prompts(file.path()).unwrap() else {
            unreachable!()
        };
        let expected = [
            LoadPrompt::Text("Hi".to_owned()),
            LoadPrompt::TokenIds(vec![1, 2]),
        ];
        assert_eq!(prompts, expected);
        for wrong in [
            "{}",
            "{\"text\": \"a\", \"token_ids\": [1]}",
            "[1]",
            "{\"token_ids\": []}",
        ] {
            std::fs::write(file.path(), format!("{{\"text\": \"Hi\"}}\n{wrong}\n")).unwrap();
            let error = read_prompts(file.path()).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    /// Random prompts share their head within a repetition, differ behind it, and differ altogether
    /// between repetitions.
    #[test]
    fn random_prompts_share_a_head() {
        let source = PromptSource::Random {
            num_tokens: 40,
            num_shared: 30,
        };
        let ids = |prompts: Vec<LoadPrompt>| -> Vec<Vec<u32>> {
            let each = prompts.into_iter().map(|prompt| match prompt {
                LoadPrompt::TokenIds(ids) => ids,
                LoadPrompt::Text(_) => unreachable!(),
            });
            each.collect()
        };
        let first = ids(source.take(2, 1, 0, 100));
        assert_eq!(first, ids(source.take(2, 1, 0, 100)));
        assert_eq!(first[0][..30], first[1][..30]);
        assert_ne!(first[0][30..], first[1][30..]);
        assert_ne!(first[0][..30], ids(source.take(1, 1, 1, 100))[0][..30]);
        assert!(first.iter().flatten().all(|id| *id < 100));
        assert!(first.iter().all(|ids| ids.len() == 40));
    }
}
