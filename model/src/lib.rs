//! Everything a checkpoint folder means: its config, tokenizer, chat template and weights, in and
//! out, and the Llama network over packed tokens.
//!
//! Read in this order: [`folder`] (the folder as a whole), [`config`], [`tokenizer`], [`weights`]
//! with [`load`] and [`save`], then [`llama`], the network.
//!
//! Nothing here reads the environment, opens a socket or runs code found in a checkpoint: weights are
//! safetensors only, templates run in a sandbox with a limit on their instructions.

pub mod error;

pub mod config;
mod config_json;
pub mod folder;
pub mod hub;
pub mod manifest;

pub mod decode_stream;
pub mod template;
pub mod tokenizer;

pub mod dtype;
pub mod load;
pub mod save;
pub mod weights;

pub mod gpu;
pub mod llama;

pub mod random;

#[cfg(test)]
mod testing;

pub use error::{ModelError, Result};
