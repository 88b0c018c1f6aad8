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
    let found = newest_complete(dir.path(), &mut Progress::memory()).unwrap();
    assert_eq!(found, None);
    assert!(!half.exists());
}

/// Damaged folders are moved to a name that is free; one that cannot be looked at is left alone.
#[test]
fn only_damage_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let epoch = dir.path().join("epoch_1");
        std::fs::create_dir(&epoch).unwrap();
        std::fs::write(epoch.join("config.json"), "{").unwrap();
        let found = newest_complete(dir.path(), &mut Progress::memory()).unwrap();
        assert_eq!(found, None);
    }
    assert!(dir.path().join(".epoch_1.invalid-2/config.json").exists());

    // A link to itself cannot be opened, whoever asks.
    let epoch = dir.path().join("epoch_2");
    std::fs::create_dir(&epoch).unwrap();
    let weights = epoch.join("model.safetensors");
    std::fs::write(&weights, "weights").unwrap();
    model::manifest::Manifest::write(&epoch).unwrap();
    std::fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink(&weights, &weights).unwrap();
    let error = newest_complete(dir.path(), &mut Progress::memory()).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert!(epoch.exists());
}
