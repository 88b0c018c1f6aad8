use candle_core::DType;

use super::*;
use crate::folder::ModelFolder;
use crate::testing::{random_folder, tiny_config};
use crate::tokenizer::{ModelTokenizer, Prompt};
use crate::weights::Weights;

fn digest(dir: &Path) -> String {
    let config = LlamaConfig::load(dir).unwrap();
    Weights::load(dir, &config, DType::F32)
        .unwrap()
        .digest()
        .unwrap()
}

/// Presets are valid and of the size they say.
#[test]
fn presets_are_what_they_say() {
    let sizes = [
        5_400_000,
        5_470_000,
        109_000_000,
        983_000_000,
        3_213_000_000,
        8_300_000,
    ];
    for ((name, _), size) in PRESETS.into_iter().zip(sizes) {
        let config = preset(name).unwrap();
        config.check(Path::new(name)).unwrap();
        let found = config.num_parameters();
        assert!(found.abs_diff(size) < size / 20, "{name}: {found}");
    }
    assert_eq!(preset("unknown"), None);
}

/// The folder loads, its tokenizer works, its special ids are the tokenizer's.
#[test]
fn a_random_folder_is_a_model_folder() {
    let dir = random_folder(tiny_config());
    let folder = ModelFolder::open(dir.path()).unwrap();
    assert_eq!(folder.generation.eos_token_ids, [1, 2]);
    assert!(
        folder.unknown_config_keys.is_empty(),
        "{:?}",
        folder.unknown_config_keys
    );
    Weights::load(dir.path(), &folder.config, DType::F32).unwrap();
    let tokenizer = ModelTokenizer::load(dir.path()).unwrap();
    let ids = tokenizer.encode_prompt(&Prompt::Text("Hé".into())).unwrap();
    assert_eq!(ids.len(), 4);
    assert_eq!((ids[0], tokenizer.bos_id()), (0, Some(0)));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Hé");
}

/// Same seed, same weights; another seed, others.
#[test]
fn the_seed_decides() {
    let first = random_folder(tiny_config());
    let second = random_folder(tiny_config());
    assert_eq!(digest(first.path()), digest(second.path()));
    let spec = RandomModelSpec {
        config: tiny_config(),
        seed: 8,
        tokenizer_from: None,
    };
    random_model(&spec, second.path()).unwrap();
    assert_ne!(digest(first.path()), digest(second.path()));
}

/// The numbers have the mean, deviation and reach that are stated.
#[test]
fn values_are_normal_enough() {
    let values: Vec<f64> = (0..100_000).map(|i| f64::from(normal(3, i))).collect();
    let mean = values.iter().sum::<f64>() / 1e5;
    let variance = values.iter().map(|v| v * v).sum::<f64>() / 1e5;
    assert!(
        mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02,
        "{mean} {variance}"
    );
    assert!(values.iter().all(|v| v.abs() < 3.5));
}

/// A tokenizer with more tokens than the model has rows is refused.
#[test]
fn tokenizers_must_fit() {
    let source = random_folder(tiny_config());
    let target = tempfile::tempdir().unwrap();
    let spec = |vocab_size| RandomModelSpec {
        config: LlamaConfig {
            vocab_size,
            ..tiny_config()
        },
        seed: 1,
        tokenizer_from: Some(source.path().to_path_buf()),
    };
    random_model(&spec(262), target.path()).unwrap();
    ModelTokenizer::load(target.path()).unwrap();
    let error = random_model(&spec(261), target.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("expected ids below vocab_size (261), found 261"),
        "{error}"
    );
}
