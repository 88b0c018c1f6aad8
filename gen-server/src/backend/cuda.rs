//! The backend on a GPU: what its memory is for, and the pair of runner and loader.

mod arenas;
pub(crate) mod buckets;
mod loader;
mod order;
mod prefixes;
mod runner;
mod sampling;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use cuda::{Device, Float, Uploader};
use half::bf16;
use model::{
    config::LlamaConfig,
    gpu::{
        Arena, KvCache, KvElement, KvShape, Network, Room, WeightElement, arena_bytes,
        kv_block_bytes,
    },
};

use self::{
    arenas::Arenas,
    loader::{CudaLoader, Prober, Staging},
    prefixes::Sharing,
    runner::CudaRunner,
};
use super::{
    Backend,
    checkpoint::{self, Served},
    step_limits,
};
use crate::{
    config::{
        CascadeAttention, Dtype, KvCacheDtype, KvCacheSize, Precision, Quantization, ServerConfig,
        WeightArenas,
    },
    engine::scheduler::Limits,
    error::ServerError,
    request::WeightsVersion,
};

/// Rows whose logits are in memory at once: with a vocabulary of 128,256 these are 263 MB.
pub(crate) const MAX_LOGITS_ROWS: usize = 512;
/// What the driver, graphs and cublasLt take beside what is counted here.
const RESERVED_BYTES: usize = 1 << 30;
/// On the software GPU of tests, whose memory is the host's.
const RESERVED_SOFTWARE_BYTES: usize = 64 << 20;

/// Loads the model that `config` names onto its GPU. Blocks for as long as that takes.
pub(crate) fn load_cuda(config: &ServerConfig) -> Result<Backend, ServerError> {
    match config.precision {
        Precision::Float(Dtype::F32) => load_as::<f32>(config),
        Precision::Float(Dtype::Bf16) | Precision::Quantized(Quantization::Int8) => {
            load_as::<bf16>(config)
        }
    }
}

/// With activations, and weights that are not int8, in `A`.
fn load_as<A: Float>(config: &ServerConfig) -> Result<Backend, ServerError> {
    let device = Device::open(config.gpu.ordinal)?;
    let (folder, tokenizer) = checkpoint::open(config)?;
    let element = weight_element(config);
    model::gpu::check_config(&folder.config, element)?;
    let limits = limits::<A>(config, &folder.config, &device)?;
    let max_context_tokens = folder
        .config
        .max_position_embeddings
        .min(limits.num_blocks as usize * limits.block_size);
    let arenas = (0..num_arenas(config)).map(|_| Arena::<A>::new(&device, &folder.config, element));
    let arenas = Arenas::new(arenas.collect::<Result<_, _>>()?);
    let mut live = arenas.take().ok_or(ServerError::EngineStopped)?;
    let mut uploader = Uploader::new(&device)?;
    live.arena_mut()
        .load(&mut uploader, &config.model_dir, &folder.config)?;
    drop(uploader);
    let weights = WeightsVersion {
        number: 1,
        digest: live.arena().digest().to_owned(),
        checkpoint: checkpoint::folder_name(&config.model_dir),
    };
    let room = room(&limits, max_context_tokens, element);
    let network = Network::new(&device, &folder.config, room)?;
    let shape = KvShape {
        num_blocks: limits.num_blocks as usize,
        block_size: limits.block_size,
        element: kv_element(config),
    };
    let kv_cache = KvCache::new(&device, &folder.config, shape)?;
    let ways = (sharing::<A>(config), config.gpu.product_tuning);
    let runner = CudaRunner::new((network, kv_cache), (live, &arenas), ways)?;
    let staging = match config.gpu.weight_arenas {
        WeightArenas::Two => Staging::Arenas {
            prober: Box::new(Mutex::new(Prober::new(&device, &folder.config, element)?)),
            arenas,
        },
        WeightArenas::One => Staging::Host(element),
    };
    let model = checkpoint::model_info(&folder, config.precision.name().to_owned());
    let served = Served {
        config: folder.config,
        tokenizer_digest: tokenizer.digest().to_owned(),
    };
    Ok(Backend {
        runner: Box::new(runner),
        loader: Arc::new(CudaLoader { served, staging }),
        tokenizer,
        model,
        limits,
        max_context_tokens,
        weights,
    })
}

