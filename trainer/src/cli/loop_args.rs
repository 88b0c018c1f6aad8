//! The flags of the training loop: checkpoints between epochs, skipped steps, the best epoch.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::NotifyArgs;
use crate::best::{BestConfig, EarlyStopping, Metric};
use crate::config::{StepSaving, StepServers};
use crate::error::{Result, TrainError};
use crate::train::guard::{GuardConfig, SpikeGuard};

/// Checkpoints beside those of the epochs. SIGTERM, SIGINT and SIGUSR1 save one, too.
#[derive(Debug, Clone, Args)]
pub struct StepArgs {
    /// Save `OUT/step_<n>` after every so many optimizer steps. (At any time, creating the file
    /// OUT/save_now saves one.)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_steps: Option<u64>,
    /// The newest so many step folders stay; epoch folders all do.
    #[arg(long, value_name = "K", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_step_checkpoints: u32,
    /// The servers load step folders, too.
    #[arg(long, requires = "server")]
    pub notify_steps: bool,
}

/// Which steps make no update.
#[derive(Debug, Clone, Args)]
pub struct GuardArgs {
    /// Skip steps whose loss lies so many standard deviations above the mean of the last steps.
    /// Default: only those whose loss or gradient norm is not finite.
    #[arg(long, value_name = "S")]
    pub spike_sigma: Option<f64>,
    /// Good steps that a loss is compared with; before there are so many none is a spike.
    #[arg(long, value_name = "STEPS", default_value_t = 64)]
    pub spike_window: usize,
    /// So many skipped steps in a row end the run with an error.
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub max_skipped_steps: u32,
}

/// Which epoch is the best, and when to stop looking for a better one.
#[derive(Debug, Clone, Args)]
pub struct BestArgs {
    /// What OUT/best.json is chosen by.
    #[arg(long, value_enum, default_value_t)]
    pub best_by: Metric,
    /// End the run after so many epochs without an improvement.
    #[arg(long, value_name = "EPOCHS")]
    pub early_stopping_patience: Option<u32>,
    /// A smaller improvement is none to the patience.
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        requires = "early_stopping_patience"
    )]
    pub min_improvement: f64,
    /// GSM8K questions that the first server is asked after it has loaded an epoch, with the prompt of
    /// training, greedy.
    #[arg(long, value_name = "FILE.jsonl", requires = "server")]
    pub accuracy_questions: Option<PathBuf>,
    /// An answer that is cut here is wrong.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub accuracy_max_new_tokens: u32,
    /// Time for all questions of an epoch, in seconds; training waits meanwhile.
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub accuracy_time_limit_s: u64,
}

impl StepArgs {
    pub fn config(&self) -> StepSaving {
        StepSaving {
            every: self.save_steps,
            max_kept: self.keep_step_checkpoints as usize,
            servers: if self.notify_steps {
                StepServers::Told
            } else {
                StepServers::NotTold
            },
        }
    }
}

impl GuardArgs {
    pub fn config(&self) -> Result<GuardConfig> {
        let window = self.spike_window;
        let config = GuardConfig {
            spike: self.spike_sigma.map(|sigma| SpikeGuard { sigma, window }),
            max_skipped_in_a_row: self.max_skipped_steps,
        };
        config.check()?;
        Ok(config)
    }
}

impl BestArgs {
    /// An epoch must have a value of the metric that the run ends by.
    pub fn config(&self, notify: &NotifyArgs, num_held_out: usize) -> Result<BestConfig> {
        let stopping = self.early_stopping_patience.map(|patience| EarlyStopping {
            patience,
            min_improvement: self.min_improvement,
        });
        if let Some(stopping) = &stopping {
            stopping.check()?;
        }
        let missing = |flag, found: &str, expected: &str| {
            Err(TrainError::BadSetting {
                flag,
                found: found.to_string(),
                expected: expected.to_string(),
            })
        };
        match self.best_by {
            Metric::Accuracy if self.accuracy_questions.is_none() || notify.server.is_empty() => {
                missing(
                    "--best-by",
                    "accuracy",
                    "--accuracy-questions and --server beside it",
                )
            }
            Metric::ValidationLoss if stopping.is_some() && num_held_out == 0 => missing(
                "--early-stopping-patience",
                "a patience without held-out examples",
                "--validation-fraction > 0, or --best-by accuracy",
            ),
            metric => Ok(BestConfig { metric, stopping }),
        }
    }

    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.accuracy_time_limit_s)
    }
}
