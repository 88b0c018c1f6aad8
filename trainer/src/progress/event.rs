//! What can happen in a run, and how it is said in one line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::outputs::SAVE_NOW_FILE;

/// One thing that happened. With `--progress json` each is one line on stdout, tagged by `event`:
/// `{"event":"step","step":12,...}`. Losses are in nats per label token; times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run is about to take its first step. `total_steps` is absent where a time limit or a
    /// token budget ends the run.
    Start {
        command: String,
        out: PathBuf,
        num_parameters: u64,
        num_train_examples: u64,
        num_validation_examples: u64,
        /// Examples left out because prompt (and answer) exceed the maximum length.
        num_skipped_too_long: u64,
        /// Examples whose answer was cut to the maximum length.
        num_truncated: u64,
        num_epochs: u32,
        total_steps: Option<u64>,
        /// The epoch this run begins with: 1, or the one after the checkpoint it resumes from.
        first_epoch: u32,
    },
    /// Training goes on from this complete checkpoint. `epoch` is the last one done.
    Resumed {
        epoch: u32,
        step: u64,
        path: PathBuf,
    },
    /// One optimizer step. `step` counts from 1.
    Step {
        step: u64,
        total_steps: Option<u64>,
        epoch: u32,
        loss: f64,
        lr: f64,
        /// Global norm of the averaged gradient before clipping.
        grad_norm: f64,
        /// Tokens that went through the network in this step, and those that carried a label.
        tokens: u64,
        label_tokens: u64,
        tokens_per_s: f64,
        #[serde(default)]
        label_tokens_per_s: Option<f64>,
        /// Model FLOP/s over the machine's peak, 0 to 1.
        #[serde(default)]
        mfu: Option<f64>,
        /// Done part of the run, 0 to 1.
        progress: f64,
        eta_s: f64,
    },
    /// Loss or gradient norm was not finite, or the loss a spike: the update was left out.
    StepSkipped {
        step: u64,
        epoch: u32,
        reason: String,
        num_in_a_row: u32,
    },
    /// What a server that has loaded the epoch's checkpoint got right. 95 % interval (Wilson).
    Accuracy {
        epoch: u32,
        num_right: u64,
        num_questions: u64,
        low: f64,
        high: f64,
        /// Extraction rule, most new tokens, and the answers that were cut there (never right).
        rule: String,
        max_new_tokens: u32,
        num_truncated: u64,
    },
    /// The run ends before its last epoch: it got no better.
    EarlyStop {
        epoch: u32,
        best_epoch: u32,
        best_value: f64,
    },
    /// Validation between two epochs (pre-training only).
    Evaluated {
        step: u64,
        validation_loss: f64,
        validation_perplexity: f64,
    },
    /// An epoch is over. Perplexity is exp(sum of NLL / label tokens).
    EpochEnd {
        epoch: u32,
        train_loss: f64,
        train_perplexity: f64,
        validation_loss: Option<f64>,
        validation_perplexity: Option<f64>,
    },
    /// A checkpoint folder is complete on disk. `epoch` is absent where it lies between two.
    Checkpoint {
        epoch: Option<u32>,
        step: u64,
        path: PathBuf,
        manifest_sha256: String,
    },
    /// A generation server was asked to load the checkpoint. A failure never stops training.
    Notified {
        server: String,
        checkpoint: String,
        ok: bool,
        message: String,
        /// The server's weights version after the swap.
        weights_number: Option<u64>,
        weights_digest: Option<String>,
    },
    /// Something the user should know that does not stop the run.
    Warning { message: String },
    /// The run ended. `interrupted`: a signal or time limit asked for it, and it can be resumed.
    Done {
        steps: u64,
        tokens: u64,
        seconds: f64,
        interrupted: bool,
        /// The newest complete checkpoint.
        path: Option<PathBuf>,
    },
}

