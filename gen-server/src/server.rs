//! `run(listener, config, shutdown)`: everything from a bound socket to a drained server.

use std::{future::Future, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use proto::genserver::v1::{control_server::ControlServer, generation_server::GenerationServer};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{
        Server,
        server::{Router, TcpIncoming},
    },
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    admission::Admission,
    backend::{self, Backend},
    config::{AuthToken, ConfigError, ServerConfig},
    convert::MAX_MESSAGE_BYTES,
    engine::handle::{EngineHandle, EngineSetup, start},
    error::ServerError,
    service::{ControlService, GenerationService, Shared, auth::Auth, rates::Rates},
    speed::Bench,
    swap::Swapper,
};

/// h2 counts small unread frames against half of the connection's window and closes the connection
/// when they exceed it: thousands of streams on one connection need the largest window there is.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// One connection may carry a whole data set, one stream per question.
const MAX_CONCURRENT_STREAMS: u32 = 16_384;
/// A client that drops thousands of calls at once must not lose its other calls (h2's default is 20).
const MAX_PENDING_ACCEPT_RESETS: usize = 16_384;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// After the last answer: time for connections to close by themselves.
const GOODBYE: Duration = Duration::from_millis(500);

/// Loads the model and serves on `listener` until `shutdown` resolves, then drains: new requests are
/// refused, running ones finish within the grace period. Callers may connect before the model is
/// loaded; their calls wait in the socket's backlog.
pub async fn run(
    listener: TcpListener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    let mut shutdown = Box::pin(shutdown);
    let model = tokio::select! {
        model = LoadedModel::load(config) => model?,
        () = &mut shutdown => return Ok(()),
    };
    model.serve(listener, shutdown).await
}

/// A model that is ready to serve.
#[derive(Debug)]
pub struct LoadedModel {
    backend: Backend,
    options: ServeOptions,
}

/// What serving needs beside the model; a part of [`ServerConfig`].
#[derive(Debug)]
pub(crate) struct ServeOptions {
    pub checkpoint_root: Option<PathBuf>,
    pub max_queued_requests: u32,
    pub default_max_tokens: u32,
    pub auth_token: Option<AuthToken>,
    pub grace: Duration,
}

impl LoadedModel {
    /// Loads the model folder, off the async threads.
    pub async fn load(config: ServerConfig) -> Result<Self, ServerError> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(ConfigError { mistakes }.into());
        }
        let options = ServeOptions {
            // That it exists was just checked.
            checkpoint_root: config
                .checkpoint_root
                .as_ref()
                .and_then(|it| it.canonicalize().ok()),
            max_queued_requests: config.max_queued_requests,
            default_max_tokens: config.default_max_tokens,
            auth_token: config.auth_token.clone(),
            grace: config.grace,
        };
        let load = tokio::task::spawn_blocking(move || backend::load(&config));
        let backend = load
            .await
            .map_err(|error| ServerError::Interrupted(error.to_string()))??;
        Ok(Self { backend, options })
    }

    /// To be timed instead of served.
    pub fn into_bench(self) -> Bench {
        Bench::new(self.backend)
    }

    /// Serves until `shutdown` resolves, then drains (see [`run`]).
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        serve(listener, self.backend, self.options, shutdown).await
    }
}

/// Serves a loaded model.
pub(crate) async fn serve(
    listener: TcpListener,
    backend: Backend,
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    let setup = EngineSetup {
        runner: backend.runner,
        limits: backend.limits,
        max_context_tokens: backend.max_context_tokens,
        weights: backend.weights,
        // Room for every admitted request, for those whose callers left since the last step, and
        // for a swap.
        max_num_commands: 2 * options.max_queued_requests as usize + 1,
    };
    let (engine, thread) = start(setup).map_err(ServerError::Thread)?;
    let admission = Admission::new(options.max_queued_requests);
    let shared = Arc::new(Shared::new(
        engine.clone(),
        admission.clone(),
        backend.tokenizer,
        backend.model,
        options.default_max_tokens,
    ));
    log_start(&listener, &engine);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health(reporter);
    health.set(ServingStatus::Serving).await;
    let rates = Rates::default();
    let sampling = rates.sample(engine.clone());
    let services = Services {
        swapper: Swapper::new(options.checkpoint_root, backend.loader, engine.clone()),
        shared,
        health: health.clone(),
        rates,
        auth: Auth::new(options.auth_token),
    };
    let router = services.router()?.add_service(health_service);
    let drained = CancellationToken::new();
    let drain = Drain {
        admission,
        engine: engine.clone(),
        health,
        grace: options.grace,
    };
    let draining = tokio::spawn(drain.when(shutdown, drained.clone()));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = router.serve_with_incoming_shutdown(incoming, drained.clone().cancelled_owned());
    let result = tokio::select! {
        result = serving => result.map_err(|error| ServerError::Transport(error.to_string())),
        // Connections that stay open after the drain are cut.
        () = async { drained.cancelled().await; sleep(GOODBYE).await } => Ok(()),
    };
    draining.abort();
    sampling.abort();
    let engine_failed = !engine.is_alive();
    stop_engine(engine, thread).await;
    if engine_failed {
        Err(ServerError::EngineStopped)
    } else {
        result
    }
}

