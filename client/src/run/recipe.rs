//! What a fine-tuning learns, from which weights, and for how long.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use data::{
    append_log::read_log,
    record::{AcceptedRecord, Attempt},
    select::select,
};

use super::{
    fine_tune,
    kind::{Kind, bootstrap_folder},
    settings::{LoopSettings, Rationales, Restart, TuningSettings},
    stages::Lab,
};
use crate::{
    bootstrap::ACCEPTED_FILE, collect::ATTEMPTS_FILE, error::ClientError, eval::read_attempts,
    files,
};

/// A fine-tuning before it is begun. The same at every call: all of it follows from settings and
/// from files that no longer change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Folder of the weights that it starts from.
    pub(super) model: PathBuf,
    pub(super) train_file: PathBuf,
    /// The trainer's name for the file's lines.
    pub(super) line_format: &'static str,
    pub(super) epochs: u32,
}

/// The recipes that this process gathered: logs of many turns need not be read again for each
/// question about one.
#[derive(Debug, Default)]
pub(super) struct Recipes(Mutex<HashMap<Kind, Recipe>>);

impl Recipes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Recipe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recipe {
    pub(super) fn of(lab: &Lab, kind: Kind) -> Result<Self, ClientError> {
        let known = lab.recipes.lock().get(&kind).cloned();
        if let Some(recipe) = known {
            return Ok(recipe);
        }
        let recipe = Self::gather(lab, kind)?;
        lab.recipes.lock().insert(kind, recipe.clone());
        Ok(recipe)
    }

    /// Reads what a fine-tuning needs and writes its training file.
    fn gather(lab: &Lab, kind: Kind) -> Result<Self, ClientError> {
        let Kind::Star { iteration } = kind else {
            return Ok(Self {
                model: lab.base(),
                train_file: lab.inputs.solutions_path(),
                line_format: "gsm8k",
                epochs: lab.settings.tuning.epochs,
            });
        };
        let settings = &lab.settings;
        let mut rationales = rationales(lab, iteration)?;
        let amount = Amount::of(
            &settings.star,
            &settings.tuning,
            iteration,
            rationales.len(),
        );
        keep_some(&mut rationales, amount.examples, u64::from(iteration));
        let train_file = lab
            .path("data")
            .join(format!("star_iteration_{iteration}.jsonl"));
        files::write_if_other(&train_file, &files::to_jsonl(&rationales, &train_file)?)?;
        let model = match (settings.star.restart, iteration) {
            (Restart::Previous, 2..) => {
                let previous = Kind::Star {
                    iteration: iteration - 1,
                };
                let epoch = fine_tune::chosen_epoch(lab, previous)?;
                lab.checkpoints.path(&previous.checkpoint(epoch))
            }
            _ => lab.base(),
        };
        Ok(Self {
            model,
            train_file,
            line_format: "star",
            epochs: amount.epochs,
        })
    }
}

/// The accepted rationales of an iteration, or of all up to it.
fn rationales(lab: &Lab, iteration: u32) -> Result<Vec<AcceptedRecord>, ClientError> {
    let folder = |iteration| lab.path(&bootstrap_folder(iteration));
    match lab.settings.star.rationales {
        Rationales::ThisIteration => Ok(read_log(&folder(iteration).join(ACCEPTED_FILE))?.records),
        Rationales::AllIterations => {
            let mut attempts: Vec<Attempt> = Vec::new();
            for iteration in 1..=iteration {
                attempts.extend(read_attempts(&folder(iteration).join(ATTEMPTS_FILE))?);
            }
            Ok(select(&lab.inputs.fit.list, &attempts, &lab.settings.policy).accepted)
        }
    }
}

/// How much is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount {
    examples: usize,
    epochs: u32,
}

