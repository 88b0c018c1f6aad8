//! One fine-tuning: the trainer runs as a child and has the server load each epoch's checkpoint;
//! meanwhile each epoch is evaluated on the held-out questions.
//!
//! A slow evaluation may be overtaken by the next epoch's swap. Every answer names its weights, so
//! that is noticed; what is missing at the end is evaluated after the trainer, by loading the epoch
//! again.

use std::{ffi::OsString, path::PathBuf};

use data::prompt::PromptFormat;
use futures::{FutureExt, future::BoxFuture};
use trainer::progress::Event;

use super::{
    memory,
    settings::ChooseEpoch,
    stages::{Lab, log_path},
    state::Stage,
    trainer_process::TrainerProcess,
};
use crate::{
    bootstrap::ACCEPTED_FILE,
    error::ClientError,
    eval::{EvalSummary, SUMMARY_FILE},
    files::{self, create_folder},
    progress::Progress,
    report::results::EpochAccuracy,
};

/// Which data is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rationales that the model itself wrote.
    Star,
    /// The data set's own solutions.
    Vanilla,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Star => "star",
            Self::Vanilla => "vanilla",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Star => "STaR SFT",
            Self::Vanilla => "vanilla SFT",
        }
    }

    pub(super) fn sft_stage(self) -> Stage {
        match self {
            Self::Star => Stage::StarSft,
            Self::Vanilla => Stage::VanillaSft,
        }
    }

    pub(super) fn test_stage(self) -> Stage {
        match self {
            Self::Star => Stage::StarTest,
            Self::Vanilla => Stage::VanillaTest,
        }
    }

    pub(super) fn test_folder(self) -> &'static str {
        match self {
            Self::Star => "test_star",
            Self::Vanilla => "test_vanilla",
        }
    }

    /// An epoch's checkpoint, as `Checkpoints` names it.
    pub(super) fn checkpoint(self, epoch: u32) -> String {
        format!("{}/epoch_{epoch}", self.name())
    }

    fn held_out_folder(self, epoch: u32) -> String {
        format!("held_out/{}_epoch_{epoch}", self.name())
    }

    /// What the trainer reads.
    pub(super) fn train_file(self, lab: &Lab) -> PathBuf {
        match self {
            Self::Star => lab.path("bootstrap").join(ACCEPTED_FILE),
            Self::Vanilla => lab.inputs.solutions_path.clone(),
        }
    }
}

/// Trains all epochs and evaluates each; gives the trainer's peak memory in bytes.
pub(super) async fn run(lab: &Lab, kind: Kind, format: PromptFormat) -> Result<u64, ClientError> {
    lab.context.interrupt.check()?;
    create_folder(&lab.checkpoints.path(""))?;
    let trainer = TrainerProcess::start(
        &arguments(lab, kind, format),
        &log_path(&lab.out, kind.name()),
    )?;
    let mut watch = Watch {
        lab,
        kind,
        progress: None,
        note: String::new(),
        facts: TrainerFacts::default(),
        evaluation: None,
        peak: 0,
    };
    watch.until_trained(trainer).await?;
    if let Some(progress) = watch.progress.take() {
        progress.finish();
    }
    if let Some(evaluation) = watch.evaluation.take() {
        let done = evaluation.await;
        watch.show_evaluation(done)?;
    }
    let Watch { facts, peak, .. } = watch;
    if let Some(facts) = facts.known() {
        files::write_json(&facts_path(lab, kind), &facts)?;
    }
    for epoch in 1..=lab.settings.epochs {
        if !is_evaluated(lab, kind, epoch) {
            let digest = lab.load(&kind.checkpoint(epoch)).await?;
            evaluate_epoch(lab, kind, epoch, digest).await?;
        }
    }
    Ok(peak)
}

/// What the trainer said about its examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct TrainerFacts {
    pub(super) num_train_examples: u64,
    pub(super) num_validation_examples: u64,
}

impl TrainerFacts {
    /// A trainer that found all epochs done may say nothing about its examples.
    fn known(self) -> Option<Self> {
        (self.num_train_examples > 0).then_some(self)
    }
}