fn log_start(listener: &TcpListener, engine: &EngineHandle) {
    let (limits, weights) = (engine.limits(), engine.live_weights());
    tracing::info!(
        address = listener
            .local_addr()
            .map_or_else(|error| error.to_string(), |at| at.to_string()),
        checkpoint = weights.checkpoint,
        digest = weights.digest,
        num_blocks = limits.num_blocks,
        block_size = limits.block_size,
        max_num_seqs = limits.max_num_seqs,
        max_num_batched_tokens = limits.max_num_batched_tokens,
        max_context_tokens = engine.max_context_tokens(),
        "serving"
    );
}

/// Tells the engine to end, and waits for its thread.
async fn stop_engine(engine: EngineHandle, thread: JoinHandle<()>) {
    let end = move || {
        engine.stop();
        thread.join()
    };
    if !matches!(tokio::task::spawn_blocking(end).await, Ok(Ok(()))) {
        tracing::error!("the engine's thread ended by a panic");
    }
}

struct Services {
    shared: Arc<Shared>,
    swapper: Swapper,
    health: Health,
    rates: Rates,
    auth: Auth,
}

impl Services {
    fn router(self) -> Result<Router, ServerError> {
        let generation = GenerationServer::new(GenerationService::new(Arc::clone(&self.shared)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let control = ControlService::new(self.shared, self.swapper, self.health, self.rates);
        let control = ControlServer::new(control).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let no_reflection =
            |error: tonic_reflection::server::Error| ServerError::Transport(error.to_string());
        let reflection_v1 = reflection().build_v1().map_err(no_reflection)?;
        // Python's and older clients know only this one.
        let reflection_v1alpha = reflection().build_v1alpha().map_err(no_reflection)?;
        Ok(Server::builder()
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_ACCEPT_RESETS))
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(InterceptedService::new(generation, self.auth.clone()))
            .add_service(InterceptedService::new(control, self.auth))
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha))
    }
}

/// What reflection tells about.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// What the way out needs.
struct Drain {
    admission: Admission,
    engine: EngineHandle,
    health: Health,
    grace: Duration,
}

impl Drain {
    /// After `shutdown`: refuses what comes, lets what runs finish within the grace period, then
    /// tells `drained`. At once if the engine has ended by itself.
    async fn when(self, shutdown: impl Future<Output = ()>, drained: CancellationToken) {
        let engine_stopped = self.engine.stopped();
        let asked = tokio::select! {
            () = shutdown => true,
            () = engine_stopped => false,
        };
        self.admission.start_draining();
        self.health.not_serving().await;
        if asked {
            tracing::info!(grace_ms = self.grace.as_millis() as u64, "draining");
            if timeout(self.grace, self.admission.idle()).await.is_err() {
                tracing::warn!("the grace period is over; requests that still run are cut");
            }
        }
        drained.cancel();
    }
}

/// What the health service says.
#[derive(Clone)]
pub(crate) struct Health(HealthReporter);

impl std::fmt::Debug for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Health(..)")
    }
}

impl Health {
    pub(crate) async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Of the server as a whole and of each of its services.
    async fn set(&self, status: ServingStatus) {
        for service in ["", "genserver.v1.Generation", "genserver.v1.Control"] {
            self.0.set_service_status(service, status).await;
        }
    }
}
