//! `star generate` and `star reload`: one call each, for a person.

use std::io::Write;

use data::{prompt::PromptFormat, record::Decoding};
use futures::StreamExt;

use super::{
    super::args::{GenerateArgs, ReloadArgs},
    print, show,
};
use crate::{
    cli::resolve,
    connection::Piece,
    error::ClientError,
    eval::short,
    interrupt::Interrupt,
    request::{Item, Prompt},
    session::{FormatChoice, choose_format, nonce},
};

pub(super) async fn generate(args: GenerateArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let decoding = Decoding {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        max_tokens: args.max_tokens,
        stop: args.stop,
    };
    resolve::check_decoding(Some(&decoding))?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let format = match resolve::format(args.prompt_format) {
        FormatChoice::Plain => PromptFormat::Plain,
        choice => choose_format(choice, &server.model().await?)?,
    };
    let item = Item {
        request_id: nonce(),
        prompt: Prompt::new(args.prompt, format),
        decoding,
        seed: args.seed,
    };
    let mut pieces = server.generate_stream(&item).await?;
    let mut stdout = std::io::stdout();
    loop {
        let piece = tokio::select! {
            piece = pieces.next() => piece,
            // Dropping the stream cancels the request on the server.
            () = interrupt.wait() => return Err(ClientError::Interrupted),
        };
        match piece.transpose()? {
            Some(Piece::Text(text)) => show(&mut stdout, &text)?,
            Some(Piece::Finished(answer)) => {
                show(&mut stdout, &answer.text)?;
                show(&mut stdout, "\n")?;
                if answer.finish.is_cut() {
                    let line = "star: the answer was cut; --max-tokens N allows a longer one";
                    let _ = writeln!(std::io::stderr().lock(), "{line}");
                }
                return Ok(());
            }
            None => {
                let problem = "the stream ended without its last message".to_owned();
                return Err(ClientError::BadReply(problem));
            }
        }
    }
}

pub(super) async fn reload(args: ReloadArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let swap = server.reload(&args.checkpoint).await?;
    print(&format!(
        "{} (version {}, {}) replaced {} (version {}); loaded in {} ms, swapped in {} ms",
        swap.new.checkpoint,
        swap.new.version,
        short(&swap.new.digest),
        swap.old.checkpoint,
        swap.old.version,
        swap.load_ms,
        swap.swap_ms
    ))
}