impl Amount {
    /// Whole epochs that grow from iteration to iteration; or, where steps are given, as many
    /// examples as those steps take, over as few epochs as hold them.
    fn of(
        star: &LoopSettings,
        tuning: &TuningSettings,
        iteration: u32,
        num_rationales: usize,
    ) -> Self {
        let growth = star.growth.powf(f64::from(iteration) - 1.0);
        let Some(first_steps) = star.first_steps else {
            return Self {
                examples: num_rationales,
                epochs: (f64::from(tuning.epochs) * growth).round().max(1.0) as u32,
            };
        };
        let steps = (first_steps as f64 * growth).round().max(1.0);
        // The trainer holds some examples back, and no step sees them.
        let wanted = steps * f64::from(tuning.batch_size) / (1.0 - tuning.validation_fraction);
        let epochs = (wanted / num_rationales.max(1) as f64).ceil().max(1.0);
        Self {
            examples: ((wanted / epochs).round() as usize).clamp(1, num_rationales.max(1)),
            epochs: epochs as u32,
        }
    }
}

/// Leaves `count` records, chosen by a hash of their questions' ids and a salt, in their order.
fn keep_some(records: &mut Vec<AcceptedRecord>, count: usize, salt: u64) {
    if count >= records.len() {
        return;
    }
    let place = |record: &AcceptedRecord| {
        let id = record.question_id.as_deref().unwrap_or(&record.question);
        files::sha256_hex(format!("{salt} {id} {}", record.rationale).as_bytes())
    };
    let mut places: Vec<String> = records.iter().map(place).collect();
    places.sort_unstable();
    let limit = places[count].clone();
    records.retain(|record| place(record) < limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Settings;

    fn amount(star: &LoopSettings, iteration: u32, num_rationales: usize) -> (usize, u32) {
        let tuning = TuningSettings {
            validation_fraction: 0.0,
            ..Settings::default_preset().tuning
        };
        let amount = Amount::of(star, &tuning, iteration, num_rationales);
        (amount.examples, amount.epochs)
    }

    /// Without steps all rationales are learned, and epochs grow in whole ones.
    #[test]
    fn epochs_grow() {
        let star = LoopSettings {
            growth: 1.2,
            ..Settings::default_preset().star
        };
        assert_eq!(amount(&star, 1, 100), (100, 4));
        // 4 * 1.2^3 = 6.9
        assert_eq!(amount(&star, 4, 100), (100, 7));
    }

    /// The paper's schedule: 40 steps of 8 in the first loop, 20 % more in each one after it.
    #[test]
    fn steps_grow_as_published() {
        let star = Settings::star().star;
        assert_eq!(amount(&star, 1, 5000), (320, 1));
        assert_eq!(amount(&star, 2, 5000), (384, 1));
        // 40 * 1.2^9 = 206.4 steps
        assert_eq!(amount(&star, 10, 5000), (1648, 1));
        // Too few rationales are seen several times: 320 examples as twice 160.
        assert_eq!(amount(&star, 1, 200), (160, 2));
        assert_eq!(amount(&star, 1, 1), (1, 320));
    }

    /// What is held back for validation comes on top.
    #[test]
    fn held_back_examples_come_on_top() {
        let star = Settings::star().star;
        let tuning = TuningSettings {
            validation_fraction: 0.2,
            ..Settings::star().tuning
        };
        assert_eq!(Amount::of(&star, &tuning, 1, 5000).examples, 400);
    }

    /// The choice is one of the records, not of their order, and differs between iterations.
    #[test]
    fn some_are_kept_by_hash() {
        let records: Vec<AcceptedRecord> = (0..50)
            .map(|index| {
                let line = serde_json::json!({
                    "question": format!("q{index}"), "gold_answer": "1", "rationale": "r",
                });
                serde_json::from_value(line).unwrap()
            })
            .collect();
        let kept = |mut records: Vec<AcceptedRecord>, salt| {
            keep_some(&mut records, 20, salt);
            let mut questions: Vec<String> = records.into_iter().map(|it| it.question).collect();
            questions.sort();
            questions
        };
        let first = kept(records.clone(), 1);
        let reversed: Vec<AcceptedRecord> = records.iter().rev().cloned().collect();
        assert_eq!(first.len(), 20);
        assert_eq!(kept(reversed, 1), first);
        assert_ne!(kept(records, 2), first);
    }
}
