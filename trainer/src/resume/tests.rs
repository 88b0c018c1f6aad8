use super::*;

/// Settings are compared leaf by leaf, and the first difference is named with both values.
#[test]
fn differences_are_named() {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let difference = |a: &str, b: &str| first_difference("", &json(a), &json(b));
    assert_eq!(difference("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1}}"), None);
    assert_eq!(
        difference("{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"b\":1,\"c\":3}}"),
        Some(("a.c".into(), "2".into(), "3".into()))
    );
    // Another kind of window has another key: the whole value is shown.
    assert_eq!(
        difference("{\"w\":{\"examples\":8}}", "{\"w\":{\"tokens\":8}}"),
        Some((
            "w".into(),
            "{\"examples\":8}".into(),
            "{\"tokens\":8}".into()
        ))
    );
}

/// A folder is claimed once at a time.
#[test]
fn claim_is_exclusive() {
    let dir = tempfile::tempdir().unwrap();
    let first = OutFolder::claim(dir.path()).unwrap();
    assert!(matches!(
        OutFolder::claim(dir.path()),
        Err(TrainError::OutBusy { .. })
    ));
    drop(first);
    OutFolder::claim(dir.path()).unwrap();
}

/// Folders that a killed process left half written are removed and never found.
#[test]
fn half_folders_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join(".epoch_1.tmp-123");
    std::fs::create_dir(&half).unwrap();
    let found = newest_complete_epoch(dir.path(), &mut Progress::memory()).unwrap();
    assert_eq!(found, None);
    assert!(!half.exists());
}
