//! The real runner and loader on tiny random models.

use std::{fs, path::PathBuf, sync::Arc};

use super::{fake::write_tiny_model, *};
use crate::{
    config::{KvCacheSize, ServerConfig},
    engine::handle::{self, EngineHandle},
    request::{EngineRequest, Event, Sampling},
};

fn model() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    write_tiny_model(&path, 1);
    (dir, path)
}

fn load(path: &Path, num_blocks: u32, max_num_batched_tokens: u32) -> Backend {
    let mut config = ServerConfig::for_model(path);
    config.kv_cache = KvCacheSize::Blocks(num_blocks.try_into().unwrap());
    config.block_size = 4;
    config.max_num_seqs = 6;
    config.max_num_batched_tokens = max_num_batched_tokens;
    load_llama(&config).unwrap()
}

fn start(backend: Backend) -> EngineHandle {
    let setup = handle::EngineSetup {
        runner: backend.runner,
        limits: backend.limits,
        max_context_tokens: backend.max_context_tokens,
        weights: backend.weights,
        max_num_commands: 64,
    };
    handle::start(setup).unwrap().0
}

fn prompts() -> Vec<Vec<u32>> {
    (1..=12_u32)
        .map(|length| {
            (0..length * 3)
                .map(|at| 6 + (at * 37 + length) % 250)
                .collect()
        })
        .collect()
}

fn submit(
    engine: &EngineHandle,
    prompt: &[u32],
    sampling: Sampling,
) -> tokio::sync::mpsc::Receiver<Event> {
    let request = EngineRequest {
        prompt_ids: prompt.to_vec(),
        max_tokens: 24,
        sampling,
        stop_token_ids: Arc::new([]),
        tokens_per_event: u32::MAX,
    };
    engine.submit(request).unwrap()
}

fn answer(mut events: tokio::sync::mpsc::Receiver<Event>) -> Vec<u32> {
    match events.blocking_recv() {
        Some(Event::Finished(finished)) => finished.tokens,
        other => panic!("expected an end, found {other:?}"),
    }
}

fn check_company_changes_nothing(sampling: Sampling) {
    let (_dir, path) = model();
    // Alone, in one chunk, with blocks to spare.
    let alone = start(load(&path, 64, 64));
    let solo: Vec<Vec<u32>> = prompts()
        .iter()
        .map(|prompt| answer(submit(&alone, prompt, sampling)))
        .collect();
    // Together, in small chunks, with so few blocks that sequences are preempted.
    let crowded = start(load(&path, 24, 7));
    let waiting: Vec<_> = prompts()
        .iter()
        .map(|prompt| submit(&crowded, prompt, sampling))
        .collect();
    for (events, solo) in waiting.into_iter().zip(&solo) {
        assert_eq!(answer(events), *solo);
    }
    assert!(
        crowded.gauges().load().num_preemptions_total > 0,
        "the test means to preempt"
    );
}

/// A greedy answer does not depend on neighbours, chunks or preemption.
#[test]
fn greedy_answers_do_not_depend_on_company() {
    check_company_changes_nothing(Sampling::GREEDY);
}

/// Nor does a sampled one, given its seed.
#[test]
fn sampled_answers_do_not_depend_on_company() {
    check_company_changes_nothing(Sampling {
        temperature: 1.0,
        top_p: 0.9,
        top_k: 40,
        seed: 11,
    });
}

/// The engine's greedy answer is what the plain dense network says, token by token.
#[test]
fn paged_greedy_is_dense_greedy() {
    use model::{folder::ModelFolder, llama::Llama, weights::Weights};
    let (_dir, path) = model();
    let config = ModelFolder::open(&path).unwrap().config;
    let weights = Weights::load(&path, &config, candle_core::DType::F32).unwrap();
    let llama = Llama::new(config, weights).unwrap();
    let prompt = &prompts()[4];
    let mut tokens = prompt.clone();
    for _ in 0..24 {
        let logits = llama
            .forward_dense(&tokens)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        tokens.push(crate::engine::sampler::argmax(logits.last().unwrap()).unwrap());
    }
    let engine = start(load(&path, 64, 64));
    assert_eq!(
        answer(submit(&engine, prompt, Sampling::GREEDY)),
        tokens[prompt.len()..]
    );
}

fn checkpoint(dir: &tempfile::TempDir, seed: u64) -> PathBuf {
    let path = dir.path().join(format!("epoch_{seed}"));
    write_tiny_model(&path, seed);
    path
}

