//! `ReloadCheckpoint`: a checkpoint below the root is found, verified, loaded and proven beside the
//! live weights, and swapped in whole at a step boundary. A failure anywhere leaves the old weights
//! serving.

mod name;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Instant,
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    backend::{LoadError, Loader},
    engine::handle::{EngineHandle, SubmitError},
    request::WeightsVersion,
};

/// Outcomes that are remembered for repeated calls.
const MAX_REMEMBERED: usize = 64;

/// Which checkpoint, as the caller asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReloadRequest {
    /// Relative to the root, such as `star/epoch_2`.
    pub checkpoint: String,
    /// Where given, manifest.json must have this sha256.
    pub expected_manifest_sha256: Option<String>,
    /// A repeated call with the same key and content succeeds without a second load.
    pub idempotency_key: Option<String>,
}

/// A swap that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reloaded {
    pub old: Arc<WeightsVersion>,
    pub new: Arc<WeightsVersion>,
    pub load_ms: u32,
    pub swap_ms: u32,
}

/// Why the old weights go on serving. Paths are shown relative to the root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(
        "this server has no checkpoint root; start it with --checkpoint-root DIR to allow reloads"
    )]
    NoRoot,
    #[error(
        "checkpoint {checkpoint:?}: {problem}; expected a name below the checkpoint root such as \
         star/epoch_2, its parts made of letters, digits, '.', '_' and '-'"
    )]
    Name { checkpoint: String, problem: String },
    #[error(
        "checkpoint {checkpoint}: there is no such folder below the checkpoint root; wait until \
         the trainer has finished writing it, or check the name"
    )]
    Missing { checkpoint: String },
    #[error("checkpoint {checkpoint}: {problem}; write the checkpoint again")]
    Manifest { checkpoint: String, problem: String },
    #[error(
        "checkpoint {checkpoint} is of another model: {problem}; start a server with this model \
         instead"
    )]
    OtherArchitecture { checkpoint: String, problem: String },
    #[error("checkpoint {checkpoint} was not taken: {problem}; the old weights go on serving")]
    Refused { checkpoint: String, problem: String },
    #[error("another checkpoint is being loaded; wait for it and ask again")]
    Busy,
    #[error("idempotency_key {key:?} was used for {checkpoint:?}; choose a new key")]
    KeyReused { key: String, checkpoint: String },
    #[error("the server is shutting down; ask again after its restart")]
    Draining,
    #[error("the engine has stopped; restart the server")]
    EngineStopped,
    #[error("loading was interrupted: {0}")]
    Interrupted(String),
}

/// Makes swaps, one at a time.
#[derive(Debug, Clone)]
pub(crate) struct Swapper {
    root: Option<PathBuf>,
    loader: Arc<dyn Loader>,
    engine: EngineHandle,
    one_at_a_time: Arc<Mutex<()>>,
    remembered: Arc<StdMutex<Remembered>>,
}

#[derive(Debug, Default)]
struct Remembered {
    /// What is being loaded now.
    current: Option<ReloadRequest>,
    /// The newest last.
    done: VecDeque<(ReloadRequest, Reloaded)>,
}

impl Swapper {
    pub(crate) fn new(
        root: Option<PathBuf>,
        loader: Arc<dyn Loader>,
        engine: EngineHandle,
    ) -> Self {
        Self {
            root,
            loader,
            engine,
            one_at_a_time: Arc::default(),
            remembered: Arc::default(),
        }
    }

    /// Loads, proves and commits. Goes on to its end even if the caller does not wait for it.
    pub(crate) async fn reload(&self, request: ReloadRequest) -> Result<Reloaded, ReloadError> {
        let turn = self.take_turn(&request).await?;
        if let Some(reloaded) = self.remembered_outcome(&request)? {
            return Ok(reloaded);
        }
        self.lock_remembered().current = Some(request.clone());
        let swapper = self.clone();
        let work = tokio::spawn(async move {
            let result = swapper.reload_now(&request).await;
            let mut remembered = swapper.lock_remembered();
            remembered.current = None;
            if let (Ok(reloaded), Some(_)) = (&result, &request.idempotency_key) {
                remembered.done.push_back((request, reloaded.clone()));
                if remembered.done.len() > MAX_REMEMBERED {
                    remembered.done.pop_front();
                }
            }
            drop(remembered);
            drop(turn);
            result
        });
        work.await
            .unwrap_or_else(|error| Err(ReloadError::Interrupted(error.to_string())))
    }

