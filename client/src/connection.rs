//! The client's end of the wire: address, channel settings, and one method per RPC in the client's
//! own words. Only this file and those below it know protobuf.

mod address;
mod batch;
mod convert;
mod load_test;

use std::time::Duration;

use data::record::WeightsStamp;
use futures::{Stream, StreamExt};
use proto::genserver::v1::{
    self as pb, control_client::ControlClient, generation_client::GenerationClient,
};
use serde::Serialize;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

pub use address::ServerAddress;
pub use batch::{BatchItems, BatchMessage, BatchSender, BatchStream, Reply, batch_channel};
pub(crate) use convert::code_name;
pub use load_test::{AnswerCounts, FixedLengthItem, LoadPrompt, TokenMessage};

use crate::{
    error::ClientError,
    request::{Answer, Item, Score, ScoreItem},
};

/// h2 allows unread small frames worth half the connection window before it closes the connection
/// with `too_many_data_frames`; the largest window lifts that limit out of reach of thousands of
/// token-sized messages. Never combined with the adaptive window, which resets it.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// One batch stream carries everything, so its window must not be the bottleneck.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Without it a black-holed SYN waits about two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_REPLY_BYTES: usize = 16 << 20;

/// A generation server that answered once.
#[derive(Debug, Clone)]
pub struct Server {
    address: ServerAddress,
    token: BearerToken,
    url: String,
    generation: GenerationClient<Wire>,
    control: ControlClient<Wire>,
    /// As it was when the connection was made.
    info: ServerInfo,
}

type Wire = InterceptedService<Channel, BearerToken>;

/// Adds `authorization: Bearer …` where a token was given.
#[derive(Debug, Clone, Default)]
pub struct BearerToken(Option<MetadataValue<Ascii>>);

impl BearerToken {
    /// The token a file holds, trimmed.
    pub fn new(token: &str) -> Result<Self, ClientError> {
        let value = format!("Bearer {}", token.trim());
        let mut value: MetadataValue<Ascii> = value
            .parse()
            .map_err(|_| ClientError::Usage("the token file holds no usable token".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// What a server says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerInfo {
    pub version: String,
    pub instance_id: String,
    pub max_context_tokens: u32,
    pub default_max_tokens: u32,
    pub max_queued_requests: u32,
    pub max_num_seqs: u32,
    pub max_num_batched_tokens: u32,
    /// 0: its batches have no credits.
    pub max_batch_items_under_way: u32,
}

/// The model a server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    pub weights: WeightsStamp,
    pub architecture: String,
    pub num_parameters: u64,
    pub dtype: String,
    pub vocab_size: u32,
    pub max_context_tokens: u32,
    /// Empty where the checkpoint has no chat template.
    pub chat_template_name: String,
    pub chat_template_digest: String,
    pub chat_template_date: String,
}

/// How busy a server is, and what it has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Load {
    pub num_running: u32,
    pub num_waiting: u32,
    /// Why the first of those that wait does not run.
    pub wait_reason: Option<&'static str>,
    pub num_blocks_used: u32,
    /// Free, and known to the prefix cache.
    pub num_blocks_cached: u32,
    pub num_blocks_total: u32,
    /// Over the last ten seconds.
    pub generated_tokens_per_second: f32,
    pub prompt_tokens_per_second: f32,
    pub num_generated_tokens_total: u64,
    pub num_prompt_tokens_total: u64,
    pub num_cached_tokens_total: u64,
    pub num_draft_tokens_total: u64,
    pub num_accepted_draft_tokens_total: u64,
    pub num_preemptions_total: u64,
    pub num_finished_total: u64,
    pub num_steps_total: u64,
    /// Time in steps, and the part of it outside the model.
    pub step_us_total: u64,
    pub overhead_us_total: u64,
}

/// A finished hot swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    pub old: WeightsStamp,
    pub new: WeightsStamp,
    pub load_ms: u32,
    pub swap_ms: u32,
}

/// A piece of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(String),
    /// The last one: the answer's facts; its `text` is only what no earlier piece carried.
    Finished(Answer),
}

impl Server {
    /// Connects and makes sure that a generation server answers.
    pub async fn connect(address: ServerAddress, token: BearerToken) -> Result<Self, ClientError> {
        let url = address.url()?;
        let channel =
            endpoint(&url)?
                .connect()
                .await
                .map_err(|cause| ClientError::Unreachable {
                    url: url.clone(),
                    cause: innermost_cause(&cause),
                })?;
        let wire = InterceptedService::new(channel, token.clone());
        let mut server = Self {
            address,
            token,
            url,
            generation: GenerationClient::new(wire.clone())
                .max_decoding_message_size(MAX_REPLY_BYTES),
            control: ControlClient::new(wire),
            info: ServerInfo::default(),
        };
        server.info = server.info().await?;
        Ok(server)
    }

