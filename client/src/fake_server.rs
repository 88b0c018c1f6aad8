//! A scripted generation server on a loopback port, for tests: it answers, refuses, breaks streams
//! and swaps weights as a closure says. Test code only.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::Stream;
use proto::genserver::v1::{
    self as pb,
    control_server::{Control, ControlServer},
    generation_server::{Generation, GenerationServer},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::connection::{BearerToken, Server, ServerAddress};

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Say(String),
    /// The answer is cut by the token limit.
    Cut(String),
    Refuse(Code),
    /// No answer, and the stream stays open.
    KeepSilent,
    /// The whole stream ends with an error; everything unanswered on it is lost.
    BreakStream,
}

/// Decides by the prompt's text and by how often this request id was seen before.
type Script = dyn Fn(&str, u32) -> Act + Send + Sync;

pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    script: Box<Script>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: HashMap<String, u32>,
    /// Answers given per request id: more than one is a doubled question.
    answered: HashMap<String, u32>,
    weights: u64,
    checkpoint: String,
    chat_template: String,
    /// Of the next calls of `GetLoad`, how many find more tokens computed than the one before.
    num_busy_loads: u64,
    num_generated_tokens: u64,
}

impl FakeServer {
    pub(crate) async fn start(script: impl Fn(&str, u32) -> Act + Send + Sync + 'static) -> Self {
        let state = State {
            weights: 1,
            checkpoint: "base".to_owned(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            script: Box::new(script),
            state: Mutex::new(state),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(shared.clone());
        let server = tonic::transport::Server::builder()
            .add_service(GenerationServer::new(service.clone()))
            .add_service(ControlServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self {
            address,
            shared,
            task,
        }
    }

    pub(crate) async fn connect(&self) -> Server {
        let address = ServerAddress::Url(format!("http://{}", self.address));
        Server::connect(address, BearerToken::default())
            .await
            .unwrap()
    }

    pub(crate) fn num_requests(&self) -> usize {
        self.shared.state.lock().unwrap().seen.len()
    }

    pub(crate) fn swap_weights(&self) {
        self.shared.state.lock().unwrap().weights += 1;
    }

    /// The next `count` calls of `GetLoad` see progress, those after them none.
    pub(crate) fn compute_for(&self, count: u64) {
        self.shared.state.lock().unwrap().num_busy_loads = count;
    }

    /// How often `GetLoad` saw progress so far.
    pub(crate) fn num_generated_tokens(&self) -> u64 {
        self.shared.state.lock().unwrap().num_generated_tokens
    }

    pub(crate) fn set_chat_template(&self, name: &str) {
        name.clone_into(&mut self.shared.state.lock().unwrap().chat_template);
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl Service {
    fn act(&self, request: &pb::GenerateRequest) -> Act {
        let mut state = self.0.state.lock().unwrap();
        let times = state.seen.entry(request.request_id.clone()).or_default();
        *times += 1;
        let times = *times - 1;
        drop(state);
        (self.0.script)(&prompt_text(request), times)
    }

    fn answer(
        &self,
        request_id: &str,
        text: String,
        reason: pb::FinishReason,
    ) -> pb::GenerateResponse {
        let mut state = self.0.state.lock().unwrap();
        *state.answered.entry(request_id.to_owned()).or_default() += 1;
        let num_generated_tokens = text.split_whitespace().count() as u32 + 1;
        pb::GenerateResponse {
            request_id: request_id.to_owned(),
            text,
            token_ids: Vec::new(),
            finish: Some(pb::Finish {
                reason: reason.into(),
                num_prompt_tokens: 7,
                num_generated_tokens,
                num_cached_tokens: 0,
                seed: 0,
                weights: Some(state.version()),
            }),
        }
    }
}

impl State {
    fn version(&self) -> pb::WeightsVersion {
        pb::WeightsVersion {
            number: self.weights,
            digest: format!("digest-{}", self.weights),
            checkpoint: self.checkpoint.clone(),
        }
    }
}

fn prompt_text(request: &pb::GenerateRequest) -> String {
    match &request.prompt {
        Some(pb::generate_request::Prompt::Text(text)) => text.clone(),
        Some(pb::generate_request::Prompt::Chat(chat)) => chat.messages[0].content.clone(),
        _ => String::new(),
    }
}

type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Generation for Service {
    async fn generate(
        &self,
        _request: Request<pb::GenerateRequest>,
    ) -> Result<Response<pb::GenerateResponse>, Status> {
        Err(Status::unimplemented("the client never calls it"))
    }

    type GenerateStreamStream = Chunks<pb::GenerateChunk>;

    /// Says its text word by word.
    async fn generate_stream(
        &self,
        request: Request<pb::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let request = request.into_inner();
        let (text, reason) = match self.act(&request) {
            Act::Say(text) => (text, pb::FinishReason::Stop),
            Act::Cut(text) => (text, pb::FinishReason::Length),
            Act::Refuse(code) => return Err(Status::new(code, "scripted refusal")),
            Act::KeepSilent => return Ok(Response::new(Box::pin(futures::stream::pending()))),
            Act::BreakStream => return Err(Status::unavailable("scripted break")),
        };
        let chunk = |text: &str| pb::GenerateChunk {
            text: text.to_owned(),
            ..Default::default()
        };
        let mut chunks: Vec<_> = text
            .split_inclusive(' ')
            .map(|word| Ok(chunk(word)))
            .collect();
        let finish = self.answer(&request.request_id, text, reason).finish;
        chunks.push(Ok(pb::GenerateChunk {
            finish,
            ..Default::default()
        }));
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    type GenerateBatchStream = Chunks<pb::BatchResponse>;

    async fn generate_batch(
        &self,
        request: Request<Streaming<pb::BatchRequest>>,
    ) -> Result<Response<Self::GenerateBatchStream>, Status> {
        let mut items = request.into_inner();
        let (sender, receiver) = mpsc::channel(64);
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(item)) = items.message().await {
                let request = item.request.unwrap();
                let id = request.request_id.clone();
                let result = match service.act(&request) {
                    Act::Say(text) => Ok(service.answer(&id, text, pb::FinishReason::Stop)),
                    Act::Cut(text) => Ok(service.answer(&id, text, pb::FinishReason::Length)),
                    Act::Refuse(code) => Err(code),
                    Act::KeepSilent => continue,
                    Act::BreakStream => {
                        let _ = sender
                            .send(Err(Status::unavailable("scripted break")))
                            .await;
                        return;
                    }
                };
                let result = match result {
                    Ok(response) => pb::batch_response::Result::Response(response),
                    Err(code) => pb::batch_response::Result::Error(pb::ItemError {
                        code: code.into(),
                        message: "scripted refusal".to_owned(),
                    }),
                };
                let response = pb::BatchResponse {
                    request_id: id,
                    result: Some(result),
                };
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_server_info(
        &self,
        _request: Request<pb::GetServerInfoRequest>,
    ) -> Result<Response<pb::GetServerInfoResponse>, Status> {
        Ok(Response::new(pb::GetServerInfoResponse {
            version: "fake".to_owned(),
            instance_id: "one".to_owned(),
            limits: Some(pb::Limits {
                max_context_tokens: 2048,
                default_max_tokens: 1024,
                max_queued_requests: 64,
                max_num_seqs: 16,
                ..Default::default()
            }),
        }))
    }

    async fn get_model_info(
        &self,
        _request: Request<pb::GetModelInfoRequest>,
    ) -> Result<Response<pb::GetModelInfoResponse>, Status> {
        let state = self.0.state.lock().unwrap();
        Ok(Response::new(pb::GetModelInfoResponse {
            weights: Some(state.version()),
            architecture: "LlamaForCausalLM".to_owned(),
            num_parameters: 1000,
            dtype: "f32".to_owned(),
            max_context_tokens: 2048,
            chat_template_name: state.chat_template.clone(),
            ..Default::default()
        }))
    }

    async fn get_load(
        &self,
        _request: Request<pb::GetLoadRequest>,
    ) -> Result<Response<pb::GetLoadResponse>, Status> {
        let mut state = self.0.state.lock().unwrap();
        if state.num_busy_loads > 0 {
            state.num_busy_loads -= 1;
            state.num_generated_tokens += 1;
        }
        Ok(Response::new(pb::GetLoadResponse {
            num_running: 3,
            num_generated_tokens_total: state.num_generated_tokens,
            ..Default::default()
        }))
    }

    async fn reload_checkpoint(
        &self,
        request: Request<pb::ReloadCheckpointRequest>,
    ) -> Result<Response<pb::ReloadCheckpointResponse>, Status> {
        let checkpoint = request.into_inner().checkpoint;
        if checkpoint == "broken" {
            return Err(Status::failed_precondition(
                "config.json: hidden_size differs",
            ));
        }
        let mut state = self.0.state.lock().unwrap();
        let old_weights = Some(state.version());
        state.weights += 1;
        state.checkpoint = checkpoint;
        Ok(Response::new(pb::ReloadCheckpointResponse {
            old_weights,
            new_weights: Some(state.version()),
            load_ms: 2,
            swap_ms: 1,
        }))
    }
}