    /// A second call is refused while one is under way, but the same call again waits for it.
    async fn take_turn(&self, request: &ReloadRequest) -> Result<OwnedMutexGuard<()>, ReloadError> {
        let lock = Arc::clone(&self.one_at_a_time);
        if let Ok(turn) = Arc::clone(&lock).try_lock_owned() {
            return Ok(turn);
        }
        let is_same = self.lock_remembered().current.as_ref() == Some(request);
        if is_same && request.idempotency_key.is_some() {
            return Ok(lock.lock_owned().await);
        }
        Err(ReloadError::Busy)
    }

    fn remembered_outcome(&self, request: &ReloadRequest) -> Result<Option<Reloaded>, ReloadError> {
        let Some(key) = &request.idempotency_key else {
            return Ok(None);
        };
        let remembered = self.lock_remembered();
        let known = remembered
            .done
            .iter()
            .find(|(done, _)| done.idempotency_key.as_ref() == Some(key));
        match known {
            None => Ok(None),
            Some((done, reloaded)) if done == request => Ok(Some(reloaded.clone())),
            Some((done, _)) => Err(ReloadError::KeyReused {
                key: key.clone(),
                checkpoint: done.checkpoint.clone(),
            }),
        }
    }

    fn lock_remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn reload_now(&self, request: &ReloadRequest) -> Result<Reloaded, ReloadError> {
        let root = self.root.clone().ok_or(ReloadError::NoRoot)?;
        let load_start = Instant::now();
        let loader = Arc::clone(&self.loader);
        let asked = request.clone();
        let load = tokio::task::spawn_blocking(move || {
            let folder = name::resolve(&root, &asked.checkpoint)?;
            loader
                .load(&folder, asked.expected_manifest_sha256.as_deref())
                .map_err(|error| refused(&root, &asked.checkpoint, error))
        });
        let loaded = load
            .await
            .map_err(|error| ReloadError::Interrupted(error.to_string()))??;
        let load_ms = millis_since(load_start);
        let swap_start = Instant::now();
        let old = self.engine.live_weights();
        let committed = self
            .engine
            .swap(loaded.weights, loaded.digest, request.checkpoint.clone())
            .map_err(|error| match error {
                SubmitError::Full => ReloadError::Busy,
                SubmitError::Stopped => ReloadError::EngineStopped,
            })?;
        let new = committed.await.map_err(|_| ReloadError::EngineStopped)?;
        let reloaded = Reloaded {
            old,
            new,
            load_ms,
            swap_ms: millis_since(swap_start),
        };
        tracing::info!(
            checkpoint = request.checkpoint,
            version = reloaded.new.number,
            load_ms,
            swap_ms = reloaded.swap_ms,
            "swapped weights"
        );
        Ok(reloaded)
    }
}

/// The loader's error without the place of the root, which is nobody's business outside.
fn refused(root: &Path, checkpoint: &str, error: LoadError) -> ReloadError {
    let relative = |problem: String| {
        let prefix = format!("{}/", root.display());
        problem.replace(&prefix, "")
    };
    let checkpoint = checkpoint.to_owned();
    match error {
        LoadError::Manifest(problem) => ReloadError::Manifest {
            checkpoint,
            problem: relative(problem),
        },
        LoadError::OtherArchitecture(problem) => ReloadError::OtherArchitecture {
            checkpoint,
            problem: relative(problem),
        },
        LoadError::Unusable(problem) => ReloadError::Refused {
            checkpoint,
            problem: relative(problem),
        },
    }
}

fn millis_since(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX)
}