    /// A fresh connection; follows an endpoint file to a restarted server's new port.
    pub async fn reconnect(&self) -> Result<Self, ClientError> {
        Self::connect(self.address.clone(), self.token.clone()).await
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a batch may send only as many items as it was granted.
    pub fn grants_credits(&self) -> bool {
        self.info.max_batch_items_under_way > 0
    }

    /// Opens the bidirectional stream that carries many prompts.
    pub async fn open_batch(&self, items: BatchItems) -> Result<BatchStream, ClientError> {
        let reply = self
            .generation
            .clone()
            .generate_batch(items.into_stream())
            .await;
        let reply = reply.map_err(|status| self.refused("open a batch", &status))?;
        Ok(BatchStream::new(reply.into_inner()))
    }

    pub async fn info(&self) -> Result<ServerInfo, ClientError> {
        let request = pb::GetServerInfoRequest {};
        let reply = self.control.clone().get_server_info(request).await;
        convert::server_info(reply.map_err(|status| self.refused("say what it is", &status))?)
    }

    pub async fn model(&self) -> Result<ModelInfo, ClientError> {
        let reply = self
            .control
            .clone()
            .get_model_info(pb::GetModelInfoRequest {})
            .await;
        convert::model_info(reply.map_err(|status| self.refused("name its model", &status))?)
    }

    pub async fn load(&self) -> Result<Load, ClientError> {
        let reply = self.control.clone().get_load(pb::GetLoadRequest {}).await;
        Ok(convert::load(reply.map_err(|status| {
            self.refused("tell its load", &status)
        })?))
    }

    /// Log probabilities of a completion's tokens after its prompt, the one that ends it included.
    pub async fn score(&self, item: &ScoreItem) -> Result<Score, ClientError> {
        let request = convert::score_request(item);
        match self.generation.clone().score(request).await {
            Ok(reply) => convert::score(reply),
            Err(status) => match convert::too_long(&status) {
                Some((num_tokens, max_tokens)) => Err(ClientError::TooLong {
                    num_tokens,
                    max_tokens,
                }),
                None => Err(self.refused("score", &status)),
            },
        }
    }

    /// Swaps in the checkpoint folder of that name below the server's checkpoint root.
    pub async fn reload(&self, checkpoint: &str) -> Result<Swap, ClientError> {
        let request = pb::ReloadCheckpointRequest {
            checkpoint: checkpoint.to_owned(),
            expected_manifest_sha256: String::new(),
            idempotency_key: String::new(),
        };
        let reply = self.control.clone().reload_checkpoint(request).await;
        convert::swap(reply.map_err(|status| self.refused("reload the checkpoint", &status))?)
    }

    /// One prompt, its answer in pieces; the last piece is [`Piece::Finished`].
    pub async fn generate_stream(
        &self,
        item: &Item,
    ) -> Result<impl Stream<Item = Result<Piece, ClientError>> + use<>, ClientError> {
        let request = convert::generate_request(item);
        let stream = self
            .generation
            .clone()
            .generate_stream(request)
            .await
            .map_err(|status| self.refused("generate", &status))?
            .into_inner();
        let server = self.clone();
        Ok(stream.map(move |chunk| match chunk {
            Ok(chunk) => convert::piece(chunk),
            Err(status) => Err(server.refused("go on generating", &status)),
        }))
    }

    fn refused(&self, action: &'static str, status: &Status) -> ClientError {
        // tonic reports a lost connection as a status of its own making.
        if status.code() == Code::Unavailable && std::error::Error::source(status).is_some() {
            let cause = innermost_cause(status);
            return ClientError::Unreachable {
                url: self.url.clone(),
                cause,
            };
        }
        ClientError::Refused {
            action,
            code: convert::code_name(status.code()).to_owned(),
            message: status.message().to_owned(),
        }
    }
}

fn endpoint(url: &str) -> Result<Endpoint, ClientError> {
    let endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|cause| ClientError::BadAddress {
            value: url.to_owned(),
            problem: cause.to_string(),
        })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

/// The first cause of a chain: "connection refused" rather than "transport error".
fn innermost_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
