//! The STaR loop: bootstrap with the newest weights, fine-tune on what was accepted, judge on the
//! held-out questions; until they get no better (Zelikman et al. 2022, algorithm 1).

use std::time::Instant;

use data::prompt::PromptFormat;

use super::{
    fine_tune,
    kind::{Kind, bootstrap_folder},
    settings::TestWhen,
    stages::Lab,
    state::{Stage, TurnStage},
};
use crate::{
    bootstrap::{BootstrapSummary, bootstrap},
    error::ClientError,
    eval::SUMMARY_FILE,
    files,
    report::results::Iteration,
};

/// The turns that were made, and the one that the held-out questions chose.
#[derive(Debug)]
pub(super) struct Turns {
    /// In order; at least one.
    pub(super) list: Vec<Iteration>,
    /// Its `iteration`.
    pub(super) chosen: u32,
}

impl Turns {
    pub(super) fn chosen_turn(&self) -> Result<&Iteration, ClientError> {
        let chosen = |turn: &&Iteration| turn.iteration == self.chosen;
        let none = || ClientError::Usage("--iterations: expected at least 1, found 0".to_owned());
        self.list.iter().find(chosen).ok_or_else(none)
    }
}

impl Lab {
    /// Turns until the held-out questions get no better, or until there are as many as were wanted.
    pub(super) async fn star_loop(&mut self, format: PromptFormat) -> Result<Turns, ClientError> {
        let base = self.summary("held_out/base")?.counts.right;
        let mut right = vec![base];
        let mut list = Vec::new();
        for iteration in 1..=self.settings.star.iterations {
            let bootstrap = self.bootstrap(iteration).await?;
            if bootstrap.num_accepted == 0 {
                nothing_accepted(iteration)?;
                let line = format!("iteration {iteration} accepted no rationale: the loop ends");
                self.context.progress.say(&line);
                break;
            }
            let kind = Kind::Star { iteration };
            self.fine_tune(kind, format).await?;
            if self.settings.star.test_when == TestWhen::EachIteration {
                self.test(kind).await?;
            }
            let turn = self.turn(iteration, bootstrap)?;
            self.remove_unchosen_epochs(kind, turn.chosen_epoch)?;
            right.push(turn.held_out.counts.right);
            list.push(turn);
            if is_saturated(&right, self.settings.star.patience)
                && iteration < self.settings.star.iterations
            {
                let line = format!(
                    "the loop ends after iteration {iteration}: {} in a row without more right \
                     held-out answers",
                    self.settings.star.patience
                );
                self.context.progress.say(&line);
                break;
            }
        }
        let chosen = chosen(&right);
        Ok(Turns { list, chosen })
    }

    async fn bootstrap(&mut self, iteration: u32) -> Result<BootstrapSummary, ClientError> {
        let folder = self.out.join(bootstrap_folder(iteration));
        let stage = Stage::Turn(iteration, TurnStage::Bootstrap);
        if self.state.is_finished(stage) {
            return files::require_json(&folder.join(SUMMARY_FILE));
        }
        let started = Instant::now();
        let done = async {
            let context = self.context_for(&self.load_generator(iteration).await?);
            let method = self.settings.bootstrap_method(iteration)?;
            let policy = self.settings.policy.clone();
            let questions = &self.inputs.fit;
            let summary = bootstrap(&context, method, policy, questions, &folder).await?;
            self.context.progress.say(&summary.equation());
            for warning in summary.warnings() {
                self.context.progress.say(&format!("WARNING: {warning}"));
            }
            Ok(summary)
        }
        .await;
        self.end(stage, started, done)
    }

    /// Makes the server hold what answers in this turn: the last turn's weights. Gives their digest.
    async fn load_generator(&self, iteration: u32) -> Result<String, ClientError> {
        if iteration == 1 {
            return self.load_base().await;
        }
        let last = Kind::Star {
            iteration: iteration - 1,
        };
        let epoch = fine_tune::chosen_epoch(self, last)?;
        self.load(&last.checkpoint(epoch)).await
    }

    /// What a finished turn left.
    fn turn(&self, iteration: u32, bootstrap: BootstrapSummary) -> Result<Iteration, ClientError> {
        let kind = Kind::Star { iteration };
        let chosen_epoch = fine_tune::chosen_epoch(self, kind)?;
        // The setting decides, not what is there: the last test of an earlier call is no part of it.
        let is_tested = self.settings.star.test_when == TestWhen::EachIteration;
        let test = is_tested.then(|| self.summary(&kind.test_folder()));
        Ok(Iteration {
            iteration,
            bootstrap,
            num_train_examples: fine_tune::facts(self, kind)?.num_train_examples,
            chosen_epoch,
            held_out: self.summary(&kind.held_out_folder(chosen_epoch))?,
            test: test.transpose()?,
        })
    }

    /// A loop of many turns would fill any disk with epochs that nothing asks for any more.
    fn remove_unchosen_epochs(&self, kind: Kind, chosen: u32) -> Result<(), ClientError> {
        if self.settings.star.iterations == 1 {
            return Ok(());
        }
        let epochs = fine_tune::held_out(self, kind)?;
        for epoch in epochs.iter().map(|it| it.epoch).filter(|it| *it != chosen) {
            self.checkpoints.remove(&kind.checkpoint(epoch))?;
        }
        Ok(())
    }
}

/// Without a first set there is nothing to train on; a later turn only ends the loop.
fn nothing_accepted(iteration: u32) -> Result<(), ClientError> {
    if iteration > 1 {
        return Ok(());
    }
    Err(ClientError::Usage(
        "bootstrapping accepted no rationale: the model solves none of the questions, even with a \
         hint. See attempts.jsonl for what it writes; another prompt or a larger --max-tokens may \
         help"
            .to_owned(),
    ))
}

/// Right held-out answers of the untouched model and after each iteration: whether the last
/// `patience` of them are all no better than the best before them. A patience of 0 never ends.
fn is_saturated(right: &[u64], patience: u32) -> bool {
    let patience = patience as usize;
    if patience == 0 || right.len() <= patience {
        return false;
    }
    let (before, last) = right.split_at(right.len() - patience);
    before.iter().max() >= last.iter().max()
}

/// The iteration with the most right held-out answers, of equals the earlier; `right` begins with
/// the untouched model, which is none.
fn chosen(right: &[u64]) -> u32 {
    let best = right.iter().skip(1).max();
    let place = right.iter().skip(1).position(|count| Some(count) == best);
    place.map_or(1, |place| place as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loop goes on as long as one of the last few is better than all before.
    #[test]
    fn the_loop_ends_at_saturation() {
        assert!(!is_saturated(&[10], 1));
        assert!(!is_saturated(&[10, 11], 1));
        assert!(is_saturated(&[10, 10], 1));
        assert!(!is_saturated(&[10, 9], 2));
        assert!(is_saturated(&[10, 9, 10], 2));
        assert!(!is_saturated(&[10, 9, 11], 2));
        assert!(is_saturated(&[10, 14, 11, 14], 2));
        assert!(!is_saturated(&[10, 9, 8, 7], 0));
    }

    /// The best on the held-out questions, the earlier of equals; never the untouched model.
    #[test]
    fn the_iteration_is_chosen() {
        assert_eq!(chosen(&[10, 12, 15, 15]), 2);
        assert_eq!(chosen(&[10, 3]), 1);
        assert_eq!(chosen(&[10, 3, 2]), 1);
    }
}
