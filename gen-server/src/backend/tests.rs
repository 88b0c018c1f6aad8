//! The real runner and loader on tiny random models.

use std::{fs, path::PathBuf, sync::Arc};

use super::{fake::write_tiny_model, *};
use crate::{
    config::{KvCacheSize, ServerConfig},
    engine::handle::{self, EngineHandle},
    request::{Counts, EngineRequest, Event, PrefixCache, Sampling, Stopping, Task, TokenLogprobs},
};

fn model() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    write_tiny_model(&path, 1);
    (dir, path)
}

/// A server's settings with room for everything, which tests then take away.
fn spacious(path: &Path) -> ServerConfig {
    let mut config = ServerConfig::for_model(path);
    config.kv_cache = KvCacheSize::Blocks(128.try_into().unwrap());
    config.block_size = 4;
    config.max_num_seqs = 6;
    config.max_num_batched_tokens = 256;
    config
}

fn start(config: &ServerConfig) -> EngineHandle {
    start_backend(load(config).unwrap())
}

pub(super) fn start_backend(backend: Backend) -> EngineHandle {
    let setup = handle::EngineSetup {
        runner: backend.runner,
        limits: backend.limits,
        max_context_tokens: backend.max_context_tokens,
        weights: backend.weights,
        max_num_commands: 128,
    };
    handle::start(setup).unwrap().0
}

/// Of 3 to 36 tokens; the second half of each repeats the first, so that speculation finds something.
fn prompts() -> Vec<Vec<u32>> {
    (1..=12_u32)
        .map(|length| {
            (0..length * 3)
                .map(|at| 6 + (at % (length * 3 / 2) * 37 + length) % 250)
                .collect()
        })
        .collect()
}

pub(super) fn request(prompt: &[u32], task: Task, sampling: &Sampling) -> EngineRequest {
    EngineRequest {
        prompt_ids: prompt.to_vec(),
        task,
        sampling: Arc::new(sampling.clone()),
        stopping: Arc::new(Stopping::default()),
        num_candidates: Some(3),
        priority: 0,
        prefix_cache: PrefixCache::Use,
        tokens_per_event: u32::MAX,
    }
}

fn submit(
    engine: &EngineHandle,
    prompt: &[u32],
    sampling: &Sampling,
) -> tokio::sync::mpsc::Receiver<Event> {
    let task = Task::Generate { max_tokens: 24 };
    engine.submit(request(prompt, task, sampling)).unwrap()
}

/// Tokens and log probabilities, compared to the bit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<TokenLogprobs>,
}

fn ended(mut events: tokio::sync::mpsc::Receiver<Event>) -> (Answer, Counts) {
    match events.blocking_recv() {
        Some(Event::Finished(finished)) => {
            let (tokens, logprobs) = (finished.tokens, finished.logprobs);
            (Answer { tokens, logprobs }, finished.counts)
        }
        other => panic!("expected an end, found {other:?}"),
    }
}

pub(super) fn answer(events: tokio::sync::mpsc::Receiver<Event>) -> Answer {
    ended(events).0
}

/// What each prompt gets alone: in one chunk, with its keys and values side by side in one block.
fn solo_answers(path: &Path, sampling: &Sampling) -> Vec<Answer> {
    let mut config = spacious(path);
    config.kv_cache = KvCacheSize::Blocks(2.try_into().unwrap());
    config.block_size = 256;
    config.prefix_cache = crate::PrefixCacheMode::Off;
    let alone = start(&config);
    prompts()
        .iter()
        .map(|prompt| answer(submit(&alone, prompt, sampling)))
        .collect()
}

/// Returns how many tokens speculation proposed.
fn check_company_changes_nothing(sampling: &Sampling) -> u64 {
    let (_dir, path) = model();
    let solo = solo_answers(&path, sampling);
    let mut num_drafts = 0;
    for speculative_tokens in [0, 4] {
        // Together, in small chunks, with so few blocks that sequences are preempted.
        let mut config = spacious(&path);
        config.kv_cache = KvCacheSize::Blocks(24.try_into().unwrap());
        config.max_num_batched_tokens = 7;
        config.speculative_tokens = speculative_tokens;
        let crowded = start(&config);
        let prompts = prompts();
        let waiting = prompts
            .iter()
            .map(|prompt| submit(&crowded, prompt, sampling));
        let waiting: Vec<_> = waiting.collect();
        for (events, solo) in waiting.into_iter().zip(&solo) {
            assert_eq!(answer(events), *solo);
        }
        let num_preemptions = crowded.gauges().load().num_preemptions_total;
        assert!(num_preemptions > 0, "the test means to preempt");
        num_drafts = crowded.gauges().totals().num_draft_tokens;
        assert!(num_drafts == 0 || speculative_tokens > 0);
    }
    num_drafts
}

/// A greedy answer and its log probabilities have the same bits alone and in one block, and in
/// company, in chunks, after preemption and after speculation.
#[test]
fn greedy_answers_do_not_depend_on_company() {
    let num_drafts = check_company_changes_nothing(&Sampling::GREEDY);
    assert!(num_drafts > 0, "the test means to speculate");
}

