//! Where the tests find GSM8K: in `../shared/gsm8k` beside the workspace, or where
//! `STAR_SHARED_DIR` points.

use data::question::{QuestionSet, read_questions};
use std::path::PathBuf;

/// Train and test set, or a loud skip.
pub(crate) fn gsm8k() -> Option<[QuestionSet; 2]> {
    #[expect(
        clippy::disallowed_methods,
        reason = "where test data lies is the tests' own setting"
    )]
    let shared = std::env::var("STAR_SHARED_DIR").map_or_else(
        |_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let folder = shared.join("gsm8k");
    if !folder.exists() {
        eprintln!("SKIPPED: no GSM8K in {}", folder.display());
        return None;
    }
    Some(
        ["train.jsonl", "test.jsonl"]
            .map(|name| read_questions(&folder.join(name)).expect("GSM8K reads")),
    )
}
