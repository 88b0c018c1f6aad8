//! One fine-tuning: the trainer runs as a child and has the server load each epoch's checkpoint;
//! meanwhile each epoch is evaluated on the held-out questions.
//!
//! A slow evaluation may be overtaken by the next epoch's swap. Every answer names its weights, so
//! that is noticed; what is missing at the end is evaluated after the trainer, by loading the epoch
//! again.

use std::{ffi::OsString, path::PathBuf};

use data::prompt::PromptFormat;
use futures::{FutureExt, future::BoxFuture};
use gen_server::Device;
use trainer::{progress::Event, schedule::ScheduleKind};

use super::{
    kind::Kind,
    memory,
    recipe::Recipe,
    settings::{ChooseEpoch, Settings},
    stages::{Lab, log_path},
    trainer_process::TrainerProcess,
};
use crate::{
    error::ClientError,
    eval::{EvalSummary, SUMMARY_FILE},
    files::{self, create_folder},
    progress::Progress,
    report::results::EpochAccuracy,
};

/// Trains all epochs and evaluates each; gives the trainer's peak memory in bytes.
pub(super) async fn run(lab: &Lab, kind: Kind, format: PromptFormat) -> Result<u64, ClientError> {
    lab.context.interrupt.check()?;
    create_folder(&lab.checkpoints.path(""))?;
    let recipe = Recipe::of(lab, kind)?;
    let trainer = TrainerProcess::start(
        &arguments(lab, kind, &recipe, format),
        &log_path(&lab.out, &kind.file_name()),
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
    for epoch in 1..=recipe.epochs {
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
    lab.path(&format!("trainer_{}.json", kind.file_name()))
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
                        &self.kind.label(),
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
                let line = format!("{} goes on after epoch {epoch}", self.kind.label());
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
    let label = format!("held-out, {} epoch {epoch}", kind.label());
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
    (1..=Recipe::of(lab, kind)?.epochs)
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
    Ok(choose(&right, lab.settings.tuning.choose_epoch))
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

fn arguments(lab: &Lab, kind: Kind, recipe: &Recipe, format: PromptFormat) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["sft".into()];
    let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    add("--model", recipe.model.clone().into());
    add("--train", recipe.train_file.clone().into());
    add("--format", recipe.line_format.into());
    add("--out", lab.checkpoints.path(&kind.folder()).into());
    add("--epochs", recipe.epochs.to_string().into());
    add("--prompt-format", format.as_str().into());
    add("--server", lab.context.server.url().into());
    add(
        "--server-checkpoint-prefix",
        lab.checkpoints.name_at_server(&kind.folder()).into(),
    );
    // A 3B checkpoint is read, hashed and waits for long answers under way before it goes live.
    add("--server-time-limit-s", "1800".into());
    if let Some(token_file) = &lab.token_file {
        add("--server-token-file", token_file.into());
    }
    if let Some(threads) = lab.hardware.threads {
        add("--threads", threads.to_string().into());
    }
    if lab.hardware.device == Device::Cuda {
        add("--device", "cuda".into());
    }
    args.extend(settings_arguments(&lab.settings));
    args
}

fn settings_arguments(settings: &Settings) -> Vec<OsString> {
    let tuning = &settings.tuning;
    let fixed = [
        ("--lr", tuning.lr.to_string()),
        ("--schedule", schedule_name(tuning.lr_schedule)),
        ("--warmup-steps", tuning.warmup_steps.to_string()),
        ("--batch-size", tuning.batch_size.to_string()),
        ("--max-length", tuning.max_length.to_string()),
        (
            "--validation-fraction",
            tuning.validation_fraction.to_string(),
        ),
        ("--prompt", settings.training_prompt.clone()),
        ("--seed", settings.seed.to_string()),
    ];
    let fixed = fixed
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value]);
    let more = tuning.trainer_args.iter().cloned();
    fixed.chain(more).map(OsString::from).collect()
}

/// Whether the trainer understands its flags: to be known before hours of answers, not after them.
pub(super) fn check_trainer_args(settings: &Settings) -> Result<(), ClientError> {
    // The flags that `arguments` gives in any case, so that one given twice is found.
    const GIVEN: &str = "trainer sft --model m --train t --format star --out o --epochs 1 \
                         --prompt-format plain --server http://127.0.0.1:1 \
                         --server-checkpoint-prefix c --server-time-limit-s 1";
    let given = GIVEN.split_whitespace().map(OsString::from);
    trainer::cli::check_arguments(given.chain(settings_arguments(settings)))
        .map_err(|error| ClientError::Usage(format!("--trainer-args: {error}")))
}

/// The trainer's word for it.
fn schedule_name(schedule: ScheduleKind) -> String {
    let value = clap::ValueEnum::to_possible_value(&schedule);
    value.map_or_else(String::new, |value| value.get_name().to_owned())
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

    /// Flags that the trainer does not know, or that it has already, are refused by name.
    #[test]
    fn trainer_args_are_checked() {
        let checked = |text: &str| {
            let mut settings = Settings::star();
            settings.tuning.trainer_args = text.split_whitespace().map(str::to_owned).collect();
            check_trainer_args(&settings).map_err(|error| error.to_string())
        };
        assert_eq!(checked(""), Ok(()));
        assert_eq!(checked("--method lora --lora-rank 16"), Ok(()));
        for (wrong, flag) in [
            ("--nosuch 3", "--nosuch"),
            ("--lr 1", "--lr"),
            ("stray", "stray"),
        ] {
            let error = checked(wrong).unwrap_err();
            assert!(
                error.contains("--trainer-args") && error.contains(flag),
                "{error}"
            );
        }
    }
}
