//! The engine on a GPU (the software one where there is no other), on a tiny random model. What it says is judged
//! by the CPU: rounding differs, so that nearly equal tokens may change places.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cuda_emulator::Provided;
use model::{
    config::LlamaConfig,
    random::{RandomModelSpec, random_model},
};

use crate::{
    ServerConfig,
    backend::{
        LoadError,
        fake::tiny_config,
        load,
        tests::{Answer, answer, request, start_backend},
    },
    config::{
        CascadeAttention, Device, Dtype, KvCacheDtype, KvCacheSize, Precision, ProductTuning,
        Quantization, WeightArenas,
    },
    engine::handle::EngineHandle,
    request::{Sampling, Stopping, Task, TokenLogprobs},
};

/// The smallest that the kernels take.
fn config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 304,
        hidden_size: 64,
        intermediate_size: 96,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        head_dim: 64,
        ..tiny_config()
    }
}

/// The smallest that int8 can be summed over.
fn int8_config() -> LlamaConfig {
    LlamaConfig {
        intermediate_size: 128,
        ..config()
    }
}

fn write_model(dir: &Path, config: LlamaConfig, seed: u64) {
    let spec = RandomModelSpec {
        config,
        seed,
        tokenizer_from: None,
    };
    random_model(&spec, dir).unwrap();
}

fn model() -> Option<(tempfile::TempDir, PathBuf)> {
    model_of(config())
}

fn model_of(config: LlamaConfig) -> Option<(tempfile::TempDir, PathBuf)> {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    write_model(&path, config, 1);
    Some((dir, path))
}

fn on_gpu(path: &Path) -> ServerConfig {
    let mut config = ServerConfig::for_model(path);
    config.device = Device::Cuda;
    config.precision = Precision::Float(Dtype::Bf16);
    config.kv_cache = KvCacheSize::Blocks(10.try_into().unwrap());
    config.block_size = 16;
    config.max_num_seqs = 5;
    config.max_num_batched_tokens = 24;
    config
}

fn on_cpu(path: &Path) -> ServerConfig {
    let mut config = on_gpu(path);
    config.device = Device::Cpu;
    config
}

fn prompts() -> Vec<Vec<u32>> {
    let prompt = |length: u32| {
        (0..length)
            .map(|at| 6 + (at % 9 * 37 + length) % 250)
            .collect()
    };
    [3, 17, 40, 9, 16, 33, 1].map(prompt).to_vec()
}

/// Answers to all prompts, asked at once.
fn answers(engine: &EngineHandle, sampling: &Sampling, max_tokens: u32) -> Vec<Answer> {
    answers_to(engine, &prompts(), (sampling, max_tokens))
}

fn answers_to(
    engine: &EngineHandle,
    prompts: &[Vec<u32>],
    (sampling, max_tokens): (&Sampling, u32),
) -> Vec<Answer> {
    let task = Task::Generate { max_tokens };
    let asked = prompts.iter().map(|prompt| {
        let request = request(prompt, task, sampling);
        engine.submit(request).unwrap()
    });
    let asked: Vec<_> = asked.collect();
    asked.into_iter().map(answer).collect()
}

/// What the CPU thinks of each token of these answers.
fn judged(
    judge: &EngineHandle,
    answers: &[Answer],
    prompts: &[Vec<u32>],
) -> Vec<Vec<TokenLogprobs>> {
    let scored = answers.iter().zip(prompts).map(|(given, prompt)| {
        let whole = [prompt.as_slice(), &given.tokens].concat();
        let from = prompt.len() as u32;
        let request = request(&whole, Task::Score { from }, &Sampling::GREEDY);
        answer(judge.submit(request).unwrap()).logprobs
    });
    scored.collect()
}

/// Log probabilities of two roundings to bf16: logits of this model are around 1, and differ in the third
/// digit.
const TOLERANCE: f32 = 0.02;

