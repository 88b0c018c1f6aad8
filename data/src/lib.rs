//! What STaR knows about questions and answers: question sets, prompts, answer extraction, attempt
//! records, the filter that turns attempts into training data, splits and statistics.
//!
//! Nothing here knows a tensor or a protobuf message. Reading order is the order of the `mod` lines.

pub mod number;

pub mod annotation;
pub mod equation;
pub mod question;

pub mod conversation;
pub mod prompt;

pub mod example;

pub mod answer;
pub mod leak;

pub mod record;
pub mod select;

pub mod preference;

pub mod append_log;

pub mod split;
pub mod stats;

pub mod pseudo_label;

pub mod demo;

mod by_question;
mod digest;