/// Nor does a sampled one, given its seed.
#[test]
fn sampled_answers_do_not_depend_on_company() {
    let varied = Sampling {
        temperature: 1.0,
        top_p: 0.9,
        top_k: 40,
        repetition_penalty: 1.1,
        presence_penalty: 0.2,
        seed: 11,
        ..Sampling::GREEDY
    };
    check_company_changes_nothing(&varied);
    // Close to greedy, which repeats itself, so that there is something to guess.
    let nearly_greedy = Sampling {
        temperature: 0.02,
        repetition_penalty: 1.01,
        presence_penalty: 0.001,
        ..varied
    };
    let num_drafts = check_company_changes_nothing(&nearly_greedy);
    assert!(num_drafts > 0, "the test means to speculate");
}

/// An answer after a prefix hit has the same bits as one that computed everything.
#[test]
fn a_prefix_hit_changes_nothing() {
    let (_dir, path) = model();
    let solo = solo_answers(&path, &Sampling::GREEDY);
    let engine = start(&spacious(&path));
    for round in 0..2 {
        for (prompt, solo) in prompts().iter().zip(&solo) {
            let (found, counts) = ended(submit(&engine, prompt, &Sampling::GREEDY));
            assert_eq!(found, *solo);
            let most = (prompt.len() as u32 - 1) / 4 * 4;
            assert!(round == 0 || counts.num_cached_tokens == most, "{counts:?}");
        }
    }
}

/// Scoring an answer says of each token what its generation said, to the bit, however it is cut.
#[test]
fn scores_are_what_generation_said() {
    let (_dir, path) = model();
    let solo = solo_answers(&path, &Sampling::GREEDY);
    let mut config = spacious(&path);
    config.max_num_batched_tokens = 9;
    let engine = start(&config);
    for (prompt, solo) in prompts().iter().zip(&solo) {
        let whole = [prompt.as_slice(), &solo.tokens].concat();
        let from = prompt.len() as u32;
        let score = request(&whole, Task::Score { from }, &Sampling::GREEDY);
        let scored = answer(engine.submit(score).unwrap());
        assert_eq!(scored.logprobs, solo.logprobs);
    }
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
    let engine = start(&spacious(&path));
    let found = answer(submit(&engine, prompt, &Sampling::GREEDY));
    assert_eq!(found.tokens, tokens[prompt.len()..]);
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
    let ask = |engine: &EngineHandle| answer(submit(engine, prompt, &Sampling::GREEDY));
    let fresh = ask(&start(&spacious(&other)));
    let backend = load(&spacious(&path)).unwrap();
    let loader = Arc::clone(&backend.loader);
    let engine = start_backend(backend);
    let first = ask(&engine);
    for (folder, expected) in [(&other, &fresh), (&path, &first)] {
        let loaded = loader.load(folder, None).unwrap();
        let live = engine
            .swap(loaded.weights, loaded.digest, "x".to_owned())
            .unwrap();
        live.blocking_recv().unwrap();
        // What the prefix cache holds of the weights before must not be found.
        assert_eq!(ask(&engine), *expected);
    }
    assert_ne!(first, fresh);
}

/// A folder that is not right is refused with a sentence, whatever is wrong with it.
#[test]
fn wrong_checkpoints_are_refused() {
    let (dir, path) = model();
    let loader = load(&spacious(&path)).unwrap().loader;
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
    use crate::engine::{
        batch::{Drawing, LogitsRow, Purpose, StepBatch},
        sampler::mix,
    };
    let (num_rows, vocab_size) = (300_u32, 256);
    let logit = |index: u64| (mix(index) % 1000) as f32 / 100.0;
    let logits: Vec<f32> = (0..u64::from(num_rows) * vocab_size).map(logit).collect();
    let drawing = |row: u32| Drawing {
        sampling: Arc::new(Sampling {
            temperature: 1.0,
            top_p: 0.95,
            seed: u64::from(row),
            ..Sampling::GREEDY
        }),
        stopping: Arc::new(Stopping::default()),
        num_candidates: Some(2),
        num_prompt_tokens: 0,
        history: 0..0,
    };
    let row = |row: u32| LogitsRow {
        row,
        drawing: row,
        position: u64::from(row % 7),
        purpose: Purpose::Draw,
    };
    let mut batch = StepBatch::default();
    batch.rows = (0..num_rows).map(row).collect();
    batch.drawings = (0..num_rows).map(drawing).collect();
    let together = llama::draw(&logits, &batch);
    for (index, own) in logits.chunks(vocab_size as usize).enumerate() {
        batch.rows = vec![row(index as u32)];
        assert_eq!(llama::draw(own, &batch), [together[index].clone()]);
    }
}

/// By default a small model has room for all sequences of a step at a useful length.
#[test]
fn the_default_cache_holds_many_sequences() {
    let (_dir, path) = model();
    let backend = load(&ServerConfig::for_model(&path)).unwrap();
    let num_slots = backend.limits.num_blocks as usize * backend.limits.block_size;
    assert_eq!(num_slots, 256 * 256);
    assert_eq!(backend.max_context_tokens, 256);
}
