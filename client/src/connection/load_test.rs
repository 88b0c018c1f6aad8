//! Requests for load tests: greedy answers of a fixed length, and replies with what a measurement
//! counts. Everything else about a generation is in the parent's own calls.

use futures::{Stream, StreamExt};
use proto::genserver::v1::{self as pb, generate_request::Prompt as PbPrompt};

use super::{BatchSender, BatchStream, Server, convert};
use crate::error::ClientError;

/// A prompt that is answered with exactly `num_tokens` tokens, end of text or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedLengthItem {
    pub request_id: String,
    pub prompt: LoadPrompt,
    pub num_tokens: u32,
}

/// What the model is asked to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadPrompt {
    Text(String),
    TokenIds(Vec<u32>),
}

/// A message of a streamed answer; the last one carries the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMessage {
    pub token_ids: Vec<u32>,
    pub counts: Option<AnswerCounts>,
}

/// The server's counts of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerCounts {
    pub num_prompt_tokens: u32,
    pub num_generated_tokens: u32,
    /// Prompt tokens that were taken from the prefix cache.
    pub num_cached_tokens: u32,
    /// Tokens that speculation proposed, and those of them that were right.
    pub num_draft_tokens: u32,
    pub num_accepted_draft_tokens: u32,
}

/// One item's end on a batch stream: its tokens and counts, or why there are none.
pub(crate) type BatchEnd = Result<TokenMessage, ClientError>;

impl Server {
    /// One answer in messages, as they come.
    pub async fn stream_tokens(
        &self,
        item: &FixedLengthItem,
    ) -> Result<impl Stream<Item = Result<TokenMessage, ClientError>> + use<>, ClientError> {
        let stream = self
            .generation
            .clone()
            .generate_stream(request(item))
            .await
            .map_err(|status| self.refused("generate", &status))?
            .into_inner();
        let server = self.clone();
        Ok(stream.map(move |chunk| match chunk {
            Ok(chunk) => Ok(message(chunk.output.unwrap_or_default())),
            Err(status) => Err(server.refused("go on generating", &status)),
        }))
    }
}

impl BatchSender {
    /// False where the channel is full or the stream is gone; the item was not sent then.
    pub fn try_send_fixed(&self, item: &FixedLengthItem) -> bool {
        self.try_send_request(request(item))
    }
}

impl BatchStream {
    /// The next item's end, or in words why there will be none on this stream.
    pub async fn next_end(&mut self) -> Result<(String, BatchEnd), String> {
        use pb::batch_response::Result as PbResult;
        let (request_id, result) = loop {
            let response = self.next_response().await?;
            // A message without a result grants credits. HTTP/2 does the same here: the channel
            // holds every item of a run.
            if let Some(result) = response.result {
                break (response.request_id, result);
            }
        };
        let end = match result {
            PbResult::Response(response) => match response.outputs.into_iter().next() {
                Some(output) => Ok(message(output)),
                None => Err(ClientError::BadReply(
                    "an answer without outputs".to_owned(),
                )),
            },
            PbResult::Error(error) => Err(ClientError::Refused {
                action: "generate",
                code: convert::code_name(error.code.into()).to_owned(),
                message: error.message,
            }),
        };
        Ok((request_id, end))
    }
}

fn request(item: &FixedLengthItem) -> pb::GenerateRequest {
    let prompt = match &item.prompt {
        LoadPrompt::Text(text) => PbPrompt::Text(text.clone()),
        LoadPrompt::TokenIds(ids) => PbPrompt::TokenIds(pb::TokenIds { ids: ids.clone() }),
    };
    pb::GenerateRequest {
        request_id: item.request_id.clone(),
        prompt: Some(prompt),
        sampling: Some(pb::SamplingParams {
            temperature: Some(0.0),
            ..Default::default()
        }),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(item.num_tokens),
            ignore_eos: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn message(output: pb::SequenceOutput) -> TokenMessage {
    TokenMessage {
        token_ids: output.token_ids,
        counts: output.finish.as_ref().map(counts),
    }
}

fn counts(finish: &pb::Finish) -> AnswerCounts {
    AnswerCounts {
        num_prompt_tokens: finish.num_prompt_tokens,
        num_generated_tokens: finish.num_generated_tokens,
        num_cached_tokens: finish.num_cached_tokens,
        num_draft_tokens: finish.num_draft_tokens,
        num_accepted_draft_tokens: finish.num_accepted_draft_tokens,
    }
}
