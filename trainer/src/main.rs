//! The trainer as a program of its own. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::main_from(std::env::args_os())
}
