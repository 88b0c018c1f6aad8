//! The Llama network on a GPU: all weights in one piece of its memory ([`Arena`]), keys and values in another
//! ([`KvCache`]), and a forward pass ([`Network`]) over what a step brings ([`Step`], laid out as its
//! [`StepShape`] says).

mod arena;
mod inputs;
mod kv_cache;
mod network;
mod products;
mod room;

pub use arena::{Arena, HostWeights, WeightElement, arena_bytes, check_config, quantize_rows};
pub use inputs::{Inputs, NOWHERE, Step, StepSequence, StepShape};
pub use kv_cache::{KvCache, KvElement, KvShape, kv_block_bytes};
pub use network::Network;
pub use room::Room;
