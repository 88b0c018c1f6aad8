use super::*;

/// The cache is where Hugging Face's own tools put it.
#[test]
fn environment_decides_the_cache() {
    let path = |text: &str| Some(PathBuf::from(text));
    let mut environment = HubEnvironment::read(|name| (name == "HOME").then(|| "/h".into()));
    assert_eq!(environment.cache_dir(), path("/h/.cache/huggingface/hub"));
    environment.hf_home = path("/hf");
    assert_eq!(environment.cache_dir(), path("/hf/hub"));
    environment.hf_hub_cache = path("/c");
    assert_eq!(environment.cache_dir(), path("/c"));
}

/// Models and datasets of one name lie beside each other.
#[test]
fn kinds_have_their_own_folders() {
    let folder = |kind| {
        let repository = Repository::parse(kind, "org/name@v1").unwrap();
        repository.folder(Path::new("/c"))
    };
    assert_eq!(folder(Kind::Model), Path::new("/c/models--org--name"));
    assert_eq!(folder(Kind::Dataset), Path::new("/c/datasets--org--name"));
}
