//! `star`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::cli::main_from(std::env::args_os())
}
