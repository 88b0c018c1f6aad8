//! What the binary `star` does: evaluation, bootstrapping and the whole STaR loop over a live
//! generation server.
//!
//! Reading order: `request` (the shared words), `connection` (the wire), `generate` (bulk
//! generation), `dataset` (question files), `session` and `collect` (from a question to an attempt on record), `eval` and
//! `bootstrap`, `run` (the experiment), `report`; `bench` stands alone. Only `connection` knows
//! protobuf; only `cli` reads arguments and the environment.

pub mod clock;
pub mod error;
pub mod files;
pub mod interrupt;
pub mod request;

pub mod connection;
pub mod generate;

pub mod manifest;
pub mod progress;

pub mod dataset;

pub mod sampling;
pub mod session;

pub mod collect;

pub mod preflight;

pub mod bootstrap;
pub mod eval;

pub mod compare;
pub mod loss;
pub mod score;
pub mod select;

pub mod report;

pub mod bench;

#[cfg(feature = "embedded")]
pub mod run;

pub mod cli;

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod test_support;