impl Event {
    /// The event as one line for people.
    pub fn line(&self) -> String {
        match self {
            Event::Start { .. } => self.start_line(),
            Event::Resumed { epoch, step, path } => {
                format!(
                    "resumed at step {step}, {epoch} epochs done, from {}",
                    path.display()
                )
            }
            Event::Step { .. } => self.step_line(),
            Event::StepSkipped {
                step,
                reason,
                num_in_a_row,
                ..
            } => format!("step {step} skipped ({num_in_a_row} in a row): {reason}"),
            Event::Evaluated {
                step,
                validation_loss,
                validation_perplexity,
            } => format!(
                "step {step}: validation loss {validation_loss:.4}, perplexity {validation_perplexity:.3}"
            ),
            Event::EpochEnd {
                epoch,
                train_loss,
                train_perplexity,
                validation_loss,
                validation_perplexity,
            } => {
                let validation = match (validation_loss, validation_perplexity) {
                    (Some(loss), Some(perplexity)) => {
                        format!("; validation loss {loss:.4}, perplexity {perplexity:.3}")
                    }
                    _ => String::new(),
                };
                format!(
                    "epoch {epoch}: train loss {train_loss:.4}, perplexity {train_perplexity:.3}{validation}"
                )
            }
            Event::Accuracy { .. } => self.accuracy_line(),
            Event::EarlyStop {
                epoch, best_epoch, ..
            } => format!("stopped early after epoch {epoch}: epoch {best_epoch} is the best"),
            Event::Checkpoint { path, .. } => format!("checkpoint {}", path.display()),
            Event::Notified {
                server,
                checkpoint,
                ok,
                message,
                ..
            } => {
                let outcome = if *ok { "loaded" } else { "did not load" };
                format!("{server} {outcome} {checkpoint}: {message}")
            }
            Event::Warning { message } => format!("warning: {message}"),
            Event::Done {
                steps,
                tokens,
                seconds,
                interrupted,
                ..
            } => {
                let end = if *interrupted { "interrupted" } else { "done" };
                let time = human_seconds(*seconds);
                format!("{end}: {steps} steps, {tokens} tokens in {time}")
            }
        }
    }

    fn start_line(&self) -> String {
        let Event::Start {
            command,
            num_parameters,
            num_train_examples,
            num_validation_examples,
            num_skipped_too_long,
            num_truncated,
            num_epochs,
            first_epoch,
            out,
            ..
        } = self
        else {
            return String::new();
        };
        format!(
            "{command}: {num_parameters} parameters, {num_train_examples} training and \
             {num_validation_examples} validation examples ({num_skipped_too_long} skipped as too \
             long, {num_truncated} cut), epochs {first_epoch}..={num_epochs}; to save now: touch {}",
            out.join(SAVE_NOW_FILE).display()
        )
    }

    fn accuracy_line(&self) -> String {
        let Event::Accuracy {
            epoch,
            num_right,
            num_questions,
            low,
            high,
            rule,
            max_new_tokens,
            num_truncated,
        } = self
        else {
            return String::new();
        };
        format!(
            "epoch {epoch}: accuracy {num_right}/{num_questions} [{low:.3}, {high:.3}] (rule {rule}; \
             {num_truncated} cut at {max_new_tokens} tokens)"
        )
    }

    fn step_line(&self) -> String {
        let Event::Step {
            step,
            total_steps,
            epoch,
            loss,
            lr,
            grad_norm,
            tokens_per_s,
            label_tokens_per_s,
            mfu,
            progress,
            eta_s,
            ..
        } = self
        else {
            return String::new();
        };
        let total = total_steps.map_or(String::new(), |total| format!("/{total}"));
        let labels =
            label_tokens_per_s.map_or(String::new(), |rate| format!(" ({rate:.0} labels)"));
        let mfu = mfu.map_or(String::new(), |mfu| format!(", MFU {:.1} %", mfu * 100.0));
        format!(
            "epoch {epoch} step {step}{total} ({:.1} %) loss {loss:.4} lr {lr:.2e} norm \
             {grad_norm:.2} {tokens_per_s:.0} tok/s{labels}{mfu}, {} left",
            progress * 100.0,
            human_seconds(*eta_s),
        )
    }
}

/// `90` as `1m30s`.
fn human_seconds(seconds: f64) -> String {
    let total = seconds.max(0.0).round() as u64;
    let (hours, minutes, rest) = (total / 3600, total % 3600 / 60, total % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}
