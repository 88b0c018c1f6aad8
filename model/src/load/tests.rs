use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::save::save_checkpoint;
use crate::testing::{random_folder, tiny_config};

fn load(dir: &TempDir) -> Result<Weights> {
    let config = LlamaConfig::load(dir.path()).unwrap();
    Weights::load(dir.path(), &config, DType::F32)
}

fn message(dir: &TempDir) -> String {
    let message = load(dir).unwrap_err().to_string();
    message.replace(dir.path().to_str().unwrap(), "DIR")
}

/// A safetensors file as its header and data.
fn parts(dir: &TempDir) -> (Value, Vec<u8>) {
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (
        serde_json::from_slice(&bytes[8..8 + length]).unwrap(),
        bytes[8 + length..].to_vec(),
    )
}

fn write_file(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    let bytes = [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat();
    std::fs::write(path, bytes).unwrap();
}

fn write_parts(dir: &TempDir, header: &Value, data: &[u8]) {
    write_file(&dir.path().join("model.safetensors"), header, data);
}

fn all_values(weights: &Weights) -> Vec<Vec<f32>> {
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    weights
        .named()
        .into_iter()
        .map(|(_, tensor)| values(tensor))
        .collect()
}

/// What is saved is loaded: same values, same digest, in every element type; the companion files
/// come along.
#[test]
fn saving_and_loading_is_the_identity() {
    let source = random_folder(tiny_config());
    let weights = load(&source).unwrap();
    for dtype in StoredDtype::ALL {
        let config = LlamaConfig {
            dtype,
            ..LlamaConfig::load(source.path()).unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        save_checkpoint(dir.path(), &config, &weights, Some(source.path())).unwrap();
        let once = load(&dir).unwrap();
        if dtype == StoredDtype::F32 {
            assert_eq!(all_values(&once), all_values(&weights));
            assert_eq!(once.digest().unwrap(), weights.digest().unwrap());
        }
        let again = tempfile::tempdir().unwrap();
        save_checkpoint(again.path(), &config, &once, Some(dir.path())).unwrap();
        assert_eq!(
            load(&again).unwrap().digest().unwrap(),
            once.digest().unwrap()
        );
        for name in [
            "tokenizer.json",
            "tokenizer_config.json",
            "generation_config.json",
        ] {
            let bytes = |dir: &TempDir| std::fs::read(dir.path().join(name)).unwrap();
            assert_eq!(bytes(&again), bytes(&source), "{name}");
        }
    }
}

/// The digest of loaded weights is that of the same weights built in memory, whatever they are
/// converted to; one changed value changes it.
#[test]
fn digests_are_of_values() {
    let dir = random_folder(tiny_config());
    let config = LlamaConfig::load(dir.path()).unwrap();
    let loaded = load(&dir).unwrap();
    let digest = loaded.digest().unwrap();
    let in_bf16 = Weights::load(dir.path(), &config, DType::BF16).unwrap();
    assert_eq!(in_bf16.embed.dtype(), DType::BF16);
    assert_eq!(in_bf16.digest().unwrap(), digest);
    let tensors = loaded.named().into_iter().map(|(_, tensor)| Ok(tensor));
    let rebuilt = Weights::from_tensors(&config, tensors).unwrap();
    assert_eq!(rebuilt.digest().unwrap(), digest);

    let (header, mut data) = parts(&dir);
    data[0] ^= 1;
    write_parts(&dir, &header, &data);
    assert_ne!(load(&dir).unwrap().digest().unwrap(), digest);
}

/// A missing, an additional and a misshapen tensor are refused by name.
#[test]
fn the_tensor_set_is_exact() {
    let dir = random_folder(tiny_config());
    let (header, data) = parts(&dir);
    let name = "model.layers.1.mlp.up_proj.weight";

    let mut renamed = header.clone();
    let entry = renamed.as_object_mut().unwrap().remove(name).unwrap();
    renamed["model.layers.1.mlp.up_proj.bias"] = entry;
    write_parts(&dir, &renamed, &data);
    assert_eq!(
        message(&dir),
        format!(
            "DIR/model.safetensors: tensor {name}: expected shape [24, 16], found no such tensor"
        )
    );

    let mut additional = header.clone();
    let end = data.len();
    additional["extra"] = json!({ "dtype": "F32", "shape": [1], "data_offsets": [end, end + 4] });
    write_parts(&dir, &additional, &[&data[..], &[0; 4]].concat());
    assert_eq!(
        message(&dir),
        "DIR/model.safetensors: tensor extra: expected only the tensors config.json asks for (20), \
         found one more, of shape [1]"
    );

    let mut misshapen = header.clone();
    misshapen[name]["shape"] = json!([16, 24]);
    write_parts(&dir, &misshapen, &data);
    assert_eq!(
        message(&dir),
        format!(
            "DIR/model.safetensors: tensor {name}: expected shape [24, 16] (by config.json), found [16, 24]"
        )
    );

    let mut other_type = header;
    other_type[name]["dtype"] = json!("I32");
    write_parts(&dir, &other_type, &data);
    assert_eq!(
        message(&dir),
        format!("DIR/model.safetensors: tensor {name}: expected BF16, F16 or F32, found I32")
    );
}

/// A value that is not finite is refused with its place.
#[test]
fn values_are_finite() {
    let dir = random_folder(tiny_config());
    let (header, mut data) = parts(&dir);
    let start = header["model.norm.weight"]["data_offsets"][0]
        .as_u64()
        .unwrap() as usize;
    data[start + 8..start + 12].copy_from_slice(&f32::NAN.to_le_bytes());
    write_parts(&dir, &header, &data);
    assert_eq!(
        message(&dir),
        "DIR/model.safetensors: tensor model.norm.weight: expected finite values, \
         found NaN at index 2"
    );
}

/// Neither a cut nor a lengthened file, a foreign one or a hostile header is read further.
#[test]
fn damaged_files_are_refused() {
    let dir = random_folder(tiny_config());
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        assert!(message(&dir).contains(expected), "{}", message(&dir));
    };
    check(
        &bytes[..bytes.len() - 4],
        "incomplete or damaged: expected ",
    );
    check(
        &[&bytes[..], &[0; 4]].concat(),
        "incomplete or damaged: expected ",
    );
    check(&bytes[..100], "not a safetensors file: only 100 bytes");
    check(b"", "not a safetensors file: only 0 bytes");
    check(
        &[0xFF; 64],
        "not a safetensors file: a header of 18446744073709551615 bytes",
    );
    let (mut header, data) = parts_of(&bytes);
    header["model.norm.weight"]["data_offsets"] = json!([0, 64]);
    write_parts(&dir, &header, &data);
    assert!(message(&dir).contains("broken header"), "{}", message(&dir));
}

fn parts_of(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (
        serde_json::from_slice(&bytes[8..8 + length]).unwrap(),
        bytes[8 + length..].to_vec(),
    )
}

/// A head stored beside a tied embedding must be the embedding.
#[test]
fn a_stored_tied_head_is_compared() {
    let dir = random_folder(tiny_config());
    let (mut header, data) = parts(&dir);
    let range = header[EMBED]["data_offsets"].clone();
    let (start, end) = (
        range[0].as_u64().unwrap() as usize,
        range[1].as_u64().unwrap() as usize,
    );
    header[LM_HEAD] = header[EMBED].clone();
    header[LM_HEAD]["data_offsets"] = json!([data.len(), data.len() + end - start]);
    let mut with_head = [&data[..], &data[start..end]].concat();
    write_parts(&dir, &header, &with_head);
    assert!(load(&dir).unwrap().lm_head.is_none());

    *with_head.last_mut().unwrap() ^= 1;
    write_parts(&dir, &header, &with_head);
    assert_eq!(
        message(&dir),
        "DIR/model.safetensors: tensor lm_head.weight: expected the same values as \
         model.embed_tokens.weight (tie_word_embeddings is true), found other values"
    );
}

/// Several files and their index make the same weights as one; an index that lies is refused.
#[test]
fn shards_are_joined() {
    let dir = random_folder(tiny_config());
    let digest = load(&dir).unwrap().digest().unwrap();
    let weights = load(&dir).unwrap().named();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (shard, tensors) in weights.chunks(8).enumerate() {
        let file = format!("model-{shard}.safetensors");
        let (mut header, mut data) = (json!({}), Vec::new());
        for (name, tensor) in tensors {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            let start = data.len();
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            header[name] = json!({
                "dtype": "F32", "shape": tensor.dims(), "data_offsets": [start, data.len()],
            });
            map.insert(name.clone(), json!(file));
        }
        write_file(&dir.path().join(&file), &header, &data);
    }
    let write_index = |map: &serde_json::Map<String, Value>| {
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(path, json!({ "weight_map": map }).to_string()).unwrap();
    };
    write_index(&map);
    assert_eq!(load(&dir).unwrap().digest().unwrap(), digest);

    let mut wrong = map.clone();
    wrong[EMBED] = json!("model-1.safetensors");
    write_index(&wrong);
    let expected = "tensor model.embed_tokens.weight: expected a tensor in model-1.safetensors, \
                    found in DIR/model-0.safetensors";
    assert!(message(&dir).ends_with(expected), "{}", message(&dir));

    let mut short = map.clone();
    short.remove(EMBED);
    write_index(&short);
    assert!(
        message(&dir).contains("expected an entry in weight_map"),
        "{}",
        message(&dir)
    );

    let mut outside = map.clone();
    outside[EMBED] = json!("../model.safetensors");
    write_index(&outside);
    assert!(message(&dir).contains("expected names of files in the folder"));

    write_index(&map);
    std::fs::remove_file(dir.path().join("model-2.safetensors")).unwrap();
    assert!(
        message(&dir).contains("DIR/model-2.safetensors: cannot open"),
        "{}",
        message(&dir)
    );
}

/// Formats that can carry code are not read, and it is said what to do.
#[test]
fn other_formats_are_explained() {
    let dir = random_folder(tiny_config());
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(
        message(&dir).contains("has neither model.safetensors nor"),
        "{}",
        message(&dir)
    );
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(message(&dir).contains("convert them with transformers' save_pretrained"));
}
