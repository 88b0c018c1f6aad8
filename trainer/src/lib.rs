//! Training of Llama models, from JSONL to checkpoint folders in Hugging Face layout.
//!
//! There is no autograd here: `forward` holds the network forward and backward, written by hand over
//! the ops of `kernels`. `train` is the loop, top to bottom, shared by `sft` and `pretrain`. A parent
//! process (the `star` binary) runs [`cli::main_from`] in a child and reads [`progress::Event`]s from
//! its stdout.

pub mod cli;
pub mod config;
pub mod error;
#[cfg(test)]
mod testing;

pub mod dataset;
pub mod pack;
pub mod rng;
pub mod tokenizer_training;

pub mod budget;

pub mod forward;
pub mod gpu;
pub mod gradients;
pub mod init;
pub mod lora;
pub mod optimizer;
pub mod plan;
pub mod schedule;
pub mod weights;

pub mod accuracy;
pub mod best;
pub mod distributed;
pub mod outputs;
pub mod pretrain;
pub mod sft;
pub mod stop;
pub mod train;

pub mod checkpoint;
pub mod folders;
mod memory;
pub mod metrics;
pub mod notify;
mod plots;
pub mod progress;
pub mod resume;
pub mod state_file;
pub mod tensorboard;
pub mod throughput;
