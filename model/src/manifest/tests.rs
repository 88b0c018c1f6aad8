use super::*;
use crate::random::preset;
use crate::testing::{random_folder, tiny_config};

/// A folder as it was written is accepted; the manifest does not list itself.
#[test]
fn an_untouched_folder_is_verified() {
    let dir = random_folder(tiny_config());
    assert_eq!(verify_folder(dir.path()).unwrap(), None);
    let manifest = Manifest::write(dir.path()).unwrap();
    assert_eq!(
        manifest.files.keys().collect::<Vec<_>>(),
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_eq!(verify_folder(dir.path()).unwrap(), Some(manifest.clone()));
    assert_eq!(
        Manifest::measure(dir.path()).unwrap().digest(),
        manifest.digest()
    );
    let file = dir.path().join(FILE_NAME);
    assert_eq!(
        file_sha256(&file).unwrap(),
        manifest.digest(),
        "the digest is the file's own: the server checks it against the file"
    );
}

/// One changed byte, a shorter file, a missing file and an unlisted weight file are each refused.
#[test]
fn a_changed_folder_is_refused() {
    let dir = random_folder(tiny_config());
    Manifest::write(dir.path()).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let message = || verify_folder(dir.path()).unwrap_err().to_string();

    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &changed).unwrap();
    assert!(
        message().contains("model.safetensors: expected sha256 "),
        "{}",
        message()
    );

    std::fs::write(&path, &bytes[1..]).unwrap();
    let found = format!(
        "expected {} bytes, found {} bytes",
        bytes.len(),
        bytes.len() - 1
    );
    assert!(message().ends_with(&found), "{}", message());

    std::fs::remove_file(&path).unwrap();
    assert!(message().ends_with("found no file"), "{}", message());

    std::fs::write(&path, &bytes).unwrap();
    verify_folder(dir.path()).unwrap();
    std::fs::write(dir.path().join("model-2.safetensors"), "").unwrap();
    assert!(message().contains("model-2.safetensors: expected only listed weight files"));
}

/// A manifest cannot name files outside its folder.
#[test]
fn names_stay_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../x", "/etc/passwd", "a/b", "..", ""] {
        let text = serde_json::json!({
            "format_version": 1, "files": { name: { "size": 0, "sha256": "" } },
        });
        std::fs::write(dir.path().join(FILE_NAME), text.to_string()).unwrap();
        assert!(Manifest::read(dir.path()).is_err(), "{name}");
    }
}

/// The digest is of the content: presets of other sizes give other digests.
#[test]
fn digests_tell_folders_apart() {
    let (a, b) = (random_folder(tiny_config()), {
        let config = preset("tiny").unwrap();
        random_folder(crate::config::LlamaConfig {
            num_hidden_layers: 1,
            ..config
        })
    });
    let digest = |dir: &tempfile::TempDir| Manifest::measure(dir.path()).unwrap().digest();
    assert_ne!(digest(&a), digest(&b));
    assert_eq!(digest(&a), digest(&random_folder(tiny_config())));
}
