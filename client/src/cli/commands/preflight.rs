//! `star preflight`.

use super::{super::args::PreflightCommandArgs, print, print_json};
use crate::{
    cli::{dataset, resolve},
    error::ClientError,
    interrupt::Interrupt,
    preflight::{OnTrouble, Probe, probe},
    session::nonce,
};

pub(super) async fn preflight(
    args: PreflightCommandArgs,
    interrupt: Interrupt,
) -> Result<(), ClientError> {
    let asked = resolve::preflight_method(&args.method)?;
    let on_trouble = resolve::preflight(args.method.preset, &args.method.preflight);
    let questions = dataset::questions(&args.dataset, &args.questions, args.method.limit)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = resolve::context(server, &args.server.connection, interrupt).await?;
    let folder = std::env::temp_dir().join(format!("star-preflight-{}", nonce()));
    let probed = probe(&context, asked, &questions, &folder).await;
    // Where nothing was asked there is nothing to remove.
    let _ = std::fs::remove_dir_all(&folder);
    let probed: Probe = probed?;
    if args.json {
        print_json(&probed)?;
    } else {
        print(&probed.text())?;
    }
    if probed.is_bad() && on_trouble == OnTrouble::Stop {
        let sentence = "the first answers are not what a long run needs".to_owned();
        return Err(ClientError::Preflight(sentence));
    }
    Ok(())
}
