//! The server through real sockets on the loopback address, with the fake model: a helper that starts
//! one, and the promises of single calls. Crowds and life cycles are in the files beside.

mod admin;
mod batches;
mod calls;
mod crowds;
mod fields;
mod lifecycle;
mod scores;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use proto::genserver::v1::{
    self as pb, control_client::ControlClient, generate_request::Prompt as Asked,
    generation_client::GenerationClient,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};

use crate::{
    backend::{Backend, fake::fake_backend},
    config::AuthToken,
    engine::scheduler::Limits,
    error::ServerError,
    request::PrefixCache,
    server::{ServeOptions, serve},
};

pub(super) const WINDOW: u32 = (1 << 31) - 1;

/// A server on a free port; told to stop, and waited for, by [`TestServer::stop`].
pub(super) struct TestServer {
    pub address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServerError>>,
    /// One permission per step; dropping it lets the engine run free.
    pub gate: Option<SyncSender<()>>,
    _root: tempfile::TempDir,
    pub root: PathBuf,
}

pub(super) struct Setup {
    pub limits: Limits,
    pub max_queued_requests: u32,
    pub auth_token: Option<AuthToken>,
    pub gated: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits {
                block_size: 16,
                num_blocks: 1024,
                max_num_seqs: 64,
                max_num_batched_tokens: 1024,
                max_draft_tokens: 0,
                prefix_cache: PrefixCache::Use,
            },
            max_queued_requests: 8192,
            auth_token: None,
            gated: false,
        }
    }
}

impl Setup {
    /// The engine makes a step only when the test says so.
    pub(super) fn gated() -> Self {
        Self {
            gated: true,
            ..Self::default()
        }
    }

    pub(super) async fn start(self) -> TestServer {
        let (gate, permissions) = sync_channel(100_000);
        let backend = fake_backend(self.limits, self.gated.then_some(permissions));
        let gated = self.gated;
        let mut server = self.start_backend(backend).await;
        server.gate = gated.then_some(gate);
        server
    }

    pub(super) async fn start_backend(self, backend: Backend) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let options = ServeOptions {
            checkpoint_root: Some(root.clone()),
            max_queued_requests: self.max_queued_requests,
            default_max_tokens: 16,
            auth_token: self.auth_token,
            grace: Duration::from_secs(20),
        };
        let (shutdown, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let running = tokio::spawn(serve(listener, backend, options, stopped));
        TestServer {
            address,
            shutdown: Some(shutdown),
            running,
            gate: None,
            _root: dir,
            root,
        }
    }
}

impl TestServer {
    pub(super) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let endpoint = endpoint
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(1 << 20)
            .connect_timeout(Duration::from_secs(10));
        endpoint.connect().await.unwrap()
    }

    pub(super) async fn generation(&self) -> GenerationClient<Channel> {
        GenerationClient::new(self.channel().await)
    }

    pub(super) async fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel().await)
    }

    /// Lets the engine make `num_steps` steps.
    pub(super) fn steps(&self, num_steps: usize) {
        for _ in 0..num_steps {
            self.gate.as_ref().unwrap().send(()).unwrap();
        }
    }

    /// From now on the engine runs free.
    pub(super) fn open_gate(&mut self) {
        self.gate = None;
    }

    pub(super) fn ask_to_stop(&mut self) {
        drop(self.shutdown.take());
    }

    /// Stops and waits; the engine must have nothing left.
    pub(super) async fn stop(mut self) -> Result<(), ServerError> {
        self.open_gate();
        self.ask_to_stop();
        self.running.await.unwrap()
    }

    /// Writes a checkpoint that the fake loader takes, or refuses if it is not a number.
    pub(super) fn write_checkpoint(&self, name: &str, version: &str) {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("version"), version).unwrap();
    }

    /// Asks for the load until nothing is running, waiting or held.
    pub(super) async fn wait_until_idle(&self) {
        let mut control = self.control().await;
        for _ in 0..10_000 {
            let load = control
                .get_load(pb::GetLoadRequest {})
                .await
                .unwrap()
                .into_inner();
            if (load.num_running, load.num_waiting, load.num_blocks_used) == (0, 0, 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the engine still holds something");
    }
}

/// A request for `max_tokens` tokens after `prompt`.
pub(super) fn request(id: &str, prompt: &[u32], max_tokens: u32) -> pb::GenerateRequest {
    pb::GenerateRequest {
        request_id: id.to_owned(),
        prompt: Some(Asked::TokenIds(pb::TokenIds {
            ids: prompt.to_vec(),
        })),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(max_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A prompt that differs from item to item.
pub(super) fn prompt(index: u32) -> Vec<u32> {
    (0..=index % 20)
        .map(|at| (index.wrapping_mul(31) + at * 7) % 97)
        .collect()
}

/// The one answer of a response.
pub(super) fn only(response: pb::GenerateResponse) -> pb::SequenceOutput {
    let [output] = <[_; 1]>::try_from(response.outputs).unwrap();
    assert_eq!(output.index, 0);
    output
}

/// What there is of one answer when its stream has ended.
pub(super) async fn collected(
    mut stream: tonic::Streaming<pb::GenerateChunk>,
) -> Result<pb::SequenceOutput, tonic::Status> {
    let mut all = pb::SequenceOutput::default();
    while let Some(chunk) = stream.message().await? {
        let output = chunk.output.unwrap();
        assert!(all.finish.is_none(), "nothing comes after the end");
        all.text += &output.text;
        all.token_ids.extend(output.token_ids);
        all.logprobs.extend(output.logprobs);
        all.finish = output.finish;
    }
    Ok(all)
}

/// Asks for the load until it is as the test wants it; lets `server` make a step in between where its
/// steps are counted.
pub(super) async fn wait_for_load(
    server: &TestServer,
    is_wanted: impl Fn(&pb::GetLoadResponse) -> bool,
) -> pb::GetLoadResponse {
    let mut control = server.control().await;
    let start = std::time::Instant::now();
    loop {
        let load = control.get_load(pb::GetLoadRequest {}).await;
        let load = load.unwrap().into_inner();
        if is_wanted(&load) {
            return load;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{load:?}");
        if let Some(gate) = &server.gate {
            // A full channel holds steps enough.
            let _ = gate.try_send(());
        }
    }
}
