use super::*;

fn write_folder(out: &Path, name: &str) -> PathBuf {
    let dir = out.join(name);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("config.json"), name).unwrap();
    Manifest::write(&dir).unwrap();
    dir
}

/// After an end between the two renames the new model takes its place where it is whole, else the
/// old one; leftovers are removed, and a model in place stays.
#[test]
fn model_is_restored_after_half_a_save() {
    let restored = |in_place: &[&str], damaged: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        for name in in_place {
            write_folder(out.path(), name);
        }
        for name in damaged {
            let dir = write_folder(out.path(), name);
            std::fs::write(dir.join("config.json"), "half").unwrap();
        }
        remove_half_models(out.path()).unwrap();
        let names = std::fs::read_dir(out.path()).unwrap().count();
        let text = std::fs::read_to_string(out.path().join("model/config.json"));
        (names, text.ok())
    };
    let (new, old) = (".model.tmp-7", ".model.old-7");
    assert_eq!(restored(&[new, old], &[]), (1, Some(new.to_string())));
    assert_eq!(restored(&[old], &[new]), (1, Some(old.to_string())));
    assert_eq!(restored(&["model", new], &[old]), (1, Some("model".into())));
    assert_eq!(restored(&[], &[new]), (0, None));
    // The only model there is is not thrown away, damaged or not.
    assert_eq!(restored(&[], &[old]), (1, None));
}
