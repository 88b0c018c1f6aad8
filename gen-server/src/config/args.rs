//! The command line and how it becomes a [`ServerConfig`].

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use model::{
    hub::{self, HubEnvironment},
    template::TemplateChoice,
};

use super::{
    AuthToken, CascadeAttention, ConfigError, DEFAULT_GPU_MEMORY_UTILIZATION, DEFAULT_GRACE_MS,
    DEFAULT_MAX_QUEUED_REQUESTS, DEFAULT_MAX_TOKENS, Device, Dtype, GpuConfig, KvCacheDtype,
    KvCacheSize, Mistake, Precision, PrefixCacheMode, ProductTuning, Quantization, ServerConfig,
    WeightArenas,
};

const EXAMPLES: &str = "\
Examples:
  # A model folder, for programs on this machine
  gen-server --model data/demo/model

  # With hot swap: checkpoints are named relative to the root, as in `star reload star/epoch_2`
  gen-server --model runs/base --checkpoint-root runs --listen 127.0.0.1:50051

  # Any free port; other programs read the address from the file
  gen-server --model runs/base --listen 127.0.0.1:0 --endpoint-file runs/endpoint

  # On a GPU (`gen-server doctor` says whether this machine is ready for it)
  gen-server --model runs/base --device cuda

  # How long steps take here, without requests: 256 sequences of 384 tokens, a prompt of 2,048
  gen-server speed --model runs/base --device cuda --phases 256x384,p2048

  # For other hosts: needs a token, which clients send as `authorization: Bearer <token>`
  gen-server --model runs/base --listen 0.0.0.0:50051 --auth-token-file ~/.star-token
";

/// The command line of `gen-server`.
#[derive(Debug, Clone, Parser)]
#[command(name = "gen-server", version, about = "Generation server: gRPC in, tokens out", after_help = EXAMPLES)]
pub struct Args {
    /// Model folder in Hugging Face layout, or `org/name` in the local Hugging Face cache
    #[arg(long, value_name = "DIR|ORG/NAME")]
    pub model: String,

    /// Download `org/name` where the cache lacks it (HF_TOKEN for gated models)
    #[cfg(feature = "hub")]
    #[arg(long)]
    pub download: bool,

    /// Folder below which `ReloadCheckpoint` finds checkpoints; without it every reload is refused
    #[arg(long, value_name = "DIR")]
    pub checkpoint_root: Option<PathBuf>,

    /// Address to listen on; port 0 takes a free one and prints it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,

    /// Write the address here once the server accepts requests (whole or not at all)
    #[arg(long, value_name = "FILE")]
    pub endpoint_file: Option<PathBuf>,

    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub device: Device,

    /// With --device cuda: number of the GPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub gpu: usize,

