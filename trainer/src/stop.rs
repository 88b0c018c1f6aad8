//! The request to stop: set by SIGTERM, SIGINT or SIGUSR1 (SLURM's warning before the time
//! limit), looked at between two optimizer steps.

use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// Signals that come so soon after the first are the same request: a terminal or a batch system sends
/// one to the whole group, and a parent process then passes its own on.
const SAME_REQUEST: Duration = Duration::from_secs(2);

/// Cloned freely; every clone sees the same request.
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    raised: Arc<AtomicBool>,
    /// Looks until it raises itself.
    #[cfg(test)]
    looks_left: Option<Arc<AtomicU64>>,
}

impl StopFlag {
    /// A flag that SIGTERM, SIGINT and SIGUSR1 raise, by way of one small thread that lives as long as the
    /// process. A second SIGINT ends the process at once, and loses what is not saved yet; SIGTERM after
    /// SIGUSR1 is what a scheduler does in good order.
    pub fn on_signals() -> std::io::Result<Self> {
        let flag = Self::default();
        let raised = flag.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (mut terminate, mut interrupt, mut user) = {
            let _guard = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::user_defined1())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".to_string())
            .spawn(move || {
                runtime.block_on(async {
                    let mut first: Option<Instant> = None;
                    loop {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = user.recv() => {}
                            _ = interrupt.recv() => {
                                let first = *first.get_or_insert_with(Instant::now);
                                if first.elapsed() > SAME_REQUEST {
                                    std::process::abort();
                                }
                            }
                        }
                        raised.raise();
                    }
                });
            })?;
        Ok(flag)
    }

    pub fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    pub fn is_raised(&self) -> bool {
        #[cfg(test)]
        if let Some(left) = &self.looks_left
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.raise();
        }
        self.raised.load(Ordering::Relaxed)
    }

    /// Raises itself when it is looked at for this time, counted from 1: a signal at a chosen step.
    #[cfg(test)]
    pub(crate) fn at_look(number: u64) -> Self {
        Self {
            looks_left: Some(Arc::new(AtomicU64::new(number))),
            ..Self::default()
        }
    }
}
