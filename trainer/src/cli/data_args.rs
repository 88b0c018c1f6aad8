//! The flags of `sft` that say which tokens of the data make a step and which are learned.

use clap::Args;

use crate::config::{TrainOn, Window};

#[derive(Debug, Clone, Copy, Args)]
pub struct DataArgs {
    /// Tokens per optimizer step, in place of a number of examples: a step takes examples until it
    /// has at least this many.
    #[arg(
        long,
        value_name = "TOKENS",
        conflicts_with = "batch_size",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub batch_tokens: Option<u32>,
    /// Which turns of a conversation are learned.
    #[arg(long, value_enum, default_value_t)]
    pub train_on: TrainOn,
}

impl DataArgs {
    /// What makes one optimizer step.
    pub fn window(&self, batch_size: u32) -> Window {
        self.batch_tokens
            .map_or(Window::Examples(batch_size as usize), |tokens| {
                Window::Tokens(tokens as usize)
            })
    }
}
