//! Protobuf ↔ the client's own words. What the contract requires and a reply lacks is an error.

use proto::genserver::v1::{self as pb, generate_request::Prompt as PbPrompt};
use tonic::{Code, Response};

use super::{Load, ModelInfo, Piece, Reply, ServerInfo, Swap};
use crate::{
    error::ClientError,
    request::{Answer, Item, Prompt},
};
use data::record::{FinishReason, WeightsStamp};

pub(super) fn generate_request(item: &Item) -> pb::GenerateRequest {
    let prompt = match &item.prompt {
        Prompt::Text(text) => PbPrompt::Text(text.clone()),
        Prompt::Chat(messages) => {
            let messages = messages.iter().map(|message| pb::ChatMessage {
                role: message.role.clone(),
                content: message.content.clone(),
            });
            PbPrompt::Chat(pb::Chat {
                messages: messages.collect(),
            })
        }
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
        }),
        stopping: Some(pb::StoppingCriteria {
            max_tokens: Some(decoding.max_tokens),
            stop: decoding.stop.clone(),
            stop_token_ids: Vec::new(),
            ignore_eos: None,
        }),
        time_limit_ms: None,
    }
}

pub(super) fn reply(response: pb::BatchResponse) -> Result<(String, Reply), ClientError> {
    use pb::batch_response::Result as PbResult;
    let request_id = response.request_id;
    let reply = match response.result {
        Some(PbResult::Response(response)) => {
            Reply::Answer(answer(response.text, response.finish)?)
        }
        Some(PbResult::Error(error)) => Reply::Failed {
            code: Code::from_i32(error.code),
            message: error.message,
        },
        None => {
            let problem = format!("item {request_id} carries neither an answer nor an error");
            return Err(ClientError::BadReply(problem));
        }
    };
    Ok((request_id, reply))
}

pub(super) fn piece(chunk: pb::GenerateChunk) -> Result<Piece, ClientError> {
    match chunk.finish {
        // The last chunk may still carry text: it goes with the facts.
        Some(finish) => Ok(Piece::Finished(answer(chunk.text, Some(finish))?)),
        None => Ok(Piece::Text(chunk.text)),
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
        default_max_tokens: limits.default_max_tokens,
        max_queued_requests: limits.max_queued_requests,
        max_num_seqs: limits.max_num_seqs,
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
        num_blocks_used: load.num_blocks_used,
        num_blocks_total: load.num_blocks_total,
        num_generated_tokens_total: load.num_generated_tokens_total,
        num_prompt_tokens_total: load.num_prompt_tokens_total,
        num_preemptions_total: load.num_preemptions_total,
        num_finished_total: load.num_finished_total,
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
