//! The flags of `star preflight`.

use std::path::PathBuf;

use clap::Args;

use super::{DatasetArgs, MethodArgs, ServerArgs};

#[derive(Debug, Args)]
pub struct PreflightCommandArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions, of which the first 64 are put: a file, or a name in the Hugging Face cache
    #[arg(long, value_name = "FILE|NAME")]
    pub dataset: PathBuf,
    #[command(flatten)]
    pub questions: DatasetArgs,
    #[command(flatten)]
    pub method: MethodArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}
