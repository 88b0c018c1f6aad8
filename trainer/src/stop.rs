//! The request to stop: set by SIGTERM or SIGINT, looked at between two optimizer steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Cloned freely; every clone sees the same request.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that SIGTERM and SIGINT raise, by way of one small thread that lives as long as the
    /// process. A second signal ends the process at once.
    pub fn on_signals() -> std::io::Result<Self> {
        let flag = Self::default();
        let raised = flag.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (mut terminate, mut interrupt) = {
            let _guard = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".to_string())
            .spawn(move || {
                runtime.block_on(async {
                    for _ in 0..2 {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                        }
                        if raised.is_raised() {
                            std::process::abort();
                        }
                        raised.raise();
                    }
                });
            })?;
        Ok(flag)
    }

    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
