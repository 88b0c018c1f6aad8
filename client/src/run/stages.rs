//! The stages of an experiment, top to bottom. A finished stage is read back instead of done again.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use data::prompt::PromptFormat;

use super::{
    checkpoints::{BASE, Checkpoints},
    embedded_server::{EmbeddedServer, Hardware},
    fine_tune,
    inputs::Inputs,
    kind::Kind,
    memory,
    recipe::Recipes,
    results,
    settings::Settings,
    state::{Stage, State},
};
use crate::{
    connection::Server,
    error::ClientError,
    eval::{EvalSummary, SUMMARY_FILE, evaluate_session},
    files,
    generate::{BulkLimits, default_in_flight},
    interrupt::Interrupt,
    preflight::OnTrouble,
    progress::ProgressMode,
    report::{
        RESULTS_FILE,
        results::{PeakMemory, Results},
    },
    session::{Context, Questions, Session},
};

/// Where the model is served.
#[derive(Debug)]
pub enum ServerSide {
    /// In this process.
    Embedded,
    /// Elsewhere; its checkpoint root is also a folder of this machine.
    Remote {
        server: Box<Server>,
        checkpoint_root: PathBuf,
        /// With the token that the server wants, for the trainer's calls.
        token_file: Option<PathBuf>,
    },
}

/// An experiment as it was asked for.
#[derive(Debug)]
pub struct Experiment {
    pub model: PathBuf,
    pub train: PathBuf,
    pub test: PathBuf,
    pub out: PathBuf,
    pub settings: Settings,
    pub server: ServerSide,
    pub hardware: Hardware,
    /// Prompts at the server at a time; `None` is by the server's limits.
    pub max_in_flight: Option<usize>,
    pub interrupt: Interrupt,
    pub progress: ProgressMode,
    /// For the untouched model's first answers. What a fine-tuned model does wrong is a result.
    pub preflight: OnTrouble,
}

/// Runs or continues an experiment and renders its report.
pub async fn run(experiment: Experiment) -> Result<Results, ClientError> {
    let warning = experiment.settings.check_prompts()?;
    fine_tune::check_trainer_args(&experiment.settings)?;
    experiment.progress.say(&experiment.settings.text());
    files::create_folder(&experiment.out)?;
    let inputs = Inputs::read(
        (&experiment.train, &experiment.test),
        &experiment.out,
        &experiment.settings,
    )?;
    let digests = (inputs.train_sha256.as_str(), inputs.test_sha256.as_str());
    let state = State::open(&experiment.out, &experiment.settings, digests)?;
    inputs.write()?;
    for warning in warning.into_iter().chain(inputs.warning()) {
        experiment.progress.say(&format!("WARNING: {warning}"));
    }
    let checkpoints = match &experiment.server {
        ServerSide::Embedded => Checkpoints::at_root(experiment.out.join("checkpoints")),
        ServerSide::Remote {
            checkpoint_root, ..
        } => Checkpoints::below(checkpoint_root, &experiment.out)?,
    };
    let base = checkpoints.place_base(&experiment.model)?;
    let (embedded, server, token_file) = match experiment.server {
        ServerSide::Remote {
            server, token_file, ..
        } => (None, *server, token_file),
        ServerSide::Embedded => {
            let line = "loading the model into a server in this process";
            experiment.progress.say(line);
            let root = checkpoints.path("");
            let hardware = (&experiment.hardware, &experiment.interrupt);
            let started = EmbeddedServer::start(&base, &root, hardware).await?;
            (Some(started.0), started.1, None)
        }
    };
    let info = server.info().await?;
    let in_flight = experiment.max_in_flight;
    let limits = BulkLimits {
        max_in_flight: in_flight.unwrap_or_else(|| default_in_flight(&info)),
        ..BulkLimits::default()
    };
    let mut lab = Lab {
        settings: experiment.settings,
        model: experiment.model,
        out: experiment.out,
        hardware: experiment.hardware,
        token_file,
        context: Context {
            server,
            progress: experiment.progress,
            interrupt: experiment.interrupt,
            limits,
            preflight: experiment.preflight,
        },
        checkpoints,
        inputs,
        state,
        recipes: Recipes::default(),
    };
    if embedded.is_some() {
        // It has loaded the base a moment ago, so nothing need be swapped in for it.
        let digest = lab.context.server.model().await?.weights.digest;
        lab.state.set_base_digest(&digest)?;
    }
    let results = Box::pin(lab.all_stages()).await;
    if let Some(embedded) = embedded {
        embedded.shut_down().await?;
    }
    results
}

/// Everything the stages work with.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) settings: Settings,
    pub(super) model: PathBuf,
    pub(super) out: PathBuf,
    pub(super) hardware: Hardware,
    pub(super) token_file: Option<PathBuf>,
    pub(super) context: Context,
    pub(super) checkpoints: Checkpoints,
    pub(super) inputs: Inputs,
    pub(super) state: State,
    pub(super) recipes: Recipes,
}

