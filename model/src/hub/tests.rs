use super::*;

fn cache() -> (tempfile::TempDir, HubEnvironment) {
    let home = tempfile::tempdir().unwrap();
    let repository = home.path().join("hub/models--org--name");
    std::fs::create_dir_all(repository.join("snapshots/abc123")).unwrap();
    std::fs::create_dir_all(repository.join("refs/pr")).unwrap();
    std::fs::write(repository.join("refs/main"), "abc123\n").unwrap();
    std::fs::write(repository.join("refs/pr/1"), "abc123").unwrap();
    std::fs::write(repository.join("refs/gone"), "def456").unwrap();
    let environment = HubEnvironment {
        hf_home: Some(home.path().to_path_buf()),
        ..HubEnvironment::default()
    };
    (home, environment)
}

/// A name finds the newest snapshot, a branch or a commit its own.
#[test]
fn cached_models_are_found() {
    let (home, environment) = cache();
    let snapshot = home.path().join("hub/models--org--name/snapshots/abc123");
    for model in [
        "org/name",
        "org/name@main",
        "org/name@abc123",
        "org/name@pr/1",
    ] {
        assert_eq!(resolve(model, &environment).unwrap(), snapshot, "{model}");
    }
}

/// A folder is taken as it is, before any look into the cache.
#[test]
fn folders_win() {
    let (home, environment) = cache();
    let path = home.path().to_str().unwrap();
    assert_eq!(resolve(path, &environment).unwrap(), home.path());
}

/// What is missing is said, and how to get it.
#[test]
fn missing_models_are_explained() {
    let (_home, environment) = cache();
    let message = |model: &str| resolve(model, &environment).unwrap_err().to_string();
    assert!(
        message("org/other").ends_with("hf download org/other)"),
        "{}",
        message("org/other")
    );
    assert!(message("org/name@v2").contains("has no revision v2"));
    assert!(message("org/name@gone").contains("has no revision gone"));
    assert_eq!(
        message("/no/such/folder"),
        "/no/such/folder: does not exist"
    );
    let nothing = resolve("org/name", &HubEnvironment::default())
        .unwrap_err()
        .to_string();
    assert!(nothing.contains("HOME is not set"), "{nothing}");
}

/// A name cannot walk out of the cache.
#[test]
fn names_are_plain() {
    let (_home, environment) = cache();
    for model in [
        "../name",
        "org/..",
        "org/name@../../x",
        "org/name@/etc",
        "org/na me",
        "org//x",
    ] {
        let message = resolve(model, &environment).unwrap_err().to_string();
        assert!(message.ends_with(": does not exist"), "{model}: {message}");
    }
}
