//! How far a stage is: a bar with rate and remaining time on a terminal, plain lines where stderr is
//! a file (SLURM logs, pipes). Everything here goes to stderr; results go to stdout.

mod plain;

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use plain::PlainLines;

/// Bars are redrawn by indicatif at most this often per second; a note costs nothing more.
const BAR_TEMPLATE: &str = "{prefix:<22} {bar:24} {pos:>6}/{len} {rate:>10} ETA {eta:>4}  {msg}";

/// The progress of one stage.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    note: String,
    started: Instant,
    face: Face,
}

#[derive(Debug)]
enum Face {
    Bar(ProgressBar, MultiProgress),
    Lines(PlainLines),
    Hidden,
}

/// Where progress is shown. Clones share the terminal, so that bars of stages that run at the same
/// time stand below each other.
#[derive(Debug, Clone)]
pub enum ProgressMode {
    /// Bars, and lines above them.
    Bars(MultiProgress),
    /// Plain lines.
    Lines,
    Hidden,
}

impl ProgressMode {
    /// Bars where stderr is a terminal, else lines.
    pub fn auto() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bars(MultiProgress::new())
        } else {
            Self::Lines
        }
    }

    /// A stage of `total` things, of which `done` were finished by an earlier run.
    pub fn start(&self, label: &str, total: u64, done: u64) -> Progress {
        let face = match self {
            Self::Hidden => Face::Hidden,
            Self::Lines => Face::Lines(PlainLines::new(done)),
            Self::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(total).with_prefix(label.to_owned()));
                if let Ok(style) = ProgressStyle::with_template(BAR_TEMPLATE) {
                    let style = style.with_key(
                        "rate",
                        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                            // Writing into the bar's own text cannot fail.
                            let _ = write!(out, "{:.1}/s", state.per_sec());
                        },
                    );
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_position(done);
                // Without it the rate would count what an earlier run did.
                bar.reset_eta();
                bar.enable_steady_tick(Duration::from_millis(200));
                Face::Bar(bar, bars.clone())
            }
        };
        let started = Instant::now();
        let label = label.to_owned();
        Progress {
            label,
            total,
            done,
            note: String::new(),
            started,
            face,
        }
    }

    /// A remark between two stages, or during one.
    pub fn say(&self, text: &str) {
        match self {
            Self::Bars(bars) => say_above(bars, text),
            Self::Lines => write_line(text),
            Self::Hidden => {}
        }
    }
}

impl Progress {
    /// More to do than was known at the start.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Face::Bar(bar, _) = &self.face {
            bar.set_length(total);
        }
    }

    /// What stands behind the numbers: "right 31 %", "loss 0.91".
    pub fn set_note(&mut self, note: String) {
        self.note = note;
    }

    pub fn advance(&mut self, count: u64) {
        self.set_done(self.done + count);
    }

    pub fn set_done(&mut self, done: u64) {
        self.done = done;
        match &mut self.face {
            Face::Bar(bar, _) => {
                bar.set_position(done);
                bar.set_message(self.note.clone());
            }
            Face::Lines(lines) => {
                let line = lines.line(self.started.elapsed(), done, self.total);
                if let Some(line) = line {
                    write_line(&with_note(&self.label, &line, &self.note));
                }
            }
            Face::Hidden => {}
        }
    }

    /// Ends the stage with one line that stays.
    pub fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("{}/{} in {seconds:.1} s", self.done, self.total);
        let line = with_note(&self.label, &line, &self.note);
        match &self.face {
            Face::Bar(bar, bars) => {
                bar.finish_and_clear();
                say_above(bars, &line);
            }
            Face::Lines(_) => write_line(&line),
            Face::Hidden => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // A stage that ends early must not leave half a bar on the terminal.
        if let Face::Bar(bar, _) = &self.face
            && !bar.is_finished()
        {
            bar.abandon();
        }
    }
}

fn with_note(label: &str, line: &str, note: &str) -> String {
    if note.is_empty() {
        format!("{label}: {line}")
    } else {
        format!("{label}: {line}, {note}")
    }
}

/// Above the bars that are on the terminal. A terminal that went away is no reason to stop a run.
fn say_above(bars: &MultiProgress, line: &str) {
    let _ = bars.println(line);
}

/// A closed stderr is no reason to stop a run.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
