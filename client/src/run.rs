//! The whole experiment, as one resumable command: zero-shot test, bootstrapping, both fine-tunings
//! with a hot swap and an evaluation after each epoch, final tests, report.
//!
//! Held-out questions are split off before bootstrapping; the epoch is chosen on them, and the test
//! questions are put once per model. Every finished stage is in `state.json`.

mod checkpoints;
mod embedded_server;
mod fine_tune;
mod inputs;
mod kind;
mod losses;
mod memory;
mod methods;
mod recipe;
mod results;
mod settings;
mod stages;
mod state;
mod trainer_process;
mod turns;

pub use embedded_server::{EmbeddedServer, Hardware};
pub use settings::{
    ChooseEpoch, LoopSettings, PromptMismatch, Rationales, Restart, Settings, Solutions, TestWhen,
    TuningSettings,
};
pub use stages::{Experiment, ServerSide, run};
pub use trainer_process::{TRAINER_COMMAND, trainer_main};
