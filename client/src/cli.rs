//! From arguments to an exit code: the flags are in `args`, what each command does in `commands`.
//! The only place that reads arguments and environment.

mod args;
mod bench;
mod commands;
mod dataset;
#[cfg(feature = "embedded")]
mod experiment;
mod policy;
mod resolve;
#[cfg(feature = "embedded")]
mod settings;

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;

pub use args::{Cli, Command};

use crate::{error::ClientError, interrupt::Interrupt};

/// Runs `star` with these arguments (the first is the program's name). Exit codes: 0 done, 1
/// failed, 2 wrong usage, 75 stopped half-way and resumable.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    #[cfg(feature = "embedded")]
    if args
        .get(1)
        .is_some_and(|name| name == crate::run::TRAINER_COMMAND)
    {
        return crate::run::trainer_main(args);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
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
    start_log(&cli.log);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "star: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| ClientError::Usage(format!("cannot start the runtime: {cause}")))?;
    let done = runtime.block_on(async {
        let interrupt = Interrupt::on_signals()
            .map_err(|cause| ClientError::Usage(format!("cannot listen to signals: {cause}")))?;
        commands::run(cli, interrupt).await
    });
    // A computation that a server in this process still makes must not hold up the end.
    runtime.shutdown_background();
    done
}

/// The program's own log, to stderr. A filter that cannot be read falls back to warnings.
fn start_log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Fails only where a subscriber exists already (a second call in one process).
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

#[cfg(test)]
mod tests;
