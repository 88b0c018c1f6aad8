//! What each command does, in a few lines over the library. Results go to stdout.

mod bootstrap;
mod eval;
pub(super) mod examples;
mod generate;
mod preflight;
mod select;
mod status;

use std::io::Write;

use super::args::{Cli, Command};
use crate::{error::ClientError, interrupt::Interrupt, report};

/// Runs a command to its end.
pub(super) async fn run(cli: Cli, interrupt: Interrupt) -> Result<(), ClientError> {
    match cli.command {
        #[cfg(feature = "embedded")]
        Command::Demo(args) => super::experiment::demo(*args, interrupt).await,
        #[cfg(feature = "embedded")]
        Command::Run(args) => super::experiment::run(*args, interrupt).await,
        #[cfg(feature = "embedded")]
        Command::RandomModel(args) => super::experiment::random_model(&args),
        Command::Eval(args) => eval::eval(*args, interrupt).await,
        Command::Preflight(args) => preflight::preflight(*args, interrupt).await,
        Command::Bootstrap(args) => bootstrap::bootstrap(*args, interrupt).await,
        Command::Select(args) => select::select(&args),
        Command::Compare(args) => eval::compare(&args),
        Command::Score(args) => eval::score(*args),
        Command::Generate(args) => generate::generate(args, interrupt).await,
        Command::Loss(args) => eval::loss(args, interrupt).await,
        Command::Status(args) => status::status(args, interrupt).await,
        Command::Reload(args) => generate::reload(args, interrupt).await,
        Command::Bench(args) => super::bench::bench(*args, interrupt).await,
        Command::Report(args) => {
            let page = if args.from.is_empty() {
                report::render(&args.folder)?
            } else {
                report::render_evaluations(&args.from, &args.folder)?
            };
            print(&page.display().to_string())
        }
    }
}

/// A line on stdout. A reader that went away (`| head`) ends the output, not the command.
pub(super) fn print(text: &str) -> Result<(), ClientError> {
    show(&mut std::io::stdout(), &format!("{text}\n"))
}

pub(super) fn print_json<T: serde::Serialize>(value: &T) -> Result<(), ClientError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|cause| ClientError::BadReply(format!("a result is not JSON: {cause}")))?;
    print(&text)
}

fn show(stdout: &mut impl Write, text: &str) -> Result<(), ClientError> {
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => Err(ClientError::File {
            action: "write to",
            path: "stdout".into(),
            cause,
        }),
        _ => Ok(()),
    }
}
