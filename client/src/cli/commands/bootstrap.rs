//! `star bootstrap`.

use super::{super::args::BootstrapArgs, print, print_json};
use crate::{
    cli::{dataset, resolve},
    error::ClientError,
    interrupt::Interrupt,
    session::Context,
};

pub(super) async fn bootstrap(
    args: BootstrapArgs,
    interrupt: Interrupt,
) -> Result<(), ClientError> {
    let (method, policy) = resolve::bootstrap_method(&args.method, &args.samples, args.iteration)?;
    let questions = dataset::questions(&args.dataset, &args.questions, args.method.limit)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = Context {
        preflight: resolve::preflight(args.method.preset, &args.method.preflight),
        ..resolve::context(server, &args.server.connection, interrupt).await?
    };
    let summary =
        crate::bootstrap::bootstrap(&context, method, policy, &questions, &args.out).await?;
    if args.json {
        print_json(&summary)
    } else {
        print(&summary.text())
    }
}