/// Greedy answers in company, in chunks, preempted, a step ahead or speculated: each token is the CPU's best
/// or as good as that, and its log probability is the CPU's.
#[test]
fn greedy_answers_are_what_the_cpu_says() {
    let Some((_dir, path)) = model() else { return };
    let judge = start_backend(load(&on_cpu(&path)).unwrap());
    for (speculative_tokens, tuning) in [(0, ProductTuning::On), (3, ProductTuning::Off)] {
        let mut config = on_gpu(&path);
        config.speculative_tokens = speculative_tokens;
        config.gpu.product_tuning = tuning;
        let engine = start_backend(load(&config).unwrap());
        let answers = answers(&engine, &Sampling::GREEDY, 20);
        for (answer, judged) in answers.iter().zip(judged(&judge, &answers, &prompts())) {
            assert_eq!(answer.tokens.len(), 20);
            assert_agree(answer, &judged, TOLERANCE);
        }
        let load = engine.gauges().load();
        assert!(load.num_preemptions_total > 0, "the test means to preempt");
    }
}

/// In f32 the tokens are the CPU's own, with draws as well as greedy; for prompts alone and all at once.
#[test]
fn answers_in_f32_are_the_cpus() {
    let Some((_dir, path)) = model() else { return };
    let start = |mut config: ServerConfig| {
        config.precision = Precision::Float(Dtype::F32);
        start_backend(load(&config).unwrap())
    };
    let (cpu, gpu) = (start(on_cpu(&path)), start(on_gpu(&path)));
    let drawing = Sampling {
        temperature: 1.0,
        top_p: 0.9,
        seed: 11,
        ..Sampling::GREEDY
    };
    for sampling in [Sampling::GREEDY, drawing] {
        let expected = answers(&cpu, &sampling, 20);
        for (expected, found) in expected.iter().zip(answers(&gpu, &sampling, 20)) {
            assert_eq!(expected.tokens, found.tokens);
            for (cpu, gpu) in expected.logprobs.iter().zip(&found.logprobs) {
                let difference = (cpu.logprob - gpu.logprob).abs();
                assert!(difference < 1e-5, "{cpu:?} {gpu:?}");
            }
        }
    }
}

/// Each token of a greedy answer is the CPU's best or as good as that, and its log probability is the CPU's.
fn assert_agree(answer: &Answer, judged: &[TokenLogprobs], tolerance: f32) {
    assert_eq!(answer.logprobs.len(), judged.len());
    for (own, cpu) in answer.logprobs.iter().zip(judged) {
        let best = cpu.candidates[0].1;
        assert!(best - cpu.logprob < tolerance, "{own:?} {cpu:?}");
        let difference = (own.logprob - cpu.logprob).abs();
        assert!(difference < tolerance, "{own:?} {cpu:?}");
        assert_eq!((own.rank, own.candidates.len()), (1, 3), "{own:?}");
    }
}

/// Prompts with 40 tokens in common, more of them in pairs, beside some that share nothing: their steps, recorded and
/// mixed with prefills, say what the CPU says, and what comes of reading each for itself.
#[test]
fn shared_prefixes_are_read_once_with_the_same_answers() {
    let Some((_dir, path)) = model() else { return };
    let judge = start_backend(load(&on_cpu(&path)).unwrap());
    let start = |cascade| {
        let mut config = on_gpu(&path);
        config.kv_cache = KvCacheSize::Blocks(60.try_into().unwrap());
        config.max_num_seqs = 8;
        config.gpu.cascade_attention = cascade;
        start_backend(load(&config).unwrap())
    };
    let prompt = |own: u32| -> Vec<u32> {
        let head = (0..40).map(|at| 6 + at * 7 % 250);
        let middle = (0..16).map(|at| 20 + at + own / 2);
        head.chain(middle).chain([100 + own]).collect()
    };
    let mut prompts: Vec<Vec<u32>> = (0..9).map(prompt).collect();
    prompts.extend(self::prompts());
    let ask = |engine: &EngineHandle| answers_to(engine, &prompts, (&Sampling::GREEDY, 24));
    let engine = start(CascadeAttention::Always);
    // The first time prompts are computed side by side; the second finds them in the prefix cache.
    for _ in 0..2 {
        let answers = ask(&engine);
        for (answer, judged) in answers.iter().zip(judged(&judge, &answers, &prompts)) {
            assert_agree(answer, &judged, TOLERANCE);
        }
    }
    assert!(engine.gauges().load().num_preemptions_total == 0);
    // So little is not worth it: the steps are those of a server that does not share.
    assert_eq!(
        ask(&start(CascadeAttention::Auto)),
        ask(&start(CascadeAttention::Off))
    );
}

