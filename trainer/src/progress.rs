//! What a training run tells the outside while it runs: one [`Event`] per thing that happened, to a
//! terminal (bar), a log (lines) or a parent process (one JSON object per line on stdout).
//! What is kept on disk for later lives in `metrics`, not here.

mod event;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

pub use self::event::Event;

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

impl Progress {
    /// Prints a result on stdout: as one JSON object where progress is JSON, else as text.
    pub fn print(&mut self, result: &impl Serialize, text: &str) {
        let line = match &self.sink {
            Sink::Json => serde_json::to_string(result).unwrap_or_default() + "\n",
            _ => text.to_string(),
        };
        // A reader that went away is no error.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
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
