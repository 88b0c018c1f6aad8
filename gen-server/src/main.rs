//! `gen-server`: arguments, log, socket, signals. `gen-server doctor` and `gen-server speed` serve nobody.

use std::{fs, io, io::IsTerminal as _, net::SocketAddr, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use gen_server::{
    Args, DoctorArgs, LoadedModel, LogFormat, Measured, PartsBench, ServerConfig, ServerError,
    SpeedArgs,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

/// sysexits.h: the configuration is wrong, as against a failure.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    // The word itself stands where the program's name would.
    let words = std::env::args_os().skip(1);
    match std::env::args_os().nth(1) {
        Some(word) if word == "doctor" => doctor(&DoctorArgs::parse_from(words)),
        Some(word) if word == "speed" => {
            let args = SpeedArgs::parse_from(words);
            with_config(&args.server, |config| speed(&args, &config))
        }
        _ => {
            let args = Args::parse();
            with_config(&args, |config| run(&args, config))
        }
    }
}

/// Starts the log, checks the configuration and goes on with it.
fn with_config(args: &Args, go_on: impl FnOnce(ServerConfig) -> anyhow::Result<()>) -> ExitCode {
    start_log(args.log_format);
    let config = match ServerConfig::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("gen-server cannot start:\n{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match go_on(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gen-server: {error:#}");
            match error.downcast_ref() {
                // Asked for what this machine does not have, or for what there is not.
                Some(ServerError::Gpu(_) | ServerError::GpuMemory(_) | ServerError::Config(_)) => {
                    EXIT_CONFIG.into()
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "what was found is what it is for")]
fn doctor(args: &DoctorArgs) -> ExitCode {
    let all_ok = gen_server::examine(args, |check| {
        if args.json {
            println!("{}", check.json());
        } else {
            println!("{check}");
        }
    });
    if all_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::print_stdout, reason = "a measurement is printed")]
fn speed(args: &SpeedArgs, config: &ServerConfig) -> anyhow::Result<()> {
    args.check(config).map_err(ServerError::from)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let loaded = runtime.block_on(LoadedModel::load(config.clone()))?;
    let mut bench = loaded.into_bench();
    let mut steps = Vec::new();
    for phase in &args.phases {
        match bench.measure(*phase) {
            Ok(measured) if args.parts => steps.push(measured),
            Ok(measured) if args.json => println!("{}", measured.json()),
            Ok(measured) => println!("{}", measured.line()),
            Err(problem) => eprintln!("left out: {problem}"),
        }
    }
    // Its memory is needed.
    drop(bench);
    if args.parts {
        parts(args, config, &steps)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a measurement is printed")]
fn parts(args: &SpeedArgs, config: &ServerConfig, steps: &[Measured]) -> anyhow::Result<()> {
    let bench = PartsBench::open(config)?;
    for step in steps {
        let parts = bench.measure(step)?;
        if args.json {
            println!("{}", parts.json().join("\n"));
        } else {
            println!("{parts}");
        }
    }
    Ok(())
}

fn run(args: &Args, config: ServerConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let done = runtime.block_on(serve(args, config));
    // A model that is still being loaded must not hold up the end.
    runtime.shutdown_background();
    done
}

async fn serve(args: &Args, config: ServerConfig) -> anyhow::Result<()> {
    raise_file_limit();
    tracing::info!(?config, "resolved configuration");
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; is another server there? --listen takes another",
            args.listen
        )
    })?;
    let address = listener.local_addr().context("the socket has no address")?;
    // Installed before the long loading, so that a signal ends it.
    let mut shutdown = Box::pin(stop_signal()?);
    let model = tokio::select! {
        model = LoadedModel::load(config) => model?,
        () = &mut shutdown => return Ok(()),
    };
    announce(address, args.endpoint_file.as_deref())?;
    let result = model.serve(listener, shutdown).await;
    if let Some(file) = &args.endpoint_file {
        // Whoever finds the file may believe it. A successor may have written its own by now.
        if fs::read_to_string(file).is_ok_and(|text| text == endpoint(address)) {
            drop(fs::remove_file(file));
        }
    }
    Ok(result?)
}

/// The address, whole or not at all in the endpoint file, then on stdout: who reads it there finds
/// the file in place.
#[expect(
    clippy::print_stdout,
    reason = "the address is what this program tells its caller"
)]
fn announce(address: SocketAddr, file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = file {
        let context = || format!("cannot write the endpoint file {}", file.display());
        let mut beside = file.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        fs::write(&beside, endpoint(address)).with_context(context)?;
        fs::rename(&beside, file).with_context(context)?;
    }
    println!("listening on http://{address}");
    Ok(())
}

/// What the endpoint file holds.
fn endpoint(address: SocketAddr) -> String {
    format!("http://{address}\n")
}

/// Resolves at the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Every connection is an open file, and the usual soft limit of 1,024 makes later ones hang.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = ?limit.current, "cannot raise the limit of open files");
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
