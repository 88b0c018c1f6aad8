//! Protobuf ↔ the client's own words. What the contract requires and a reply lacks is an error.

use proto::genserver::v1::{self as pb, generate_request::Prompt as PbPrompt};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::{BatchMessage, Load, ModelInfo, Piece, Reply, ServerInfo, Swap};
use crate::{
    error::ClientError,
    request::{Answer, ChatMessage, Item, Prompt, Score, ScoreItem},
};
use data::record::{FinishReason, WeightsStamp};

pub(super) fn generate_request(item: &Item) -> pb::GenerateRequest {
    let prompt = match &item.prompt {
        Prompt::Text(text) => PbPrompt::Text(text.clone()),
        Prompt::Chat(messages) => PbPrompt::Chat(chat(messages)),
    };
    let decoding = &item.decoding;
    pb::GenerateRequest {
        request_id: item.request_id.clone(),
        prompt: Some(prompt),
        sampling: Some(pb::SamplingParams {
            temperature: Some(decoding.temperature),
            top_p: Some(decoding.top_p),
            top_k: Some(decoding.top_k),
            seed: Some(item.seed),
            ..Default::default()
        }),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(decoding.max_tokens),
            stop_strings: decoding.stop.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn chat(messages: &[ChatMessage]) -> pb::Chat {
    let messages = messages.iter().map(|message| pb::ChatMessage {
        role: message.role.clone(),
        content: message.content.clone(),
    });
    pb::Chat {
        messages: messages.collect(),
    }
}

pub(super) fn score_request(item: &ScoreItem) -> pb::ScoreRequest {
    use pb::score_request::{Completion, Prompt as Scored};
    pb::ScoreRequest {
        request_id: item.request_id.clone(),
        prompt: Some(match &item.prompt {
            Prompt::Text(text) => Scored::Text(text.clone()),
            Prompt::Chat(messages) => Scored::Chat(chat(messages)),
        }),
        completion: Some(Completion::CompletionText(item.completion.clone())),
        append_eos: Some(true),
        ..Default::default()
    }
}

pub(super) fn score(reply: Response<pb::ScoreResponse>) -> Result<Score, ClientError> {
    let reply = reply.into_inner();
    if reply.logprobs.len() != reply.token_ids.len() {
        return Err(ClientError::BadReply(format!(
            "{} log probabilities for {} tokens",
            reply.logprobs.len(),
            reply.token_ids.len()
        )));
    }
    Ok(Score {
        num_context_tokens: reply.num_context_tokens,
        logprobs: reply.logprobs,
        weights: weights(reply.weights, "weights")?,
    })
}

/// What a message of a batch says: room for so many more items, and perhaps an item's end.
pub(super) fn batch_message(response: pb::BatchResponse) -> Result<BatchMessage, ClientError> {
    use pb::batch_response::Result as PbResult;
    let request_id = response.request_id;
    let reply = match response.result {
        Some(PbResult::Response(response)) => {
            let output = response.outputs.into_iter().next();
            let output = output.ok_or_else(|| missing("outputs"))?;
            Some(Reply::Answer(answer(output.text, output.finish)?))
        }
        Some(PbResult::Error(error)) => Some(Reply::Failed {
            code: Code::from_i32(error.code),
            message: error.message,
        }),
        None if response.credits > 0 => None,
        None => {
            let problem = format!("item {request_id} carries neither an answer nor an error");
            return Err(ClientError::BadReply(problem));
        }
    };
    Ok(BatchMessage {
        reply: reply.map(|reply| (request_id, reply)),
        num_credits: response.credits,
    })
}

pub(super) fn piece(chunk: pb::GenerateChunk) -> Result<Piece, ClientError> {
    let output = chunk.output.ok_or_else(|| missing("output"))?;
    match output.finish {
        // The last chunk may still carry text: it goes with the facts.
        Some(finish) => Ok(Piece::Finished(answer(output.text, Some(finish))?)),
        None => Ok(Piece::Text(output.text)),
    }
}

fn answer(text: String, finish: Option<pb::Finish>) -> Result<Answer, ClientError> {
    let finish = finish.ok_or_else(|| missing("finish"))?;
    let kind = match finish.reason() {
        pb::FinishReason::Stop => FinishReason::Stop,
        pb::FinishReason::Length => FinishReason::Length,
        pb::FinishReason::TimeLimit => FinishReason::TimeLimit,
        pb::FinishReason::Unspecified => return Err(missing("finish.reason")),
    };
    Ok(Answer {
        text,
        num_prompt_tokens: finish.num_prompt_tokens,
        num_generated_tokens: finish.num_generated_tokens,
        finish: kind,
        weights: weights(finish.weights, "finish.weights")?,
    })
}

pub(super) fn server_info(
    reply: Response<pb::GetServerInfoResponse>,
) -> Result<ServerInfo, ClientError> {
    let info = reply.into_inner();
    let limits = info.limits.ok_or_else(|| missing("limits"))?;
    Ok(ServerInfo {
        version: info.version,
        instance_id: info.instance_id,
        max_context_tokens: limits.max_context_tokens,
        default_max_tokens: limits.default_max_new_tokens,
        max_queued_requests: limits.max_queued_requests,
        max_num_seqs: limits.max_num_seqs,
        max_num_batched_tokens: limits.max_num_batched_tokens,
        max_batch_items_under_way: limits.max_batch_items_under_way,
    })
}

pub(super) fn model_info(
    reply: Response<pb::GetModelInfoResponse>,
) -> Result<ModelInfo, ClientError> {
    let info = reply.into_inner();
    Ok(ModelInfo {
        weights: weights(info.weights, "weights")?,
        architecture: info.architecture,
        num_parameters: info.num_parameters,
        dtype: info.dtype,
        vocab_size: info.vocab_size,
        max_context_tokens: info.max_context_tokens,
        chat_template_name: info.chat_template_name,
        chat_template_digest: info.chat_template_digest,
        chat_template_date: info.chat_template_date,
    })
}

pub(super) fn load(reply: Response<pb::GetLoadResponse>) -> Load {
    let load = reply.into_inner();
    Load {
        num_running: load.num_running,
        num_waiting: load.num_waiting,
        wait_reason: match load.wait_reason() {
            pb::WaitReason::Unspecified => None,
            pb::WaitReason::Sequences => Some("as many sequences run as may"),
            pb::WaitReason::Blocks => Some("the next prompt does not fit into the free KV blocks"),
            pb::WaitReason::Tokens => Some("the tokens of a step are used up"),
            pb::WaitReason::Swap => Some("new weights are about to go live"),
            pb::WaitReason::Prefix => Some("another request computes the same prefix"),
        },
        num_blocks_used: load.num_blocks_used,
        num_blocks_cached: load.num_blocks_cached,
        num_blocks_total: load.num_blocks_total,
        generated_tokens_per_second: load.generated_tokens_per_second,
        prompt_tokens_per_second: load.prompt_tokens_per_second,
        num_generated_tokens_total: load.num_generated_tokens_total,
        num_prompt_tokens_total: load.num_prompt_tokens_total,
        num_cached_tokens_total: load.num_cached_tokens_total,
        num_draft_tokens_total: load.num_draft_tokens_total,
        num_accepted_draft_tokens_total: load.num_accepted_draft_tokens_total,
        num_preemptions_total: load.num_preemptions_total,
        num_finished_total: load.num_finished_total,
        num_steps_total: load.num_steps_total,
        step_us_total: load.step_us_total,
        overhead_us_total: load.overhead_us_total,
    }
}

pub(super) fn swap(reply: Response<pb::ReloadCheckpointResponse>) -> Result<Swap, ClientError> {
    let reply = reply.into_inner();
    Ok(Swap {
        old: weights(reply.old_weights, "old_weights")?,
        new: weights(reply.new_weights, "new_weights")?,
        load_ms: reply.load_ms,
        swap_ms: reply.swap_ms,
    })
}

fn weights(weights: Option<pb::WeightsVersion>, field: &str) -> Result<WeightsStamp, ClientError> {
    let weights = weights.ok_or_else(|| missing(field))?;
    Ok(WeightsStamp {
        version: weights.number,
        digest: weights.digest,
        checkpoint: weights.checkpoint,
    })
}

fn missing(field: &str) -> ClientError {
    ClientError::BadReply(format!("field `{field}` is missing"))
}

/// The tokens of a request that has more than the server takes, and how many it takes.
pub(super) fn too_long(status: &Status) -> Option<(u32, u32)> {
    let info = status.get_details_error_info()?;
    let number = |key: &str| info.metadata.get(key)?.parse::<u32>().ok();
    let (found, max) = (number("num_tokens")?, number("max_tokens")?);
    (info.reason == "PROMPT_LENGTH" && found > max).then_some((found, max))
}

/// The code's name in the gRPC specification.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