/// Swapped-in weights answer exactly as a server that was started with them; swapping the first ones
/// back gives the first answers back.
#[test]
fn swapped_weights_answer_as_if_started_with_them() {
    let (dir, path) = model();
    let other = checkpoint(&dir, 2);
    let prompt = &prompts()[3];
    let fresh = answer(submit(
        &start(load(&other, 64, 64)),
        prompt,
        Sampling::GREEDY,
    ));
    let backend = load(&path, 64, 64);
    let loader = Arc::clone(&backend.loader);
    let engine = start(backend);
    let first = answer(submit(&engine, prompt, Sampling::GREEDY));
    for (folder, expected) in [(&other, &fresh), (&path, &first)] {
        let loaded = loader.load(folder, None).unwrap();
        let live = engine
            .swap(loaded.weights, loaded.digest, "x".to_owned())
            .unwrap();
        live.blocking_recv().unwrap();
        assert_eq!(answer(submit(&engine, prompt, Sampling::GREEDY)), *expected);
    }
    assert_ne!(first, fresh);
}

/// A folder that is not right is refused with a sentence, whatever is wrong with it.
#[test]
fn wrong_checkpoints_are_refused() {
    let (dir, path) = model();
    let loader = load(&path, 8, 8).loader;
    let refused = |folder: &Path, sha256: Option<&str>| loader.load(folder, sha256).unwrap_err();

    let folder = checkpoint(&dir, 3);
    let error = refused(&folder, Some("00"));
    assert!(
        matches!(&error, LoadError::Manifest(why) if why.contains("no manifest")),
        "{error:?}"
    );
    model::manifest::Manifest::write(&folder).unwrap();
    let sha256 = model::manifest::file_sha256(&folder.join("manifest.json")).unwrap();
    loader.load(&folder, Some(&sha256)).unwrap();
    let error = refused(&folder, Some("00"));
    assert!(
        matches!(&error, LoadError::Manifest(why) if why.contains(&sha256)),
        "{error:?}"
    );

    let weights = folder.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, &bytes).unwrap();
    assert!(matches!(refused(&folder, None), LoadError::Manifest(_)));
    fs::remove_file(folder.join("manifest.json")).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 8]).unwrap();
    assert!(matches!(refused(&folder, None), LoadError::Unusable(_)));

    let folder = checkpoint(&dir, 4);
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let other = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    assert_ne!(config, other);
    fs::write(folder.join("config.json"), other).unwrap();
    let error = refused(&folder, None);
    assert!(
        matches!(&error, LoadError::OtherArchitecture(why)
            if why.contains("num_hidden_layers: expected 2, found 3")),
        "{error:?}"
    );

    let folder = checkpoint(&dir, 5);
    let tokenizer = fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer + " ").unwrap();
    assert!(matches!(
        refused(&folder, None),
        LoadError::OtherArchitecture(_)
    ));
    assert!(matches!(
        refused(&dir.path().join("nowhere"), None),
        LoadError::Unusable(_)
    ));
}

/// Many rows are drawn from in parallel; each gets what it gets alone.
#[test]
fn rows_are_drawn_from_independently() {
    use crate::engine::{batch::SampleRow, sampler::mix};
    let (num_rows, vocab_size) = (300_u32, 256);
    let logit = |index: u64| (mix(index) % 1000) as f32 / 100.0;
    let logits: Vec<f32> = (0..u64::from(num_rows) * vocab_size).map(logit).collect();
    let row = |row: u32| SampleRow {
        row,
        sampling: Sampling {
            temperature: 1.0,
            top_p: 0.95,
            top_k: 0,
            seed: u64::from(row),
        },
        position: u64::from(row % 7),
    };
    let rows: Vec<SampleRow> = (0..num_rows).map(row).collect();
    let together = llama::draw(&logits, &rows);
    for (index, own) in logits.chunks(vocab_size as usize).enumerate() {
        assert_eq!(llama::draw(own, &rows[index..=index]), [together[index]]);
    }
}

/// By default a small model has room for all sequences of a step at a useful length.
#[test]
fn the_default_cache_holds_many_sequences() {
    let (_dir, path) = model();
    let backend = load_llama(&ServerConfig::for_model(&path)).unwrap();
    let num_slots = backend.limits.num_blocks as usize * backend.limits.block_size;
    assert_eq!(num_slots, 256 * 256);
    assert_eq!(backend.max_context_tokens, 256);
}