    /// With --device cuda: share of the GPU's memory for weights, workspace and KV cache together
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_GPU_MEMORY_UTILIZATION)]
    pub gpu_memory_utilization: f32,

    /// With --device cuda: what keys and values are stored in; `fp8` holds twice the tokens and is a
    /// little less exact
    #[arg(long, value_enum, default_value_t = KvCacheDtype::Auto)]
    pub kv_cache_dtype: KvCacheDtype,

    /// With --device cuda: room for checkpoints. With 2 a new one is loaded beside the live one, and a
    /// swap only exchanges them; 1 is for small cards: it waits in the host's memory
    #[arg(long, value_enum, default_value_t = WeightArenas::Two)]
    pub weight_arenas: WeightArenas,

    /// With --device cuda: read keys that sequences have in common, such as those of few-shot prompts,
    /// once for all instead of once for each. Its gain has not been measured, and so it is off
    #[arg(long, value_enum, default_value_t = CascadeAttention::Off)]
    pub cascade_attention: CascadeAttention,

    /// With --device cuda: choose the kernels of decodes' products by trial, in the first seconds. The
    /// last bits of an answer may then differ between two starts. Its gain has not been measured
    #[arg(long, value_enum, default_value_t = ProductTuning::Off)]
    pub tune_products: ProductTuning,

    /// Numbers to compute in. `bf16` halves the memory of weights and KV cache and is faster
    /// (bench/RESULTS.md says by how much); logits then differ in the third digit, so that a greedy
    /// answer may take another turn where two tokens are almost equally likely. `f32` on a GPU is
    /// slow, for comparisons with a CPU: its attention has no tensor cores [default: f32; on a GPU
    /// bf16]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,

    /// Store the weights in fewer bits. `int8`: half of bf16's memory, faster than it for few
    /// sequences at a time, a little less exact; KV cache as with bf16. On a GPU, where the embedding
    /// stays bf16, its speed has not been measured
    #[arg(long, value_enum, conflicts_with = "dtype")]
    pub quantize: Option<Quantization>,

    /// KV cache size in blocks [default: sized for --max-num-seqs, at most 512 MiB; on a GPU what
    /// --gpu-memory-utilization leaves]
    #[arg(long, value_name = "N", conflicts_with = "kv_cache_mib")]
    pub num_blocks: Option<u32>,

    /// KV cache size in MiB
    #[arg(long, value_name = "MIB")]
    pub kv_cache_mib: Option<u32>,

    /// Tokens in a KV block; on a GPU a multiple of 16 [default: 16; on a GPU 32]
    #[arg(long, value_name = "TOKENS")]
    pub block_size: Option<u32>,

    /// Most sequences computed in one step [default: 256; on a GPU 512]
    #[arg(long, value_name = "N")]
    pub max_num_seqs: Option<u32>,

    /// Most tokens computed in one step [default: 512; on a GPU 8192]
    #[arg(long, value_name = "TOKENS")]
    pub max_num_batched_tokens: Option<u32>,

    /// Whether requests share computed prefixes
    #[arg(long, value_enum, default_value_t = PrefixCacheMode::On)]
    pub prefix_cache: PrefixCacheMode,

    /// Most tokens guessed ahead by looking the last ones up in prompt and answer; answers stay the
    /// same, text that copies comes faster [default: no speculation]
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub speculative_tokens: u32,

    /// Most requests admitted and not yet finished; beyond it RESOURCE_EXHAUSTED
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_QUEUED_REQUESTS)]
    pub max_queued_requests: u32,

    /// max_tokens of a request that does not say
    #[arg(long, value_name = "TOKENS", default_value_t = DEFAULT_MAX_TOKENS)]
    pub default_max_tokens: u32,

    /// Chat template: `auto` (the checkpoint's own), `none`, `hf-llama3.2`, `meta-llama3` or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "auto")]
    pub chat_template: String,

    /// Date that the chat template writes, such as "26 Jul 2024" [default: the template's own]
    #[arg(long, value_name = "DATE")]
    pub template_date: Option<String>,

    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// File with the token that callers must send as `authorization: Bearer <token>`
    #[arg(long, value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,

    /// Listen on other than a loopback address without a token
    #[arg(long)]
    pub insecure: bool,

    /// On SIGTERM or SIGINT: how long running requests may take to finish
    #[arg(long, value_name = "MS", default_value_t = DEFAULT_GRACE_MS)]
    pub grace_ms: u64,

    /// How to write the log (stderr)
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl ServerConfig {
    /// What was typed, resolved and checked.
    pub fn from_args(args: &Args) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let sizes = args.device.default_sizes();
        let config = Self {
            model_dir: model_dir(args, &mut mistakes),
            checkpoint_root: args.checkpoint_root.clone(),
            device: args.device,
            gpu: GpuConfig {
                ordinal: args.gpu,
                memory_utilization: args.gpu_memory_utilization,
                kv_cache_dtype: args.kv_cache_dtype,
                weight_arenas: args.weight_arenas,
                cascade_attention: args.cascade_attention,
                product_tuning: args.tune_products,
            },
            precision: precision(args),
            kv_cache: kv_cache_size(args, &mut mistakes),
            block_size: args.block_size.unwrap_or(sizes.block_size),
            max_num_seqs: args.max_num_seqs.unwrap_or(sizes.max_num_seqs),
            max_num_batched_tokens: args
                .max_num_batched_tokens
                .unwrap_or(sizes.max_num_batched_tokens),
            prefix_cache: args.prefix_cache,
            speculative_tokens: args.speculative_tokens,
            max_queued_requests: args.max_queued_requests,
            default_max_tokens: args.default_max_tokens,
            chat_template: chat_template(&args.chat_template, &mut mistakes),
            template_date: args.template_date.clone(),
            threads: args.threads,
            auth_token: read_auth_token(args.auth_token_file.as_deref(), &mut mistakes),
            grace: Duration::from_millis(args.grace_ms),
        };
        if !args.listen.ip().is_loopback() && args.auth_token_file.is_none() && !args.insecure {
            mistakes.push(Mistake {
                option: "--listen",
                problem: format!(
                    "{} can be reached by other hosts: give --auth-token-file FILE, or --insecure \
                     to let everybody on the network generate and reload",
                    args.listen
                ),
            });
        }
        // A model that was not found has been reported already.
        let found = mistakes.iter().all(|mistake| mistake.option != "--model");
        mistakes.extend(
            config
                .mistakes()
                .into_iter()
                .filter(|each| found || each.option != "--model"),
        );
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError { mistakes })
        }
    }
}

