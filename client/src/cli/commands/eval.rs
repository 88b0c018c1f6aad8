//! `star eval`, `star compare`, `star score` and `star loss`.

use std::path::PathBuf;

use super::{
    super::args::{CompareArgs, EvalArgs, LossArgs, ScoreArgs},
    print, print_json,
};
use crate::{
    cli::{dataset, resolve},
    compare::{ComparedRuns, How, Run, Strictness},
    error::ClientError,
    eval::{add_loss, evaluate},
    files,
    interrupt::Interrupt,
    loss::{Examples, LossMethod, measure},
    score::{ScoreSummary, score_file},
    session::{Context, load_prompt},
};

pub(super) async fn eval(args: EvalArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let method = resolve::eval_method(&args.method, args.samples)?;
    let questions = dataset::questions(&args.dataset, &args.questions, args.method.limit)?;
    // Read now: a file without solutions is known before hours of answers.
    let annotations = resolve::annotations(args.annotations);
    let solutions = || Examples::of_questions(&questions, annotations);
    let solutions = args.loss.then(solutions).transpose()?;
    let loss_method = LossMethod {
        prompt: method.prompt.clone(),
        format: method.format,
        max_length: None,
    };
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = Context {
        preflight: resolve::preflight(args.method.preset, &args.method.preflight),
        ..resolve::context(server, &args.server.connection, interrupt).await?
    };
    let mut summary = evaluate(&context, method, &questions, &args.out, "eval").await?;
    if let Some(solutions) = &solutions {
        summary = add_loss(&context, summary, (&loss_method, solutions), &args.out).await?;
    }
    if args.json {
        print_json(&summary)
    } else {
        print(&summary.text())
    }
}

pub(super) fn compare(args: &CompareArgs) -> Result<(), ClientError> {
    let strictness = if args.force {
        Strictness::Force
    } else {
        Strictness::Refuse
    };
    let how = How {
        strictness,
        max_examples: args.examples,
    };
    let first = Run::read(&args.first)?;
    let against = |other: &PathBuf| first.against(&Run::read(other)?, how);
    let compared: Vec<ComparedRuns> = args.others.iter().map(against).collect::<Result<_, _>>()?;
    if args.json {
        return print_json(&compared);
    }
    let texts: Vec<String> = compared.iter().map(ComparedRuns::text).collect();
    print(&texts.join("\n\n"))
}

pub(super) fn score(args: ScoreArgs) -> Result<(), ClientError> {
    let rule = args.rule.as_deref().map(resolve::rule).transpose()?;
    let files = args.files.clone();
    let json = args.json;
    let keys = resolve::output_keys(args)?;
    let score = |file: &PathBuf| score_file(file, &keys, rule);
    let summaries: Vec<ScoreSummary> = files.iter().map(score).collect::<Result<_, _>>()?;
    if json {
        return print_json(&summaries);
    }
    let tables: Vec<String> = summaries.iter().map(ScoreSummary::text).collect();
    print(&tables.join("\n\n"))
}

pub(super) async fn loss(args: LossArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let method = LossMethod {
        prompt: load_prompt(&args.prompt)?,
        format: resolve::format(args.prompt_format),
        max_length: args.max_length,
    };
    let annotations = resolve::annotations(args.annotations);
    let examples = dataset::examples(&args.dataset, &args.questions, args.limit, annotations)?;
    let server = resolve::connect(&args.server.server, &args.server.connection, &interrupt).await?;
    let context = resolve::context(server, &args.server.connection, interrupt).await?;
    let summary = measure(&context, &method, &examples).await?;
    // Shown first: where the file cannot be written, the measurement is not lost.
    if args.json {
        print_json(&summary)?;
    } else {
        print(&summary.text())?;
    }
    match &args.out {
        Some(file) => files::write_json(file, &summary),
        None => Ok(()),
    }
}
