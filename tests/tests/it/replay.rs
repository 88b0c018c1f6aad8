//! A server that answers from a file: the real contract over a real socket, with answers that are
//! known beforehand, so that what a client makes of them can be counted.
//!
//! A line is `{"prompt": text, "answers": [{"text": …, "finish": "stop"|"length"}, …]}`: sample `n` of
//! the prompt gets answer `n`, whenever and however often it is asked.

use std::{collections::HashMap, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use proto::genserver::v1::{
    self as pb,
    control_server::{Control, ControlServer},
    generation_server::{Generation, GenerationServer},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

/// Prompts that a client may have under way.
const WINDOW: u32 = 64;

/// A prompt and what is answered to its samples.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) prompt: String,
    pub(crate) answers: Vec<Replay>,
}

/// One answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replay {
    pub(crate) text: String,
    pub(crate) finish: Finish,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finish {
    Stop,
    Length,
}

/// Runs until it is dropped.
pub(crate) struct ReplayServer {
    address: SocketAddr,
    _runtime: Runtime,
}

impl ReplayServer {
    /// Answers from this file; each answer of a stream takes `pace`.
    pub(crate) fn start(file: &Path, pace: Duration) -> Self {
        let text = fs::read_to_string(file).expect("a file of answers");
        let line = |line: &str| -> Line { serde_json::from_str(line).expect("a line of answers") };
        let answers = text.lines().map(line).map(|it| (it.prompt, it.answers));
        let service = Service {
            answers: Arc::new(answers.collect()),
            pace,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = tonic::transport::Server::builder()
            .add_service(GenerationServer::new(service.clone()))
            .add_service(ControlServer::new(service));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            address,
            _runtime: runtime,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[derive(Clone)]
struct Service {
    answers: Arc<HashMap<String, Vec<Replay>>>,
    pace: Duration,
}

impl Service {
    /// The answer to a request whose id ends in its sample's number, as those of `star` do.
    fn answer(&self, request: &pb::GenerateRequest) -> Option<pb::SequenceOutput> {
        let Some(pb::generate_request::Prompt::Text(prompt)) = &request.prompt else {
            return None;
        };
        let sample = request.request_id.rsplit(['f', 'h']).next()?;
        let answers = self.answers.get(prompt)?;
        let replay = answers.get(sample.parse::<usize>().ok()?)?;
        let num_generated_tokens = replay.text.split_whitespace().count() as u32 + 1;
        let reason = match replay.finish {
            Finish::Stop => pb::FinishReason::Stop,
            Finish::Length => pb::FinishReason::Length,
        };
        Some(pb::SequenceOutput {
            text: replay.text.clone(),
            token_ids: vec![1; num_generated_tokens as usize],
            finish: Some(pb::Finish {
                reason: reason.into(),
                num_prompt_tokens: 1,
                num_generated_tokens,
                weights: Some(weights()),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    async fn replay(
        self,
        mut items: Streaming<pb::BatchRequest>,
        sender: mpsc::Sender<Result<pb::BatchResponse, Status>>,
    ) {
        let window = pb::BatchResponse {
            credits: WINDOW,
            ..Default::default()
        };
        if sender.send(Ok(window)).await.is_err() {
            return;
        }
        while let Ok(Some(item)) = items.message().await {
            let request = item.request.unwrap_or_default();
            tokio::time::sleep(self.pace).await;
            let request_id = request.request_id.clone();
            let result = match self.answer(&request) {
                Some(output) => pb::batch_response::Result::Response(pb::GenerateResponse {
                    request_id: request_id.clone(),
                    outputs: vec![output],
                }),
                None => pb::batch_response::Result::Error(pb::ItemError {
                    code: Code::NotFound.into(),
                    message: format!("the file has no answer to {request_id}"),
                }),
            };
            let response = pb::BatchResponse {
                request_id,
                result: Some(result),
                credits: 1,
            };
            if sender.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

fn weights() -> pb::WeightsVersion {
    pb::WeightsVersion {
        number: 1,
        digest: "replayed".to_owned(),
        checkpoint: "base".to_owned(),
    }
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("bootstrapping never calls it"))
}

#[tonic::async_trait]
impl Generation for Service {
    async fn generate(
        &self,
        _request: Request<pb::GenerateRequest>,
    ) -> Result<Response<pb::GenerateResponse>, Status> {
        unused()
    }

    type GenerateStreamStream = ReceiverStream<Result<pb::GenerateChunk, Status>>;

    async fn generate_stream(
        &self,
        _request: Request<pb::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        unused()
    }

    type GenerateBatchStream = ReceiverStream<Result<pb::BatchResponse, Status>>;

    async fn generate_batch(
        &self,
        request: Request<Streaming<pb::BatchRequest>>,
    ) -> Result<Response<Self::GenerateBatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(self.clone().replay(request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn score(
        &self,
        _request: Request<pb::ScoreRequest>,
    ) -> Result<Response<pb::ScoreResponse>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_server_info(
        &self,
        _request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        Ok(Response::new(pb::GetServerInfoResponse {
            version: "replay".to_owned(),
            instance_id: "one".to_owned(),
            limits: Some(pb::Limits {
                max_context_tokens: 4096,
                default_max_new_tokens: 1024,
                max_queued_requests: 1024,
                max_num_seqs: 16,
                max_batch_items_under_way: WINDOW,
                ..Default::default()
            }),
        }))
    }

    async fn get_model_info(
        &self,
        _request: Request<pb::GetModelInfoRequest>,
    ) -> Result<Response<pb::GetModelInfoResponse>, Status> {
        Ok(Response::new(pb::GetModelInfoResponse {
            weights: Some(weights()),
            architecture: "LlamaForCausalLM".to_owned(),
            num_parameters: 1,
            dtype: "f32".to_owned(),
            vocab_size: 2,
            max_context_tokens: 4096,
            ..Default::default()
        }))
    }

    async fn get_load(
        &self,
        _request: Request<pb::GetLoadRequest>,
    ) -> Result<Response<pb::GetLoadResponse>, Status> {
        Ok(Response::new(pb::GetLoadResponse::default()))
    }

    async fn abort(
        &self,
        _request: Request<pb::AbortRequest>,
    ) -> Result<Response<pb::AbortResponse>, Status> {
        unused()
    }

    async fn drain(
        &self,
        _request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        unused()
    }

    async fn reload_checkpoint(
        &self,
        _request: Request<pb::ReloadCheckpointRequest>,
    ) -> Result<Response<pb::ReloadCheckpointResponse>, Status> {
        unused()
    }
}
