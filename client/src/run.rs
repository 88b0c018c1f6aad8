//! The whole experiment, as one resumable command: zero-shot test, bootstrapping, both fine-tunings
//! with a hot swap and an evaluation after each epoch, final tests, report.
//!
//! Held-out questions are split off before bootstrapping; the epoch is chosen on them, and the test
//! questions are put once per model. Every finished stage is in `state.json`.

mod checkpoints;
mod embedded_server;
mod fine_tune;
mod inputs;
mod losses;
mod memory;
mod results;
mod settings;
mod stages;
mod state;
mod trainer_process;

pub use embedded_server::EmbeddedServer;
pub use settings::{AcceptPolicy, ChooseEpoch, Settings, Solutions};
pub use stages::{Experiment, ServerSide, run};
pub use trainer_process::{TRAINER_COMMAND, trainer_main};
