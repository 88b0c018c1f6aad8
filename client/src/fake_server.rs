//! A scripted generation server on a loopback port, for tests: it answers, refuses, breaks streams
//! and swaps weights as a closure says. Test code only.

mod batch;
mod control;

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::Stream;
use proto::genserver::v1::{
    self as pb,
    control_server::ControlServer,
    generation_server::{Generation, GenerationServer},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::connection::{BearerToken, Server, ServerAddress};

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Say(String),
    /// The answer is cut by the token limit.
    Cut(String),
    Refuse(Code),
    /// Refused for its length.
    TooLong,
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
    /// Credits that a batch grants with its first message; 0: it knows none.
    window: u32,
    /// Items that came without a credit.
    num_uncovered: u32,
    /// Roles and contents of the last conversation.
    conversation: Vec<(String, String)>,
}

impl FakeServer {
    pub(crate) async fn start(script: impl Fn(&str, u32) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, script)
    }

    pub(crate) fn start_on(
        listener: TcpListener,
        script: impl Fn(&str, u32) -> Act + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            weights: 1,
            checkpoint: "base".to_owned(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            script: Box::new(script),
            state: Mutex::new(state),
        });
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

    /// From now on batches grant so many credits.
    pub(crate) fn set_window(&self, window: u32) {
        self.shared.state.lock().unwrap().window = window;
    }

    /// Items that were sent without a credit.
    pub(crate) fn num_uncovered(&self) -> u32 {
        self.shared.state.lock().unwrap().num_uncovered
    }

    /// Roles and contents of the last conversation that was put.
    pub(crate) fn conversation(&self) -> Vec<(String, String)> {
        self.shared.state.lock().unwrap().conversation.clone()
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
        if let Some(pb::generate_request::Prompt::Chat(chat)) = &request.prompt {
            let turn = |turn: &pb::ChatMessage| (turn.role.clone(), turn.content.clone());
            state.conversation = chat.messages.iter().map(turn).collect();
        }
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
        let finish = pb::Finish {
            reason: reason.into(),
            num_prompt_tokens: 7,
            num_generated_tokens,
            weights: Some(state.version()),
            ..Default::default()
        };
        let output = pb::SequenceOutput {
            text,
            token_ids: vec![1; num_generated_tokens as usize],
            finish: Some(finish),
            ..Default::default()
        };
        pb::GenerateResponse {
            request_id: request_id.to_owned(),
            outputs: vec![output],
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
        Some(pb::generate_request::Prompt::Chat(chat)) => {
            let last = chat.messages.last();
            last.map(|message| message.content.clone())
                .unwrap_or_default()
        }
        Some(pb::generate_request::Prompt::TokenIds(ids)) => format!("{:?}", ids.ids),
        None => String::new(),
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
            Act::TooLong => return Err(too_long()),
            Act::KeepSilent => return Ok(Response::new(Box::pin(futures::stream::pending()))),
            Act::BreakStream => return Err(Status::unavailable("scripted break")),
        };
        let chunk = |output| {
            Ok(pb::GenerateChunk {
                request_id: String::new(),
                output: Some(output),
            })
        };
        let mut chunks: Vec<_> = text
            .split_inclusive(' ')
            .map(|word| {
                chunk(pb::SequenceOutput {
                    text: word.to_owned(),
                    token_ids: vec![1],
                    ..Default::default()
                })
            })
            .collect();
        let answer = self.answer(&request.request_id, text, reason);
        let [output] = <[_; 1]>::try_from(answer.outputs).unwrap();
        chunks.push(chunk(pb::SequenceOutput {
            text: String::new(),
            token_ids: vec![0],
            ..output
        }));
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    type GenerateBatchStream = Chunks<pb::BatchResponse>;

    async fn generate_batch(
        &self,
        request: Request<Streaming<pb::BatchRequest>>,
    ) -> Result<Response<Self::GenerateBatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(self.clone().answer_batch(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    /// One token for each word of the completion and one for the end; the n-th word has the log
    /// probability -n.
    async fn score(
        &self,
        request: Request<pb::ScoreRequest>,
    ) -> Result<Response<pb::ScoreResponse>, Status> {
        let request = request.into_inner();
        let Some(pb::score_request::Completion::CompletionText(text)) = request.completion else {
            return Err(Status::invalid_argument("expected a text"));
        };
        match (self.0.script)(&text, 0) {
            Act::Refuse(code) => return Err(Status::new(code, "scripted refusal")),
            Act::TooLong => return Err(too_long()),
            _ => {}
        }
        let num_tokens = text.split_whitespace().count() as u32 + 1;
        Ok(Response::new(pb::ScoreResponse {
            request_id: request.request_id,
            token_ids: (0..num_tokens).collect(),
            logprobs: (1..=num_tokens).map(|place| -(place as f32)).collect(),
            ranks: vec![1; num_tokens as usize],
            num_context_tokens: 7,
            weights: Some(self.0.state.lock().unwrap().version()),
            ..Default::default()
        }))
    }
}

/// What a server says of more tokens than it takes.
fn too_long() -> Status {
    let numbers = [("num_tokens", "900"), ("max_tokens", "500")];
    let numbers = numbers.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let details = ErrorDetails::with_error_info("PROMPT_LENGTH", "genserver.v1", numbers);
    Status::with_error_details(Code::InvalidArgument, "scripted refusal", details)
}
