//! What a training run tells the outside while it runs: one [`Event`] per thing that happened, to a
//! terminal (bar), a log (lines) or a parent process (one JSON object per line on stdout).
//! What is kept on disk for later lives in `metrics`, not here.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

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
    /// Training goes on from this complete checkpoint.
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
        /// Done part of the run, 0 to 1.
        progress: f64,
        eta_s: f64,
    },
    /// Loss or gradient norm was not finite: the update was left out.
    StepSkipped {
        step: u64,
        epoch: u32,
        reason: String,
        num_in_a_row: u32,
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
    /// A checkpoint folder is complete on disk. Pre-training has no epoch folders.
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

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar where stderr is a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// One JSON object per event on stdout.
    Json,
    /// Plain lines on stderr.
    Plain,
    /// Nothing.
    Quiet,
}

/// Plain step lines come at most this often; every other event is always shown.
const PLAIN_STEP_INTERVAL: Duration = Duration::from_secs(2);

/// Where events go.
#[derive(Debug)]
pub struct Progress {
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Bar(ProgressBar),
    Plain {
        last_step_line: Option<Instant>,
    },
    Json,
    Quiet,
    /// Keeps events for a test to look at.
    Memory(Vec<Event>),
}

impl Progress {
    pub fn new(mode: ProgressMode) -> Self {
        let sink = match mode {
            ProgressMode::Json => Sink::Json,
            ProgressMode::Quiet => Sink::Quiet,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Sink::Bar(new_bar()),
            ProgressMode::Auto | ProgressMode::Plain => Sink::Plain {
                last_step_line: None,
            },
        };
        Self { sink }
    }

    /// Keeps every event in memory, in order.
    pub fn memory() -> Self {
        Self {
            sink: Sink::Memory(Vec::new()),
        }
    }

    /// The events kept by [`Progress::memory`]; empty for every other kind.
    pub fn events(&self) -> &[Event] {
        match &self.sink {
            Sink::Memory(events) => events,
            _ => &[],
        }
    }

    /// Shows one event. A reader that went away (closed pipe) is no reason to stop training, so
    /// write errors are dropped.
    pub fn emit(&mut self, event: Event) {
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Memory(events) => events.push(event),
            Sink::Json => {
                if let Ok(line) = serde_json::to_string(&event) {
                    let mut stdout = std::io::stdout().lock();
                    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
                }
            }
            Sink::Plain { last_step_line } => {
                if matches!(event, Event::Step { .. }) {
                    let due = last_step_line.is_none_or(|at| at.elapsed() >= PLAIN_STEP_INTERVAL);
                    if !due {
                        return;
                    }
                    *last_step_line = Some(Instant::now());
                }
                let _ = writeln!(std::io::stderr().lock(), "{}", event.line());
            }
            Sink::Bar(bar) => show_on_bar(bar, &event),
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn show_on_bar(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Step { progress, .. } => {
            bar.set_position((progress * 1000.0) as u64);
            bar.set_message(event.line());
        }
        Event::Done { .. } => {
            bar.finish_and_clear();
            let _ = writeln!(std::io::stderr().lock(), "{}", event.line());
        }
        _ => bar.println(event.line()),
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

impl Event {
    /// The event as one line for people.
    pub fn line(&self) -> String {
        match self {
            Event::Start { .. } => self.start_line(),
            Event::Resumed { epoch, step, path } => {
                format!(
                    "resumed after epoch {epoch} (step {step}) from {}",
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
            ..
        } = self
        else {
            return String::new();
        };
        format!(
            "{command}: {num_parameters} parameters, {num_train_examples} training and \
             {num_validation_examples} validation examples ({num_skipped_too_long} skipped as too \
             long, {num_truncated} cut), epochs {first_epoch}..={num_epochs}"
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
            progress,
            eta_s,
            ..
        } = self
        else {
            return String::new();
        };
        let total = total_steps.map_or(String::new(), |total| format!("/{total}"));
        format!(
            "epoch {epoch} step {step}{total} ({:.1} %) loss {loss:.4} lr {lr:.2e} norm \
             {grad_norm:.2} {tokens_per_s:.0} tok/s, {} left",
            progress * 100.0,
            human_seconds(*eta_s),
        )
    }
}
