//! From arguments to an exit code. [`main_from`] is the whole program, so that another binary can be
//! its own trainer child process. The flags themselves are in `cli/args.rs`
//! and beside it.

pub mod args;
pub mod data_args;
pub mod device_args;
pub mod group_args;
pub mod log_args;
pub mod loop_args;
pub mod method;
pub mod optimizer_args;
pub mod ranks;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use self::args::{Arguments, Command};
use crate::progress::Progress;
use crate::stop::StopFlag;
use crate::train::Outcome;

/// `sft` was stopped by SIGTERM, SIGINT or SIGUSR1 and has saved its state; the same command goes on
/// from there. The number is `EX_TEMPFAIL` of sysexits.h.
pub const EXIT_RESUMABLE: u8 = 75;

/// Runs the trainer with these arguments (the first is the program's name, as in
/// [`std::env::args_os`]) and returns its exit code: 0 done, 1 failed (the reason is on stderr),
/// 2 wrong usage, 75 stopped and resumable. A stopped `pretrain` has saved its model but cannot be
/// resumed, which counts as failed.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::memory::keep_freed_memory();
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" that clap prints on stdout and that end well.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let stopped = stopped_exit(&arguments.command);
    match run(arguments) {
        Ok(Outcome::Finished) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => {
            let (code, sentence) = stopped;
            eprintln!("trainer: {sentence}");
            ExitCode::from(code)
        }
        Err(error) => {
            // The library's errors are whole sentences, causes included.
            eprintln!("trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether [`main_from`] would understand these arguments.
///
/// # Errors
/// What it would print, as one line.
pub fn check_arguments(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let text = |error: clap::Error| {
        let text = error.to_string();
        let reason: Vec<&str> = text.split("\n\n").next().unwrap_or(&text).lines().collect();
        reason.join(" ").trim_start_matches("error: ").to_owned()
    };
    Arguments::try_parse_from(args).map(drop).map_err(text)
}

/// Exit code and sentence of a run that a signal ended.
fn stopped_exit(command: &Command) -> (u8, String) {
    match command {
        Command::Sft(_) | Command::Plan(_) | Command::Merge(_) => (
            EXIT_RESUMABLE,
            "stopped by a signal; the same command goes on from the newest checkpoint".into(),
        ),
        Command::Pretrain(args) => {
            let model = args.out.join("model");
            let sentence = format!(
                "stopped by a signal before the end; the model so far is {model}, and a new run with \
                 --init-from {model} and another --out can train it further",
                model = model.display()
            );
            (1, sentence)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    // The others are short, or have nothing to save: a signal ends them.
    let stop = match &arguments.command {
        Command::Sft(_) | Command::Pretrain(_) => StopFlag::on_signals()?,
        Command::Plan(_) | Command::Merge(_) => StopFlag::default(),
    };
    if let Some(threads) = arguments.threads {
        // Fails only where the pool already exists (a second run in one process): that one serves.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global();
    }
    let mut progress = Progress::new(arguments.progress);
    // Inside the pool: a thread outside it would hand every product over and sleep meanwhile.
    let outcome = rayon::scope(|_| match arguments.command {
        Command::Sft(mut args) => {
            args.ranks = ranks::from_environment()?;
            crate::sft::run(&args, &stop, &mut progress)
        }
        Command::Pretrain(args) => crate::pretrain::run(&args, &stop, &mut progress),
        Command::Plan(mut args) => {
            args.sft.ranks = ranks::from_environment()?;
            crate::sft::plan(&args, &mut progress).map(|()| Outcome::Finished)
        }
        Command::Merge(args) => crate::lora::merge::merge(&args).map(|()| Outcome::Finished),
    })?;
    Ok(outcome)
}

#[cfg(test)]
mod tests;
