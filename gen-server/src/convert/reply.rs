//! Answers as protobuf.

use proto::genserver::v1 as pb;

use super::status::request_code;
use crate::{
    error::RequestError,
    request::{FinishReason, WeightsVersion},
    stream::{End, Piece},
};

pub(crate) fn response(request_id: String, whole: Piece) -> pb::GenerateResponse {
    pb::GenerateResponse {
        request_id,
        text: whole.text,
        token_ids: whole.token_ids,
        finish: whole.end.as_ref().map(finish),
    }
}

pub(crate) fn chunk(request_id: String, piece: Piece) -> pb::GenerateChunk {
    pb::GenerateChunk {
        request_id,
        text: piece.text,
        token_ids: piece.token_ids,
        finish: piece.end.as_ref().map(finish),
    }
}

pub(crate) fn batch_response(request_id: String, whole: Piece) -> pb::BatchResponse {
    let response = response(request_id.clone(), whole);
    pb::BatchResponse {
        request_id,
        result: Some(pb::batch_response::Result::Response(response)),
    }
}

pub(crate) fn batch_error(request_id: String, error: &RequestError) -> pb::BatchResponse {
    let error = pb::ItemError {
        code: request_code(error) as i32,
        message: error.to_string(),
    };
    pb::BatchResponse {
        request_id,
        result: Some(pb::batch_response::Result::Error(error)),
    }
}

fn finish(end: &End) -> pb::Finish {
    let reason = match end.reason {
        FinishReason::Stop => pb::FinishReason::Stop,
        FinishReason::Length => pb::FinishReason::Length,
        FinishReason::TimeLimit => pb::FinishReason::TimeLimit,
    };
    pb::Finish {
        reason: reason as i32,
        num_prompt_tokens: end.num_prompt_tokens,
        num_generated_tokens: end.num_generated_tokens,
        num_cached_tokens: end.num_cached_tokens,
        seed: end.seed,
        weights: Some(weights_version(&end.weights)),
    }
}

pub(crate) fn weights_version(weights: &WeightsVersion) -> pb::WeightsVersion {
    pb::WeightsVersion {
        number: weights.number,
        digest: weights.digest.clone(),
        checkpoint: weights.checkpoint.clone(),
    }
}