fn num_arenas(config: &ServerConfig) -> usize {
    match config.gpu.weight_arenas {
        WeightArenas::One => 1,
        WeightArenas::Two => 2,
    }
}

pub(crate) fn weight_element(config: &ServerConfig) -> WeightElement {
    match config.precision {
        Precision::Float(_) => WeightElement::Float,
        Precision::Quantized(Quantization::Int8) => WeightElement::Int8,
    }
}

pub(crate) fn kv_element(config: &ServerConfig) -> KvElement {
    match config.gpu.kv_cache_dtype {
        // `config` was checked: bf16 is not asked for beside f32.
        KvCacheDtype::Auto | KvCacheDtype::Bf16 => KvElement::Float,
        KvCacheDtype::Fp8 => KvElement::E4m3,
    }
}

fn sharing<A: Float>(config: &ServerConfig) -> Option<Sharing> {
    let block_size = config.block_size as usize;
    match config.gpu.cascade_attention {
        CascadeAttention::Auto if A::SHARES_PREFIXES => Some(Sharing::auto(block_size)),
        CascadeAttention::Always if A::SHARES_PREFIXES => Some(Sharing::always(block_size)),
        _ => None,
    }
}

/// The steps that the runner has room for.
fn room(limits: &Limits, max_context: usize, weights: WeightElement) -> Room {
    let num_rows = limits.max_logits_rows();
    Room {
        num_tokens: limits.max_num_batched_tokens,
        num_sequences: limits.max_num_seqs,
        num_rows,
        logits_rows: num_rows.min(MAX_LOGITS_ROWS),
        max_context,
        weights,
    }
}

/// What a step may hold, and how many blocks there are.
fn limits<A: Float>(
    config: &ServerConfig,
    model: &LlamaConfig,
    device: &Device,
) -> Result<Limits, ServerError> {
    let limits = step_limits(config, 0);
    let block_bytes = kv_block_bytes::<A>(model, limits.block_size, kv_element(config));
    let num_blocks = match config.kv_cache {
        KvCacheSize::Blocks(blocks) => blocks.get() as usize,
        KvCacheSize::Mebibytes(mib) => ((mib.get() as usize) << 20) / block_bytes,
        KvCacheSize::Auto => {
            let context = model.max_position_embeddings;
            let element = weight_element(config);
            let workspace = room(&limits, context, element).num_bytes::<A>(model);
            let weights = num_arenas(config) * arena_bytes::<A>(model, element);
            let left = bytes_for_kv(config, device, weights + workspace)?;
            // No more than all sequences of a step can use.
            let most = limits.num_blocks_for(context) * limits.max_num_seqs;
            (left / block_bytes).min(most)
        }
    };
    Ok(step_limits(config, num_blocks))
}

/// What is left of the share of the GPU's memory that was given, once `taken` is.
fn bytes_for_kv(
    config: &ServerConfig,
    device: &Device,
    taken: usize,
) -> Result<usize, ServerError> {
    let (free, total) = device.memory()?;
    let reserved = if device.is_software() {
        RESERVED_SOFTWARE_BYTES
    } else {
        RESERVED_BYTES
    };
    let given = (total as f64 * f64::from(config.gpu.memory_utilization)) as usize;
    let usable = given.saturating_sub(total - free);
    usable.checked_sub(taken + reserved).ok_or_else(|| {
        let gib = |bytes: usize| bytes as f64 / (1_u64 << 30) as f64;
        ServerError::GpuMemory(format!(
            "weights, workspace and {:.1} GiB of reserve take {:.1} GiB, but --gpu-memory-utilization \
             {} of {:.1} GiB, less what others use, leaves {:.1} GiB; free memory on the GPU, or give \
             a larger share, fewer --max-num-batched-tokens or --weight-arenas 1",
            gib(reserved),
            gib(taken + reserved),
            config.gpu.memory_utilization,
            gib(total),
            gib(usable),
        ))
    })
}
