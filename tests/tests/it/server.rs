//! A generation server as a process, and what it says about itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proto::genserver::v1::{
    self as pb, control_client::ControlClient, generation_client::GenerationClient,
};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::process::{Call, Ended, Running, gen_server};

/// A server that accepts requests. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct TestServer {
    running: Running,
    endpoint: Endpoint,
}

/// Where a server can be found; outlives the server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    folder: TempDir,
}

impl Endpoint {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// The file into which the server writes its address.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("endpoint.txt")
    }

    pub(crate) fn url(&self) -> String {
        fs::read_to_string(self.file())
            .expect("a server wrote its address")
            .trim()
            .to_owned()
    }
}

/// `gen-server --model <model>` on a free port, with little memory and one thread.
pub(crate) fn server_of(model: &Path) -> Call {
    gen_server([
        "--listen",
        "127.0.0.1:0",
        "--kv-cache-mib",
        "32",
        "--threads",
        "1",
    ])
    .with("--model", model)
}

impl TestServer {
    /// Starts the call of [`server_of`] and waits until it serves.
    pub(crate) fn start(call: Call) -> Self {
        Self::start_at(call, Endpoint::new())
    }

    /// As [`TestServer::start`], with an endpoint file that clients know already.
    pub(crate) fn start_at(call: Call, endpoint: Endpoint) -> Self {
        let file = endpoint.file();
        // A killed server leaves its file behind.
        let _ = fs::remove_file(&file);
        let mut running = call.with("--endpoint-file", &file).start();
        running.wait_until("the server's endpoint file", |_| file.exists());
        Self { running, endpoint }
    }

    pub(crate) fn url(&self) -> String {
        self.endpoint.url()
    }

    /// `--server` of a client that follows a restarted server.
    pub(crate) fn endpoint_file(&self) -> PathBuf {
        self.endpoint.file()
    }

    /// `kill -9`; gives what clients know it by.
    pub(crate) fn kill(self) -> Endpoint {
        assert!(self.running.kill(), "the server ran until now");
        self.endpoint
    }

    /// SIGTERM, then its end.
    pub(crate) fn terminate(self) -> Ended {
        self.running.terminate()
    }

    pub(crate) fn model_info(&self) -> pb::GetModelInfoResponse {
        self.block_on(async |url| {
            let mut client = ControlClient::connect(url)
                .await
                .expect("the server listens");
            let info = client.get_model_info(pb::GetModelInfoRequest {}).await;
            info.expect("the server answers").into_inner()
        })
    }

    /// The weights that it serves.
    pub(crate) fn weights(&self) -> pb::WeightsVersion {
        self.model_info()
            .weights
            .expect("every model has a weights version")
    }

    /// The one answer to a request.
    pub(crate) fn generate(&self, request: pb::GenerateRequest) -> pb::SequenceOutput {
        self.block_on(async |url| {
            let mut client = generation_client(url).await;
            let response = client.generate(request).await.expect("an answer");
            let mut outputs = response.into_inner().outputs;
            assert_eq!(outputs.len(), 1);
            outputs.remove(0)
        })
    }

    /// Calls the server from async code, given its URL.
    pub(crate) fn block_on<T>(&self, call: impl AsyncFnOnce(String) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(call(self.url()))
    }
}

pub(crate) async fn generation_client(url: String) -> GenerationClient<Channel> {
    GenerationClient::connect(url)
        .await
        .expect("the server listens")
}