/// The folder that `--model` names, in place or in the Hugging Face cache.
fn model_dir(args: &Args, mistakes: &mut Vec<Mistake>) -> PathBuf {
    match find_model(args) {
        Ok(dir) => dir,
        Err(error) => {
            let problem = format!(
                "{error}; give a folder with config.json, tokenizer.json and model.safetensors, or \
                 org/name of a downloaded model"
            );
            mistakes.push(Mistake {
                option: "--model",
                problem,
            });
            PathBuf::from(&args.model)
        }
    }
}

#[cfg(not(feature = "hub"))]
fn find_model(args: &Args) -> model::error::Result<PathBuf> {
    hub::resolve(&args.model, &hub_environment())
}

/// As without the feature; with `--download` the cache is filled first where it has to be.
#[cfg(feature = "hub")]
fn find_model(args: &Args) -> model::error::Result<PathBuf> {
    let environment = hub_environment();
    let found = hub::resolve(&args.model, &environment);
    if found.is_ok() || !args.download {
        return found;
    }
    let account = hub::download::HubAccount::read(|name| std::env::var_os(name));
    hub::download::download(&args.model, &environment, &account)
}

fn hub_environment() -> HubEnvironment {
    HubEnvironment::read(|name| std::env::var_os(name))
}

/// On a GPU bf16 is what there is, and so the default.
fn precision(args: &Args) -> Precision {
    let dtype = match args.device {
        Device::Cpu => args.dtype,
        Device::Cuda => args.dtype.or(Some(Dtype::Bf16)),
    };
    Precision::new(dtype, args.quantize)
}

fn kv_cache_size(args: &Args, mistakes: &mut Vec<Mistake>) -> KvCacheSize {
    let mut at_least_one = |option, value: u32| {
        NonZeroU32::new(value).unwrap_or_else(|| {
            mistakes.push(Mistake {
                option,
                problem: "expected at least 1, found 0".to_owned(),
            });
            NonZeroU32::MIN
        })
    };
    match (args.num_blocks, args.kv_cache_mib) {
        (Some(blocks), _) => KvCacheSize::Blocks(at_least_one("--num-blocks", blocks)),
        (None, Some(mib)) => KvCacheSize::Mebibytes(at_least_one("--kv-cache-mib", mib)),
        (None, None) => KvCacheSize::Auto,
    }
}

fn chat_template(typed: &str, mistakes: &mut Vec<Mistake>) -> TemplateChoice {
    let Ok(choice) = typed.parse::<TemplateChoice>();
    if let TemplateChoice::File(file) = &choice
        && !file.is_file()
    {
        mistakes.push(Mistake {
            option: "--chat-template",
            problem: format!(
                "expected auto, none, hf-llama3.2, meta-llama3 or an existing file, found {typed:?}"
            ),
        });
    }
    choice
}

fn read_auth_token(file: Option<&Path>, mistakes: &mut Vec<Mistake>) -> Option<AuthToken> {
    let file = file?;
    let parsed = std::fs::read_to_string(file)
        .map_err(|error| Mistake {
            option: "--auth-token-file",
            problem: format!("cannot read {}: {error}", file.display()),
        })
        .and_then(|text| AuthToken::new(text.trim_end()));
    parsed.map_err(|mistake| mistakes.push(mistake)).ok()
}
