//! A generation server in this process: the same gRPC over a loopback port, no second program.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use gen_server::{Device, GpuConfig, ServerConfig, ServerError};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{BearerToken, Server, ServerAddress},
    error::ClientError,
    interrupt::Interrupt,
};

/// What server and trainer of an experiment compute on. Not a setting: it may differ from call to call.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    pub device: Device,
    /// Share of the GPU's memory that the server in this process takes; the rest is the trainer's.
    pub gpu_memory_utilization: f32,
    /// Of the server in this process and of the trainer; `None` is one per core.
    pub threads: Option<usize>,
}

/// A server that runs until [`EmbeddedServer::shut_down`] or the end of the process.
#[derive(Debug)]
pub struct EmbeddedServer {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServerError>>,
}

impl EmbeddedServer {
    /// Starts a server on a free loopback port and waits until it answers, or for an interrupt.
    pub async fn start(
        model: &Path,
        checkpoint_root: &Path,
        (hardware, interrupt): (&Hardware, &Interrupt),
    ) -> Result<(Self, Server), ClientError> {
        let config = ServerConfig {
            checkpoint_root: Some(checkpoint_root.to_owned()),
            threads: hardware.threads,
            gpu: GpuConfig {
                memory_utilization: hardware.gpu_memory_utilization,
                ..GpuConfig::default()
            },
            ..ServerConfig::for_model(model).on(hardware.device)
        };
        let failed = |cause: &dyn std::fmt::Display| ClientError::EmbeddedServer(cause.to_string());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(|cause| failed(&cause))?;
        let port = listener
            .local_addr()
            .map_err(|cause| failed(&cause))?
            .port();
        let stop = CancellationToken::new();
        let mut task = tokio::spawn(gen_server::run(
            listener,
            config,
            stop.clone().cancelled_owned(),
        ));
        let address = ServerAddress::Url(format!("http://127.0.0.1:{port}"));
        // The server's own reason is better than "connection refused".
        let server = tokio::select! {
            biased;
            ended = &mut task => {
                let cause = match ended {
                    Ok(Ok(())) => "it ended at once".to_owned(),
                    Ok(Err(cause)) => cause.to_string(),
                    Err(cause) => cause.to_string(),
                };
                return Err(failed(&cause));
            }
            () = interrupt.wait() => return Err(ClientError::Interrupted),
            server = connect(address) => server,
        };
        match server {
            Ok(server) => Ok((Self { stop, task }, server)),
            Err(error) if task.is_finished() => match task.await {
                Ok(Err(cause)) => Err(failed(&cause)),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Lets running requests finish and ends the server.
    pub async fn shut_down(self) -> Result<(), ClientError> {
        self.stop.cancel();
        match self.task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(ClientError::EmbeddedServer(cause.to_string())),
            Err(cause) => Err(ClientError::EmbeddedServer(cause.to_string())),
        }
    }
}

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Tries until the server answers. While it loads it does not, and a large model takes longer than a connection may.
async fn connect(address: ServerAddress) -> Result<Server, ClientError> {
    loop {
        match Server::connect(address.clone(), BearerToken::default()).await {
            Err(ClientError::Unreachable { .. }) => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_server::{Act, FakeServer};

    #[tokio::test]
    async fn a_server_that_is_not_up_yet_is_waited_for() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let place = listener.local_addr().unwrap();
        drop(listener);
        let connecting = tokio::spawn(connect(ServerAddress::Url(format!("http://{place}"))));
        tokio::time::sleep(3 * PAUSE).await;
        assert!(!connecting.is_finished());
        let listener = TcpListener::bind(place).await.unwrap();
        let _server = FakeServer::start_on(listener, |_, _| Act::Say(String::new()));
        connecting.await.unwrap().unwrap();
    }
}
