//! Which folders a name can lead to, and which calls make a swap.

use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::{
    backend::fake::fake_backend,
    engine::{handle, scheduler::Limits},
};

fn root() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    fs::create_dir_all(root.join("star/epoch_1")).unwrap();
    fs::write(root.join("star/epoch_1/version"), "2").unwrap();
    (dir, root)
}

/// Names lead to folders below the root and nowhere else.
#[test]
fn names_stay_below_the_root() {
    let (dir, root) = root();
    fs::create_dir_all(dir.path().join("outside")).unwrap();
    symlink(dir.path().join("outside"), root.join("link")).unwrap();
    symlink(root.join("star"), root.join("inside")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    let resolved = |checkpoint: &str| name::resolve(&root, checkpoint);
    assert_eq!(resolved("star/epoch_1").unwrap(), root.join("star/epoch_1"));
    assert_eq!(
        resolved("inside/epoch_1").unwrap(),
        root.join("star/epoch_1")
    );
    for checkpoint in [
        "",
        "/etc",
        "..",
        "star/../..",
        "./star",
        "star//epoch_1",
        "star/",
        "a b",
        "link",
        "é",
    ] {
        let error = resolved(checkpoint).unwrap_err();
        assert!(
            matches!(error, ReloadError::Name { .. }),
            "{checkpoint:?}: {error}"
        );
    }
    for checkpoint in ["star/epoch_9", "file"] {
        let error = resolved(checkpoint).unwrap_err();
        assert!(
            matches!(error, ReloadError::Missing { .. }),
            "{checkpoint:?}: {error}"
        );
    }
}

fn swapper(root: Option<PathBuf>) -> Swapper {
    let limits = Limits {
        block_size: 4,
        num_blocks: 64,
        max_num_seqs: 4,
        max_num_batched_tokens: 16,
        max_draft_tokens: 0,
        prefix_cache: crate::request::PrefixCache::Use,
    };
    let backend = fake_backend(limits, None);
    let setup = handle::EngineSetup {
        runner: backend.runner,
        limits,
        max_context_tokens: 64,
        weights: backend.weights,
        max_num_commands: 8,
    };
    Swapper::new(root, backend.loader, handle::start(setup).unwrap().0)
}

fn request(checkpoint: &str, key: Option<&str>) -> ReloadRequest {
    ReloadRequest {
        checkpoint: checkpoint.to_owned(),
        expected_manifest_sha256: None,
        idempotency_key: key.map(str::to_owned),
    }
}

/// A swap tells both versions; the same call again makes no second one; the key of another is refused.
#[tokio::test]
async fn a_repeated_call_does_not_load_twice() {
    let (_dir, root) = root();
    let swapper = swapper(Some(root));
    let first = swapper
        .reload(request("star/epoch_1", Some("k")))
        .await
        .unwrap();
    assert_eq!((first.old.number, first.new.number), (1, 2));
    assert_eq!(
        (&*first.new.checkpoint, &*first.new.digest),
        ("star/epoch_1", "2")
    );
    assert_eq!(
        swapper
            .reload(request("star/epoch_1", Some("k")))
            .await
            .unwrap(),
        first
    );
    let error = swapper
        .reload(request("star", Some("k")))
        .await
        .unwrap_err();
    assert!(matches!(error, ReloadError::KeyReused { .. }), "{error}");
    let again = swapper.reload(request("star/epoch_1", None)).await.unwrap();
    assert_eq!(again.new.number, 3);
}

/// Whatever is wrong, the old weights stay, and the message has no path above the root.
#[tokio::test]
async fn a_failed_load_changes_nothing() {
    let (_dir, root) = root();
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    fs::write(root.join("other/version"), "mistral").unwrap();
    let swapper = swapper(Some(root.clone()));
    let empty = swapper.reload(request("empty", None)).await.unwrap_err();
    assert!(matches!(empty, ReloadError::Refused { .. }), "{empty}");
    assert!(
        !empty.to_string().contains(root.to_str().unwrap()),
        "{empty}"
    );
    let other = swapper.reload(request("other", None)).await.unwrap_err();
    assert!(
        matches!(other, ReloadError::OtherArchitecture { .. }),
        "{other}"
    );
    assert_eq!(swapper.engine.live_weights().number, 1);
}

/// Without a root every reload is refused.
#[tokio::test]
async fn without_a_root_reloads_are_refused() {
    let error = swapper(None).reload(request("a", None)).await.unwrap_err();
    assert_eq!(error, ReloadError::NoRoot);
}
