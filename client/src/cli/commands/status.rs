//! `star status`: what a server runs and how busy it is, for a person.

use super::{super::args::ServerArgs, print};
use crate::{
    cli::resolve,
    connection::{Load, ModelInfo, ServerInfo},
    error::ClientError,
    eval::short,
    interrupt::Interrupt,
};

pub(super) async fn status(args: ServerArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let server = resolve::connect(&args.server, &args.connection, &interrupt).await?;
    let (info, model, load) = (
        server.info().await?,
        server.model().await?,
        server.load().await?,
    );
    print(&text(server.url(), (&info, &model), &load))
}

fn text(url: &str, (info, model): (&ServerInfo, &ModelInfo), load: &Load) -> String {
    let template = if model.chat_template_name.is_empty() {
        "none".to_owned()
    } else {
        format!(
            "{}, date {}",
            model.chat_template_name, model.chat_template_date
        )
    };
    let why = load
        .wait_reason
        .map_or_else(String::new, |why| format!(" ({why})"));
    [
        format!(
            "server    {url} (version {}, instance {})",
            info.version, info.instance_id
        ),
        format!(
            "weights   {}, version {}, digest {}",
            model.weights.checkpoint,
            model.weights.version,
            short(&model.weights.digest)
        ),
        format!(
            "model     {}, {} parameters, {}, context {} tokens, chat template {template}",
            model.architecture, model.num_parameters, model.dtype, model.max_context_tokens
        ),
        format!(
            "load      {} running, {} waiting{why} of {}; {} of {} KV blocks in use, {} more cached",
            load.num_running,
            load.num_waiting,
            info.max_queued_requests,
            load.num_blocks_used,
            load.num_blocks_total,
            load.num_blocks_cached
        ),
        format!(
            "speed     {:.1} generated and {:.1} prompt tokens/s over the last ten seconds",
            load.generated_tokens_per_second, load.prompt_tokens_per_second
        ),
        format!(
            "so far    {} requests finished, {} prompt and {} generated tokens, {} preemptions",
            load.num_finished_total,
            load.num_prompt_tokens_total,
            load.num_generated_tokens_total,
            load.num_preemptions_total
        ),
        format!(
            "saved     {} prompt tokens found in the prefix cache; {} of {} proposed tokens right",
            load.num_cached_tokens_total,
            load.num_accepted_draft_tokens_total,
            load.num_draft_tokens_total
        ),
        format!(
            "steps     {}, {:.2} ms each, {:.1} % of it outside the model",
            load.num_steps_total,
            share(load.step_us_total, load.num_steps_total) / 1000.0,
            100.0 * share(load.overhead_us_total, load.step_us_total)
        ),
    ]
    .join("\n")
}

/// 0 of nothing is 0.
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