impl Lab {
    async fn all_stages(&mut self) -> Result<Results, ClientError> {
        let zero_shot = self.zero_shot().await?;
        let format = zero_shot.manifest.prompt_format;
        let turns = self.star_loop(format).await?;
        self.fine_tune(Kind::Vanilla, format).await?;
        self.test(Kind::Star {
            iteration: turns.chosen,
        })
        .await?;
        self.test(Kind::Vanilla).await?;
        self.note_memory(0)?;
        let results = results::assemble(self, zero_shot, turns)?;
        files::write_json(&self.out.join(RESULTS_FILE), &results)?;
        crate::report::render(&self.out)?;
        Ok(results)
    }

    /// The untouched model on the test questions, and on the held-out ones as epoch 0.
    async fn zero_shot(&mut self) -> Result<EvalSummary, ClientError> {
        if self.state.is_finished(Stage::ZeroShot) {
            return self.summary("zero_shot");
        }
        let started = Instant::now();
        let done = async {
            let digest = self.load_base().await?;
            self.state.set_base_digest(&digest)?;
            self.evaluate(
                &self.inputs.held_out,
                "held_out/base",
                ("held-out, base", &digest),
            )
            .await?;
            self.evaluate(&self.inputs.test, "zero_shot", ("zero-shot", &digest))
                .await
        }
        .await;
        self.end(Stage::ZeroShot, started, done)
    }

    pub(super) async fn fine_tune(
        &mut self,
        kind: Kind,
        format: PromptFormat,
    ) -> Result<(), ClientError> {
        let stage = kind.sft_stage();
        if self.state.is_finished(stage) {
            return Ok(());
        }
        let started = Instant::now();
        // The weights of the last fine-tuning must not be what serves while this one begins.
        let done = async {
            self.load_base().await?;
            fine_tune::run(self, kind, format).await
        }
        .await;
        if let Ok(peak) = done {
            self.note_memory(peak)?;
        }
        self.end(stage, started, done.map(|_| ()))
    }

    /// The chosen epoch on the test questions: once.
    pub(super) async fn test(&mut self, kind: Kind) -> Result<(), ClientError> {
        let stage = kind.test_stage();
        if self.state.is_finished(stage) {
            return Ok(());
        }
        let started = Instant::now();
        let done = async {
            let epoch = fine_tune::chosen_epoch(self, kind)?;
            let digest = self.load(&kind.checkpoint(epoch)).await?;
            let label = format!("test, {}", kind.label());
            self.evaluate(&self.inputs.test, &kind.test_folder(), (&label, &digest))
                .await
        }
        .await;
        self.end(stage, started, done.map(|_| ()))
    }

    /// Makes the server hold the untouched model; gives its digest.
    pub(super) async fn load_base(&self) -> Result<String, ClientError> {
        let served = self.context.server.model().await?.weights.digest;
        match self.state.base_digest() {
            Some(base) if base == served => Ok(served),
            _ => self.load(BASE).await,
        }
    }

    /// Swaps a checkpoint in; gives its digest.
    pub(super) async fn load(&self, name: &str) -> Result<String, ClientError> {
        self.context.interrupt.check()?;
        let swap = self
            .context
            .server
            .reload(&self.checkpoints.name_at_server(name))
            .await?;
        Ok(swap.new.digest)
    }

    /// For questions to these weights: only the untouched model's first answers can stop a run.
    pub(super) fn context_for(&self, digest: &str) -> Context {
        let is_base = self.state.base_digest() == Some(digest);
        let preflight = if is_base {
            self.context.preflight
        } else {
            OnTrouble::Warn
        };
        Context {
            preflight,
            ..self.context.clone()
        }
    }

    /// Evaluates the weights with this digest, which the server must hold.
    pub(super) async fn evaluate(
        &self,
        questions: &Questions,
        folder: &str,
        (label, digest): (&str, &str),
    ) -> Result<EvalSummary, ClientError> {
        let method = self.settings.eval_method()?;
        let session = Session::open(&self.context.server, method, questions, "eval").await?;
        session.require_weights(digest)?;
        evaluate_session(
            &self.context_for(digest),
            &session,
            questions,
            &self.out.join(folder),
            label,
        )
        .await
    }

    /// The summary that a finished stage left.
    pub(super) fn summary(&self, folder: &str) -> Result<EvalSummary, ClientError> {
        files::require_json(&self.out.join(folder).join(SUMMARY_FILE))
    }

    /// Keeps the time of a stage, however it ended, and marks it finished where it ended well.
    pub(super) fn end<T>(
        &mut self,
        stage: Stage,
        started: Instant,
        done: Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.state.add_time(stage, started.elapsed())?;
        let value = done?;
        self.state.finish(stage)?;
        Ok(value)
    }

    fn note_memory(&mut self, trainer_bytes: u64) -> Result<(), ClientError> {
        let client_bytes = memory::peak_of_this_process();
        self.state.add_memory(PeakMemory {
            client_bytes,
            trainer_bytes,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    pub(super) fn base(&self) -> PathBuf {
        self.checkpoints.path(BASE)
    }
}

/// The folder's name for logs of the trainers.
pub(super) fn log_path(out: &Path, name: &str) -> PathBuf {
    out.join(format!("trainer_{name}.log"))
}
