//! The generation server: from a gRPC call to a stream of tokens.
//!
//! The path of a request, and the order to read the files: `main → server → service → convert →
//! engine/handle ═► engine (scheduler → block_pool, batch → runner, sampler) ═► stream → service`.
//! `═►` are the only crossings between async code and the engine thread.

mod config;
mod engine;
mod error;
mod request;
mod server;

pub use config::{
    Args, AuthToken, ChatTemplateChoice, ConfigError, Device, KvCacheSize, LogFormat, Mistake,
    ServerConfig,
};
pub use error::ServerError;
pub use server::run;
