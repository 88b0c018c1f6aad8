//! Ctrl-C and SIGTERM as a value that stages look at between two answers.

use tokio_util::sync::CancellationToken;

use crate::error::ClientError;

/// Set once somebody asked the process to stop. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(CancellationToken);

impl Interrupt {
    /// Listens for SIGINT and SIGTERM. The first sets it; a second SIGINT ends the process at once,
    /// as the user expects of Ctrl-C twice (logs are whole lines, so nothing is lost by it).
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let interrupt = Self::default();
        let token = interrupt.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            token.cancel();
            interrupts.recv().await;
            std::process::abort();
        });
        Ok(interrupt)
    }

    /// Asks for a stop.
    pub fn set(&self) {
        self.0.cancel();
    }

    pub fn is_set(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when a stop is asked for.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// An error once a stop was asked for: between two stages.
    pub fn check(&self) -> Result<(), ClientError> {
        if self.is_set() {
            Err(ClientError::Interrupted)
        } else {
            Ok(())
        }
    }
}
