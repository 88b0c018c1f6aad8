//! What each command does, in a few lines over the library. Results go to stdout.

pub(super) mod examples;
mod status;

use std::io::Write;

use data::{
    append_log::read_log,
    number::Number,
    prompt::PromptFormat,
    question::gold_number,
    record::{Attempt, Decoding},
};
use futures::StreamExt;

use super::{
    args::{
        BootstrapArgs, Cli, Command, CompareArgs, EvalArgs, GenerateArgs, LossArgs, ReloadArgs,
        ScoreArgs,
    },
    resolve,
};
use crate::{
    compare::{Strictness, compare_folders},
    connection::Piece,
    error::ClientError,
    eval::short,
    files,
    interrupt::Interrupt,
    loss::{Examples, LossMethod, measure},
    request::{Item, Prompt},
    score,
    session::{FormatChoice, Questions, choose_format, load_prompt, nonce},
};

/// Runs a command to its end.
pub(super) async fn run(cli: Cli, interrupt: Interrupt) -> Result<(), ClientError> {
    match cli.command {
        #[cfg(feature = "embedded")]
        Command::Demo(args) => super::experiment::demo(*args, interrupt).await,
        #[cfg(feature = "embedded")]
        Command::Run(args) => super::experiment::run(*args, interrupt).await,
        #[cfg(feature = "embedded")]
        Command::RandomModel(args) => super::experiment::random_model(&args),
        Command::Eval(args) => eval(*args, interrupt).await,
        Command::Bootstrap(args) => bootstrap(*args, interrupt).await,
        Command::Compare(args) => compare(&args),
        Command::Score(args) => score(&args),
        Command::Generate(args) => generate(args, interrupt).await,
        Command::Loss(args) => loss(args, interrupt).await,
        Command::Status(args) => status::status(args, interrupt).await,
        Command::Reload(args) => reload(args, interrupt).await,
        Command::Bench(args) => super::bench::bench(*args, interrupt).await,
        Command::Report(args) => {
            let page = crate::report::render(&args.folder)?;
            print(&page.display().to_string())
        }
    }
}

async fn eval(args: EvalArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let method = resolve::eval_method(&args.method)?;
    let questions = Questions::read(&args.dataset, args.method.limit)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = resolve::context(server, &args.server.connection, interrupt).await?;
    let summary = crate::eval::evaluate(&context, method, &questions, &args.out, "eval").await?;
    if args.json {
        print_json(&summary)
    } else {
        print(&summary.text())
    }
}

async fn bootstrap(args: BootstrapArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let (method, policy) = resolve::bootstrap_method(&args.method, &args.samples, args.iteration)?;
    let questions = Questions::read(&args.dataset, args.method.limit)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = resolve::context(server, &args.server.connection, interrupt).await?;
    let summary =
        crate::bootstrap::bootstrap(&context, method, policy, &questions, &args.out).await?;
    if args.json {
        print_json(&summary)
    } else {
        print(&summary.text())
    }
}

fn compare(args: &CompareArgs) -> Result<(), ClientError> {
    let strictness = if args.force {
        Strictness::Force
    } else {
        Strictness::Refuse
    };
    let (comparison, differences) = compare_folders(&args.first, &args.second, strictness)?;
    for difference in differences {
        let (field, left, right) = (difference.field, difference.left, difference.right);
        print(&format!("WARNING: {field} differs: {left} against {right}"))?;
    }
    print(&comparison.text())
}

fn score(args: &ScoreArgs) -> Result<(), ClientError> {
    if let Ok(log) = read_log::<Attempt>(&args.file) {
        return print(&score::of_attempts(&log.records));
    }
    let records = read_log::<serde_json::Value>(&args.file)?.records;
    let mut texts = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let wrong = |key: &str, problem: &str| ClientError::BadFile {
            path: args.file.clone(),
            problem: format!("line {}: key `{key}` {problem}", index + 1),
        };
        let text = record[&args.text_key].as_str();
        let text = text.ok_or_else(|| wrong(&args.text_key, "is not a text"))?;
        let gold = gold_of(&record[&args.gold_key]);
        let gold = gold.ok_or_else(|| wrong(&args.gold_key, "holds no number"))?;
        texts.push((text.to_owned(), gold));
    }
    print(&score::of_texts(&texts))
}

async fn loss(args: LossArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let method = LossMethod {
        prompt: load_prompt(&args.prompt)?,
        format: resolve::format(args.prompt_format),
        max_length: args.max_length,
    };
    let examples = Examples::read(&args.dataset, args.limit)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = resolve::context(server, &args.server.connection, interrupt).await?;
    let summary = measure(&context, &method, &examples).await?;
    if let Some(file) = &args.out {
        files::write_json(file, &summary)?;
    }
    if args.json {
        print_json(&summary)
    } else {
        print(&summary.text())
    }
}

fn gold_of(value: &serde_json::Value) -> Option<Number> {
    match value {
        serde_json::Value::String(text) => gold_number(text),
        serde_json::Value::Number(number) => Number::parse(&number.to_string()),
        _ => None,
    }
}

async fn generate(args: GenerateArgs, interrupt: Interrupt) -> Result<(), ClientError> {
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

async fn reload(args: ReloadArgs, interrupt: Interrupt) -> Result<(), ClientError> {
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