/// Errors of weights in int8 are six times those of activations in bf16 (the tests of `model` say why).
const INT8_TOLERANCE: f32 = 6.0 * TOLERANCE;

/// One sequence alone, and more than the int8 kernels have rows for: their prompts, their steps (recorded ones), and
/// their logits.
#[test]
fn int8_answers_are_close_to_the_cpus() {
    let Some((_dir, path)) = model_of(int8_config()) else {
        return;
    };
    let judge = start_backend(load(&on_cpu(&path)).unwrap());
    let mut config = on_gpu(&path);
    config.precision = Precision::Quantized(Quantization::Int8);
    config.kv_cache = KvCacheSize::Blocks(80.try_into().unwrap());
    config.gpu.weight_arenas = WeightArenas::One;
    config.max_num_seqs = 72;
    config.max_num_batched_tokens = 96;
    let backend = load(&config).unwrap();
    assert_eq!(backend.model.dtype, "int8");
    let engine = start_backend(backend);
    // All of these are under way at once after their first three steps.
    let many: Vec<Vec<u32>> = (0..72)
        .map(|at| vec![6 + at; 1 + at as usize % 3])
        .collect();
    for prompts in [&prompts()[2..3], &many] {
        let answers = answers_to(&engine, prompts, (&Sampling::GREEDY, 8));
        for (answer, judged) in answers.iter().zip(judged(&judge, &answers, prompts)) {
            assert_eq!(answer.tokens.len(), 8);
            assert_agree(answer, &judged, INT8_TOLERANCE);
        }
    }
}

/// Scores of prompts are the CPU's, more rows than fit into one piece of logits included.
#[test]
fn scores_are_what_the_cpu_says() {
    let Some((_dir, path)) = model() else { return };
    let mut config = on_gpu(&path);
    config.kv_cache = KvCacheSize::Blocks(64.try_into().unwrap());
    let (judge, engine) = (
        start_backend(load(&on_cpu(&path)).unwrap()),
        start_backend(load(&config).unwrap()),
    );
    for prompt in prompts().iter().filter(|prompt| prompt.len() > 1) {
        let score = |engine: &EngineHandle| {
            let request = request(prompt, Task::Score { from: 1 }, &Sampling::GREEDY);
            answer(engine.submit(request).unwrap()).logprobs
        };
        let (cpu, gpu) = (score(&judge), score(&engine));
        assert_eq!(cpu.len(), gpu.len());
        for (cpu, gpu) in cpu.iter().zip(&gpu) {
            assert!(
                (cpu.logprob - gpu.logprob).abs() < TOLERANCE,
                "{cpu:?} {gpu:?}"
            );
        }
    }
}

/// What is asked of a draw is done on the GPU as well: penalties, biases, tokens that may not come yet.
#[test]
fn draws_obey_their_parameters() {
    let Some((_dir, path)) = model() else { return };
    let engine = start_backend(load(&on_gpu(&path)).unwrap());
    let sampling = Sampling {
        temperature: 1.0,
        top_p: 0.95,
        top_k: 50,
        repetition_penalty: 1.2,
        presence_penalty: 0.5,
        logit_bias: vec![(7, f32::NEG_INFINITY), (8, -100.0)],
        seed: 5,
        ..Sampling::GREEDY
    };
    let first = answers(&engine, &sampling, 12);
    assert_eq!(
        answers(&engine, &sampling, 12)[0].tokens[0],
        first[0].tokens[0]
    );
    for answer in &first {
        assert!(
            answer.tokens.iter().all(|token| ![7, 8].contains(token)),
            "{answer:?}"
        );
    }
    // The bias makes the stop token the best, and it may not come before the fifth.
    let mut request = request(
        &prompts()[1],
        Task::Generate { max_tokens: 12 },
        &Sampling {
            logit_bias: vec![(1, 50.0)],
            ..Sampling::GREEDY
        },
    );
    request.stopping = Arc::new(Stopping {
        token_ids: vec![1],
        min_tokens: 4,
    });
    let answer = answer(engine.submit(request).unwrap());
    assert_eq!(answer.tokens.len(), 5, "{answer:?}");
    assert_eq!(answer.tokens[4], 1);
    assert!(!answer.tokens[..4].contains(&1));
}