/// What an earlier or this invocation's trainer said.
pub(super) fn facts(lab: &Lab, kind: Kind) -> Result<TrainerFacts, ClientError> {
    Ok(files::read_json(&facts_path(lab, kind))?.unwrap_or_default())
}

fn facts_path(lab: &Lab, kind: Kind) -> PathBuf {
    lab.path(&format!("trainer_{}.json", kind.name()))
}

/// A training under way.
struct Watch<'a> {
    lab: &'a Lab,
    kind: Kind,
    /// From the first step on: only then is it known how many there are.
    progress: Option<Progress>,
    note: String,
    facts: TrainerFacts,
    evaluation: Option<BoxFuture<'a, Result<EvalSummary, ClientError>>>,
    peak: u64,
}

impl Watch<'_> {
    async fn until_trained(&mut self, mut trainer: TrainerProcess) -> Result<(), ClientError> {
        let interrupt = self.lab.context.interrupt.clone();
        loop {
            let evaluated = async {
                match self.evaluation.as_mut() {
                    Some(evaluation) => evaluation.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = interrupt.wait() => {
                    trainer.stop().await;
                    return Err(ClientError::Interrupted);
                }
                done = evaluated => {
                    self.evaluation = None;
                    self.show_evaluation(done)?;
                }
                event = trainer.next() => match event? {
                    Some(event) => {
                        self.peak = self.peak.max(trainer.id().map_or(0, memory::peak_of));
                        self.take(event);
                    }
                    None => return trainer.finish().await,
                },
            }
        }
    }

    fn show_evaluation(
        &mut self,
        done: Result<EvalSummary, ClientError>,
    ) -> Result<(), ClientError> {
        match done {
            Ok(summary) => {
                let checkpoint = &summary.manifest.weights.checkpoint;
                let line = format!("held-out after {checkpoint}: {}", summary.headline());
                self.lab.context.progress.say(&line);
                self.note = format!("held-out {:.1} %", summary.accuracy * 100.0);
                Ok(())
            }
            Err(ClientError::Interrupted) => Err(ClientError::Interrupted),
            // Overtaken by the next swap, or a trouble that the second try will name.
            Err(error) => {
                tracing::info!(%error, "an epoch is evaluated after training");
                Ok(())
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Start {
                num_train_examples,
                num_validation_examples,
                ..
            } => {
                self.facts = TrainerFacts {
                    num_train_examples,
                    num_validation_examples,
                };
            }
            Event::Step {
                step,
                total_steps,
                epoch,
                loss,
                tokens_per_s,
                ..
            } => {
                let mut note = format!("epoch {epoch}, loss {loss:.3}, {tokens_per_s:.0} tokens/s");
                if !self.note.is_empty() {
                    note = format!("{note}, {}", self.note);
                }
                let mode = &self.lab.context.progress;
                let start = || {
                    mode.start(
                        self.kind.title(),
                        total_steps.unwrap_or(step),
                        step.saturating_sub(1),
                    )
                };
                let progress = self.progress.get_or_insert_with(start);
                progress.set_note(note);
                progress.set_done(step);
            }
            Event::Notified {
                checkpoint,
                ok: true,
                weights_digest: Some(digest),
                ..
            } => {
                // One that still runs was overtaken by this swap.
                if let Some(epoch) = epoch_in(&checkpoint)
                    && !is_evaluated(self.lab, self.kind, epoch)
                {
                    let evaluation = evaluate_epoch(self.lab, self.kind, epoch, digest);
                    self.evaluation = Some(evaluation.boxed());
                }
            }
            Event::Notified {
                checkpoint,
                message,
                ..
            } => {
                tracing::warn!(%checkpoint, %message, "the server did not load a checkpoint");
            }
            Event::Warning { message } => self.lab.context.progress.say(&message),
            Event::StepSkipped { step, reason, .. } => {
                self.lab
                    .context
                    .progress
                    .say(&format!("step {step} skipped: {reason}"));
            }
            Event::Resumed { epoch, .. } => {
                let line = format!("{} goes on after epoch {epoch}", self.kind.title());
                self.lab.context.progress.say(&line);
            }
            _ => {}
        }
    }
}

async fn evaluate_epoch(
    lab: &Lab,
    kind: Kind,
    epoch: u32,
    digest: String,
) -> Result<EvalSummary, ClientError> {
    let label = format!("held-out, {} {epoch}", kind.name());
    lab.evaluate(
        &lab.inputs.held_out,
        &kind.held_out_folder(epoch),
        (&label, &digest),
    )
    .await
}

fn is_evaluated(lab: &Lab, kind: Kind, epoch: u32) -> bool {
    lab.path(&kind.held_out_folder(epoch))
        .join(SUMMARY_FILE)
        .is_file()
}

/// `star/epoch_3` is epoch 3.
fn epoch_in(checkpoint: &str) -> Option<u32> {
    checkpoint.rsplit_once("epoch_")?.1.parse().ok()
}

/// Accuracies on the held-out questions, one per epoch.
pub(super) fn held_out(lab: &Lab, kind: Kind) -> Result<Vec<EpochAccuracy>, ClientError> {
    (1..=lab.settings.epochs)
        .map(|epoch| {
            let summary = lab.summary(&kind.held_out_folder(epoch))?;
            Ok(EpochAccuracy { epoch, summary })
        })
        .collect()
}

/// The epoch that is put to the test.
pub(super) fn chosen_epoch(lab: &Lab, kind: Kind) -> Result<u32, ClientError> {
    let right: Vec<u64> = held_out(lab, kind)?
        .iter()
        .map(|epoch| epoch.summary.counts.right)
        .collect();
    Ok(choose(&right, lab.settings.choose_epoch))
}

/// Epochs count from 1; of equally good ones the earlier, which moved less far from the base.
fn choose(right: &[u64], how: ChooseEpoch) -> u32 {
    let best = right.iter().copied().max();
    let index = match how {
        ChooseEpoch::Last => right.len().checked_sub(1),
        ChooseEpoch::BestOnHeldOut => right.iter().position(|count| Some(*count) == best),
    };
    index.map_or(1, |index| index as u32 + 1)
}

fn arguments(lab: &Lab, kind: Kind, format: PromptFormat) -> Vec<OsString> {
    let settings = &lab.settings;
    let data_format = match kind {
        Kind::Star => "star",
        Kind::Vanilla => "gsm8k",
    };
    let mut args: Vec<OsString> = vec!["sft".into()];
    let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    add("--model", lab.base().into());
    add("--train", kind.train_file(lab).into());
    add("--format", data_format.into());
    add("--out", lab.checkpoints.path(kind.name()).into());
    add("--epochs", settings.epochs.to_string().into());
    add("--lr", settings.lr.to_string().into());
    add("--batch-size", settings.batch_size.to_string().into());
    add("--max-length", settings.max_length.to_string().into());
    let validation_fraction = settings.validation_fraction.to_string();
    add("--validation-fraction", validation_fraction.into());
    add("--prompt", settings.training_prompt.clone().into());
    add("--prompt-format", format.as_str().into());
    add("--seed", settings.seed.to_string().into());
    add("--server", lab.context.server.url().into());
    add(
        "--server-checkpoint-prefix",
        lab.checkpoints.name_at_server(kind.name()).into(),
    );
    // A 3B checkpoint is read, hashed and waits for long answers under way before it goes live.
    add("--server-time-limit-s", "1800".into());
    if let Some(token_file) = &lab.token_file {
        add("--server-token-file", token_file.into());
    }
    if let Some(threads) = lab.threads {
        add("--threads", threads.to_string().into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Best on the held-out questions, the earlier of equals; or simply the last.
    #[test]
    fn the_epoch_is_chosen_by_rule() {
        assert_eq!(choose(&[3, 7, 7, 5], ChooseEpoch::BestOnHeldOut), 2);
        assert_eq!(choose(&[3, 7, 7, 5], ChooseEpoch::Last), 4);
        assert_eq!(choose(&[0], ChooseEpoch::BestOnHeldOut), 1);
    }

    /// The epoch is in the checkpoint's name, behind any prefix.
    #[test]
    fn epochs_are_read_from_names() {
        assert_eq!(epoch_in("run-1/star/epoch_12"), Some(12));
        assert_eq!(epoch_in("base"), None);
    }
}
