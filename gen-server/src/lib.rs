//! The generation server: from a gRPC call to a stream of tokens.
//!
//! The path of a request, and the order to read the files: `main → server → service → convert →
//! admission → engine/handle ═► engine (scheduler → block_pool, batch → runner, sampler) ═► stream →
//! service`. `═►` are the only two crossings between async code and the engine thread.
//!
//! [`run`] serves a model folder on a socket that the caller has bound, so that a program may serve
//! itself on a loopback port.

mod server;

mod service;

mod convert;

mod admission;

mod engine;

mod stream;

mod request;

mod backend;

mod swap;

mod speed;

mod doctor;

mod ceilings;

mod config;
mod error;

pub use config::{
    Args, AuthToken, CascadeAttention, ConfigError, Device, Dtype, GpuConfig, KvCacheDtype,
    KvCacheSize, LogFormat, Mistake, Precision, PrefixCacheMode, ProductTuning, Quantization,
    ServerConfig, WeightArenas,
};
pub use doctor::{Check, DoctorArgs, examine};
pub use error::ServerError;
pub use model::template::TemplateChoice;
pub use server::{LoadedModel, run};
pub use speed::{Bench, Measured, PartsBench, Phase, SpeedArgs, StepParts};