/// Swapped-in weights answer exactly as a server that was started with them, whether they waited on the GPU or
/// on the host, with either kind of cache and of weights.
#[test]
fn swapped_weights_answer_as_if_started_with_them() {
    let Some((dir, path)) = model_of(int8_config()) else {
        return;
    };
    let other = dir.path().join("epoch_2");
    write_model(&other, int8_config(), 2);
    let bf16 = Precision::Float(Dtype::Bf16);
    let f32 = Precision::Float(Dtype::F32);
    let int8 = Precision::Quantized(Quantization::Int8);
    for (precision, arenas, kv) in [
        (bf16, WeightArenas::One, KvCacheDtype::Fp8),
        (f32, WeightArenas::Two, KvCacheDtype::Auto),
        (int8, WeightArenas::Two, KvCacheDtype::Bf16),
    ] {
        let configured = |path: &Path| {
            let mut config = on_gpu(path);
            config.precision = precision;
            config.gpu.weight_arenas = arenas;
            config.gpu.kv_cache_dtype = kv;
            config
        };
        // One after the other: the last bits follow from what is computed together.
        let ask = |engine: &EngineHandle| -> Vec<Vec<Answer>> {
            let prompts = prompts().into_iter();
            prompts
                .map(|prompt| answers_to(engine, &[prompt], (&Sampling::GREEDY, 8)))
                .collect()
        };
        let fresh = ask(&start_backend(load(&configured(&other)).unwrap()));
        let backend = load(&configured(&path)).unwrap();
        let loader = Arc::clone(&backend.loader);
        let engine = start_backend(backend);
        let first = ask(&engine);
        assert_ne!(first, fresh);
        for (folder, expected) in [(&other, &fresh), (&path, &first), (&other, &fresh)] {
            let loaded = loader.load(folder, None).unwrap();
            let swap = engine.swap(loaded.weights, loaded.digest, "x".to_owned());
            swap.unwrap().blocking_recv().unwrap();
            assert_eq!(ask(&engine), *expected);
        }
    }
}

/// A checkpoint that is not right is refused, and the arena is free for the next one.
#[test]
fn wrong_checkpoints_are_refused() {
    let Some((dir, path)) = model() else { return };
    let loader = load(&on_gpu(&path)).unwrap().loader;
    let other = dir.path().join("epoch_2");
    write_model(&other, config(), 2);
    let weights = other.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for _ in 0..3 {
        fs::write(&weights, &bytes[..bytes.len() - 8]).unwrap();
        let error = loader.load(&other, None).unwrap_err();
        assert!(matches!(error, LoadError::Unusable(_)), "{error:?}");
        fs::write(&weights, &bytes).unwrap();
        drop(loader.load(&other, None).unwrap());
    }
}

/// What int8 cannot be summed over is said with the size.
#[test]
fn sizes_that_int8_has_no_kernel_for_are_an_error() {
    let Some((_dir, path)) = model() else { return };
    let mut config = on_gpu(&path);
    config.precision = Precision::Quantized(Quantization::Int8);
    let error = load(&config).unwrap_err().to_string();
    assert!(
        error.contains("intermediate_size: expected a multiple of 64 (on a GPU in int8), found 96"),
        "{error}"
    );
}

/// What does not fit into the share of the memory is said before anything is loaded.
#[test]
fn too_little_memory_is_an_error_with_figures() {
    let Some((_dir, path)) = model() else { return };
    let mut config = on_gpu(&path);
    config.kv_cache = KvCacheSize::Auto;
    config.gpu.memory_utilization = 0.001;
    let error = load(&config).unwrap_err().to_string();
    let figures = error.split_once("--gpu-memory-utilization 0.001 of ");
    assert!(
        figures.is_some_and(|(_, figures)| figures.contains(" GiB")),
        "{error}"
    );
}
