//! The async side's end of the engine: one bounded queue in, one bounded channel per request out, and
//! the numbers it publishes. `stop` or the last handle's drop ends the engine thread.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Command, Engine, Parts, Submission, Swap,
    gauges::Gauges,
    output::Output,
    runner::{Runner, StagedWeights},
    scheduler::Limits,
};
use crate::request::{EngineRequest, Event, Task, WeightsVersion};

/// Submits to the engine; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    commands: SyncSender<Command>,
    live_weights: watch::Receiver<Arc<WeightsVersion>>,
    is_alive: watch::Receiver<bool>,
    gauges: Arc<Gauges>,
    limits: Limits,
    max_context_tokens: usize,
}

/// What the engine is started with.
#[derive(Debug)]
pub(crate) struct EngineSetup {
    pub runner: Box<dyn Runner>,
    pub limits: Limits,
    pub max_context_tokens: usize,
    pub weights: WeightsVersion,
    /// Commands that may wait to be taken over between two steps.
    pub max_num_commands: usize,
}

/// Why the engine did not take a request or swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// The queue is full; later there may be room.
    Full,
    /// The engine is gone.
    Stopped,
}

/// Starts the engine's thread.
pub(crate) fn start(setup: EngineSetup) -> io::Result<(EngineHandle, JoinHandle<()>)> {
    let (commands, command_receiver) = sync_channel(setup.max_num_commands);
    let (live_weights, live_weights_receiver) = watch::channel(Arc::new(setup.weights));
    let (alive, is_alive) = watch::channel(true);
    let gauges = Arc::new(Gauges::default());
    let mut engine = Engine::new(Parts {
        runner: setup.runner,
        limits: setup.limits,
        max_context_tokens: setup.max_context_tokens,
        commands: command_receiver,
        live_weights,
        gauges: Arc::clone(&gauges),
    });
    let thread = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            // A broken invariant ends the engine, never a caller's wait: every request hears of it.
            if catch_unwind(AssertUnwindSafe(|| engine.run())).is_err() {
                tracing::error!("the engine has stopped by a panic; restart the server");
                engine.fail_all();
            }
            drop(engine);
            alive.send_replace(false);
        })?;
    let handle = EngineHandle {
        commands,
        live_weights: live_weights_receiver,
        is_alive,
        gauges,
        limits: setup.limits,
        max_context_tokens: setup.max_context_tokens,
    };
    Ok((handle, thread))
}

impl EngineHandle {
    /// Queues a request. Its last event is `Finished` or `Failed`; a channel that ends without one
    /// means that the engine has stopped. Dropping the receiver cancels the request.
    pub(crate) fn submit(
        &self,
        mut request: EngineRequest,
    ) -> Result<mpsc::Receiver<Event>, SubmitError> {
        let num_prompt_tokens = request.prompt_ids.len();
        assert!(
            num_prompt_tokens > 0,
            "an empty prompt is refused where it comes in"
        );
        if let Task::Generate { max_tokens } = &mut request.task {
            assert!(
                num_prompt_tokens < self.max_context_tokens,
                "as is one that fills the context"
            );
            let room = (self.max_context_tokens - num_prompt_tokens) as u32;
            *max_tokens = (*max_tokens).clamp(1, room);
        }
        let (output, events) = Output::channel(&request);
        self.send(Command::Submit(Submission { request, output }))?;
        Ok(events)
    }

    /// Queues proven weights. The receiver hears the new version once it is live.
    pub(crate) fn swap(
        &self,
        weights: StagedWeights,
        digest: String,
        checkpoint: String,
    ) -> Result<oneshot::Receiver<Arc<WeightsVersion>>, SubmitError> {
        let (committed, receiver) = oneshot::channel();
        self.send(Command::Swap(Swap {
            weights,
            digest,
            checkpoint,
            committed,
        }))?;
        Ok(receiver)
    }

    /// Ends the engine after its current step; requests that are left fail. Waits for room in the
    /// queue.
    pub(crate) fn stop(&self) {
        // An error means that it has ended already.
        drop(self.commands.send(Command::Stop));
    }

    fn send(&self, command: Command) -> Result<(), SubmitError> {
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                TrySendError::Full(_) => SubmitError::Full,
                TrySendError::Disconnected(_) => SubmitError::Stopped,
            })
    }

    /// What new requests will be answered with, unless a swap comes first.
    pub(crate) fn live_weights(&self) -> Arc<WeightsVersion> {
        Arc::clone(&self.live_weights.borrow())
    }

    pub(crate) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Prompt and answer together.
    pub(crate) fn max_context_tokens(&self) -> usize {
        self.max_context_tokens
    }

    /// Resolves when the engine's thread has ended.
    pub(crate) async fn stopped(&self) {
        // An error means that the sender is gone, which is the same.
        drop(self.is_alive.clone().wait_for(|is_alive| !is_alive).await);
    }

    pub(crate) fn is_alive(&self) -> bool {
        *self.is_alive.borrow()
    }
}
