//! Answers as protobuf.

use proto::genserver::v1 as pb;

use super::status::request_code;
use crate::{
    error::RequestError,
    request::{FinishReason, TokenLogprobs, WeightsVersion},
    stream::{End, Piece, StopReason},
};

/// Every answer to one request, in the order of their index.
pub(crate) fn response(request_id: String, answers: Vec<Piece>) -> pb::GenerateResponse {
    let outputs = (0..).zip(answers);
    pb::GenerateResponse {
        request_id,
        outputs: outputs.map(|(index, piece)| output(index, piece)).collect(),
    }
}

/// What is new of the answer at `index`.
pub(crate) fn chunk(request_id: String, index: u32, piece: Piece) -> pb::GenerateChunk {
    pb::GenerateChunk {
        request_id,
        output: Some(output(index, piece)),
    }
}

/// The first message of a batch: nothing but room.
pub(crate) fn batch_credits(credits: u32) -> pb::BatchResponse {
    pb::BatchResponse {
        request_id: String::new(),
        result: None,
        credits,
    }
}

/// An answer makes room for one more item.
pub(crate) fn batch_response(request_id: String, answers: Vec<Piece>) -> pb::BatchResponse {
    let response = response(request_id.clone(), answers);
    pb::BatchResponse {
        request_id,
        result: Some(pb::batch_response::Result::Response(response)),
        credits: 1,
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
        credits: 1,
    }
}

fn output(index: u32, piece: Piece) -> pb::SequenceOutput {
    let scores = Scores::of(piece.logprobs);
    pb::SequenceOutput {
        index,
        text: piece.text,
        token_ids: piece.token_ids,
        logprobs: scores.logprobs,
        ranks: scores.ranks,
        candidates: scores.candidates,
        finish: piece.end.as_ref().map(finish),
    }
}

/// Log probabilities as the contract lays them out: side by side.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    pub logprobs: Vec<f32>,
    pub ranks: Vec<u32>,
    /// Empty where none were asked for.
    pub candidates: Vec<pb::CandidateTokens>,
}

impl Scores {
    pub(crate) fn of(tokens: Vec<TokenLogprobs>) -> Self {
        let has_candidates = tokens.iter().any(|token| !token.candidates.is_empty());
        let mut scores = Self::default();
        for token in tokens {
            scores.logprobs.push(token.logprob);
            scores.ranks.push(token.rank);
            if has_candidates {
                let candidates = token.candidates.into_iter();
                let candidates = candidates.map(|(id, logprob)| pb::CandidateToken { id, logprob });
                scores.candidates.push(pb::CandidateTokens {
                    tokens: candidates.collect(),
                });
            }
        }
        scores
    }
}

fn finish(end: &End) -> pb::Finish {
    use pb::finish::StopReason as Told;
    let reason = match end.reason {
        FinishReason::Stop => pb::FinishReason::Stop,
        FinishReason::Length => pb::FinishReason::Length,
        FinishReason::TimeLimit => pb::FinishReason::TimeLimit,
        FinishReason::Scored => unreachable!("only a score ends so, and it has its own reply"),
    };
    pb::Finish {
        reason: reason as i32,
        num_prompt_tokens: end.num_prompt_tokens,
        num_generated_tokens: end.num_generated_tokens,
        num_cached_tokens: end.counts.num_cached_tokens,
        seed: end.seed,
        weights: Some(weights_version(&end.weights)),
        stop_reason: end.stop_reason.as_ref().map(|stop| match stop {
            StopReason::TokenId(id) => Told::StopTokenId(*id),
            StopReason::EosTokenId(id) => Told::EosTokenId(*id),
            StopReason::Text(text) => Told::StopString(text.clone()),
        }),
        num_draft_tokens: end.counts.num_draft_tokens,
        num_accepted_draft_tokens: end.counts.num_accepted_draft_tokens,
    }
}

pub(crate) fn weights_version(weights: &WeightsVersion) -> pb::WeightsVersion {
    pb::WeightsVersion {
        number: weights.number,
        digest: weights.digest.clone(),
        checkpoint: weights.checkpoint.clone(),
    }
}
