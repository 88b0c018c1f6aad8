//! `star eval`, `star compare`, `star score` and `star loss`.

use data::{append_log::read_log, number::Number, question::gold_number, record::Attempt};

use super::{
    super::args::{CompareArgs, EvalArgs, LossArgs, ScoreArgs},
    print, print_json,
};
use crate::{
    cli::resolve,
    compare::{Strictness, compare_folders},
    error::ClientError,
    files,
    interrupt::Interrupt,
    loss::{Examples, LossMethod, measure},
    score,
    session::{Questions, load_prompt},
};

pub(super) async fn eval(args: EvalArgs, interrupt: Interrupt) -> Result<(), ClientError> {
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

pub(super) fn compare(args: &CompareArgs) -> Result<(), ClientError> {
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

pub(super) fn score(args: &ScoreArgs) -> Result<(), ClientError> {
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

fn gold_of(value: &serde_json::Value) -> Option<Number> {
    match value {
        serde_json::Value::String(text) => gold_number(text),
        serde_json::Value::Number(number) => Number::parse(&number.to_string()),
        _ => None,
    }
}

pub(super) async fn loss(args: LossArgs, interrupt: Interrupt) -> Result<(), ClientError> {
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
