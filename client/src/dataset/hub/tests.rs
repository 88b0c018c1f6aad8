//! Names in a cache as Hugging Face's own programs lay it out.

use std::{fs, os::unix::fs::symlink};

use super::*;

/// A cache with `org/name`: files of the snapshot are links to blobs.
fn cache(files: &[&str]) -> (tempfile::TempDir, HubEnvironment) {
    let home = tempfile::tempdir().unwrap();
    let repository = home.path().join("hub/datasets--org--name");
    for folder in ["blobs", "refs/pr", "snapshots/abc123"] {
        fs::create_dir_all(repository.join(folder)).unwrap();
    }
    fs::write(repository.join("refs/main"), "abc123\n").unwrap();
    fs::write(repository.join("refs/pr/1"), "abc123").unwrap();
    fs::write(repository.join("refs/gone"), "def456").unwrap();
    for (index, file) in files.iter().enumerate() {
        let blob = repository.join(format!("blobs/{index}"));
        fs::write(
            &blob,
            format!("{{\"question\": \"{file}\", \"answer\": \"1\"}}"),
        )
        .unwrap();
        let link = repository.join("snapshots/abc123").join(file);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&blob, &link).unwrap();
    }
    let environment = HubEnvironment {
        hf_home: Some(home.path().to_path_buf()),
        ..HubEnvironment::default()
    };
    (home, environment)
}

fn found(name: &str, environment: &HubEnvironment) -> Result<String, String> {
    let path = locate(Path::new(name), environment).map_err(|error| error.to_string())?;
    let set = crate::dataset::read(&path, &crate::dataset::Keys::default()).unwrap();
    Ok(set.questions[0].question.clone())
}

/// A name finds the file of its configuration and split, at a branch or a commit.
#[test]
fn cached_splits_are_found() {
    let (_home, environment) = cache(&[
        "main/test-00000-of-00001.jsonl",
        "main/train-00000-of-00001.jsonl",
        "socratic/test-00000-of-00001.jsonl",
        "data/validation.jsonl",
        "test.json",
        "README.md",
        "main/testimony.jsonl",
    ]);
    for (name, file) in [
        ("org/name:main/test", "main/test-00000-of-00001.jsonl"),
        ("org/name@main:main/test", "main/test-00000-of-00001.jsonl"),
        (
            "org/name@abc123:main/train",
            "main/train-00000-of-00001.jsonl",
        ),
        (
            "org/name@pr/1:socratic/test",
            "socratic/test-00000-of-00001.jsonl",
        ),
        ("org/name:validation", "data/validation.jsonl"),
        ("org/name:test", "test.json"),
    ] {
        assert_eq!(found(name, &environment).as_deref(), Ok(file), "{name}");
    }
}

/// Parquet is taken before JSONL of the same split; a split in several files is not guessed at.
#[test]
fn one_file_is_one_split() {
    let (_home, environment) = cache(&[
        "main/test.jsonl",
        "main/test-00000-of-00001.parquet",
        "big/test-00000-of-00002.parquet",
        "big/test-00001-of-00002.parquet",
    ]);
    let path = locate(Path::new("org/name:main/test"), &environment).unwrap();
    assert!(path.ends_with("snapshots/abc123/main/test-00000-of-00001.parquet"));
    let error = found("org/name:big/test", &environment).unwrap_err();
    assert!(
        error.starts_with("org/name:big/test is 2 files in "),
        "{error}"
    );
}

/// A path is taken as it is, before any look into the cache, and so is what is no name.
#[test]
fn paths_win() {
    let (home, environment) = cache(&["main/test.jsonl"]);
    let path = home.path().join("a:b");
    fs::write(&path, "").unwrap();
    for path in [
        path.as_path(),
        Path::new("test.jsonl"),
        Path::new("/no/such:file"),
    ] {
        assert_eq!(locate(path, &environment).unwrap(), path);
    }
}

/// What is missing is said, and how to get it.
#[test]
fn missing_datasets_are_explained() {
    let (_home, environment) = cache(&["main/test.jsonl"]);
    for (name, parts) in [
        (
            "org/other:main/test",
            [
                "no such dataset",
                "(hf download --repo-type dataset org/other)",
            ],
        ),
        (
            "org/name@v2:test",
            ["no revision v2", "org/name --revision v2)"],
        ),
        (
            "org/name@gone:test",
            ["no revision gone", "--revision gone)"],
        ),
        (
            "org/name:main/train",
            ["no such split of this configuration", "hf download"],
        ),
        ("org/name:test", ["no such split;", "hf download"]),
    ] {
        let error = found(name, &environment).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{name}: {error}");
        }
    }
    let error = found("org/name", &HubEnvironment::default()).unwrap_err();
    assert!(error.contains("org/name:CONFIG/SPLIT"), "{error}");
    let error = found("org/name:test", &HubEnvironment::default()).unwrap_err();
    assert!(error.contains("HOME is not set"), "{error}");
}

/// A download asks for the split's files only.
#[cfg(feature = "hub")]
#[test]
fn only_the_split_is_downloaded() {
    let patterns = |name: &str| DatasetName::parse(name).unwrap().patterns();
    assert_eq!(
        patterns("openai/gsm8k:main/test")[..2],
        ["main/test.parquet", "main/test-0*.parquet"]
    );
    let all = patterns("org/name:test");
    assert!(all.contains(&"data/test-0*.parquet".to_owned()));
    assert!(all.contains(&"test.jsonl".to_owned()));
}
