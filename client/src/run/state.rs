//! `state.json`: which stages are done, what each took, and the settings they were done with.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use data::append_log::Lock;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::{
    error::ClientError,
    files,
    report::results::{PeakMemory, StageTime},
};

const STATE_FILE: &str = "state.json";

/// The stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) enum Stage {
    ZeroShot,
    /// A turn of the STaR loop, from 1, and what is done in it.
    Turn(u32, TurnStage),
    VanillaSft,
    VanillaTest,
}

/// What is done in a turn of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TurnStage {
    Bootstrap,
    Sft,
    Test,
}

impl Stage {
    /// For people.
    pub(super) fn title(self) -> String {
        match self {
            Self::ZeroShot => "zero-shot".to_owned(),
            Self::Turn(iteration, TurnStage::Bootstrap) => {
                format!("bootstrap {iteration}")
            }
            Self::Turn(iteration, TurnStage::Sft) => format!("STaR SFT {iteration}"),
            Self::Turn(iteration, TurnStage::Test) => format!("test STaR SFT {iteration}"),
            Self::VanillaSft => "vanilla SFT".to_owned(),
            Self::VanillaTest => "test vanilla SFT".to_owned(),
        }
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::ZeroShot => "zero_shot".to_owned(),
            Stage::Turn(iteration, TurnStage::Bootstrap) => {
                format!("bootstrap_{iteration}")
            }
            Stage::Turn(iteration, TurnStage::Sft) => format!("star_sft_{iteration}"),
            Stage::Turn(iteration, TurnStage::Test) => format!("star_test_{iteration}"),
            Stage::VanillaSft => "vanilla_sft".to_owned(),
            Stage::VanillaTest => "vanilla_test".to_owned(),
        }
    }
}

impl TryFrom<String> for Stage {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let turn = |text: &str| {
            let (name, iteration) = text.rsplit_once('_')?;
            let stage = match name {
                "bootstrap" => TurnStage::Bootstrap,
                "star_sft" => TurnStage::Sft,
                "star_test" => TurnStage::Test,
                _ => return None,
            };
            Some(Self::Turn(iteration.parse().ok()?, stage))
        };
        match text.as_str() {
            "zero_shot" => Ok(Self::ZeroShot),
            "vanilla_sft" => Ok(Self::VanillaSft),
            "vanilla_test" => Ok(Self::VanillaTest),
            other => turn(other).ok_or_else(|| format!("unknown stage {other:?}")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    settings: Settings,
    train_sha256: String,
    test_sha256: String,
    /// Of the untouched model, once it was served.
    base_digest: Option<String>,
    finished: Vec<Stage>,
    /// Over all invocations.
    seconds: BTreeMap<Stage, f64>,
    memory: PeakMemory,
}

/// The state on disk and in memory; every change is written before the call returns.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    record: Record,
    /// Two experiments in one folder would swap weights and write stages under each other's feet.
    _lock: Lock,
}

impl State {
    /// Reads the state of a folder or starts one. Other settings or inputs than before are refused,
    /// and so is a second experiment in the folder while one runs.
    pub(super) fn open(
        folder: &Path,
        settings: &Settings,
        (train_sha256, test_sha256): (&str, &str),
    ) -> Result<Self, ClientError> {
        let path = folder.join(STATE_FILE);
        let lock = Lock::take(&path)?;
        let fresh = Record {
            settings: settings.clone(),
            train_sha256: train_sha256.to_owned(),
            test_sha256: test_sha256.to_owned(),
            base_digest: None,
            finished: Vec::new(),
            seconds: BTreeMap::new(),
            memory: PeakMemory::default(),
        };
        let Some(record) = files::read_json::<Record>(&path)? else {
            let state = Self {
                path,
                record: fresh,
                _lock: lock,
            };
            state.write()?;
            return Ok(state);
        };
        if let Some((field, expected, found)) = first_difference(&record, &fresh) {
            return Err(ClientError::OtherSettings {
                path: folder.to_owned(),
                field,
                expected,
                found,
            });
        }
        Ok(Self {
            path,
            record,
            _lock: lock,
        })
    }

    pub(super) fn is_finished(&self, stage: Stage) -> bool {
        self.record.finished.contains(&stage)
    }

    /// Adds a stage's time; `done` also marks it finished.
    pub(super) fn add_time(&mut self, stage: Stage, time: Duration) -> Result<(), ClientError> {
        *self.record.seconds.entry(stage).or_default() += time.as_secs_f64();
        self.write()
    }

    pub(super) fn finish(&mut self, stage: Stage) -> Result<(), ClientError> {
        if !self.is_finished(stage) {
            self.record.finished.push(stage);
        }
        self.write()
    }

    pub(super) fn base_digest(&self) -> Option<&str> {
        self.record.base_digest.as_deref()
    }

    /// Remembers the untouched model; another one than before is refused.
    pub(super) fn set_base_digest(&mut self, digest: &str) -> Result<(), ClientError> {
        match &self.record.base_digest {
            Some(earlier) if earlier != digest => Err(ClientError::OtherSettings {
                path: self.path.clone(),
                field: "base model".to_owned(),
                expected: earlier.clone(),
                found: digest.to_owned(),
            }),
            Some(_) => Ok(()),
            None => {
                self.record.base_digest = Some(digest.to_owned());
                self.write()
            }
        }
    }

    /// Keeps the higher marks.
    pub(super) fn add_memory(&mut self, memory: PeakMemory) -> Result<(), ClientError> {
        let known = &mut self.record.memory;
        known.client_bytes = known.client_bytes.max(memory.client_bytes);
        known.trainer_bytes = known.trainer_bytes.max(memory.trainer_bytes);
        self.write()
    }

    pub(super) fn memory(&self) -> PeakMemory {
        self.record.memory
    }

    pub(super) fn times(&self) -> Vec<StageTime> {
        let time = |(stage, seconds): (&Stage, &f64)| StageTime {
            stage: stage.title(),
            seconds: *seconds,
        };
        self.record.seconds.iter().map(time).collect()
    }

    fn write(&self) -> Result<(), ClientError> {
        files::write_json(&self.path, &self.record)
    }
}

/// The first setting or input that is not as it was.
fn first_difference(earlier: &Record, now: &Record) -> Option<(String, String, String)> {
    let inputs = [
        ("training file", &earlier.train_sha256, &now.train_sha256),
        ("test file", &earlier.test_sha256, &now.test_sha256),
    ];
    for (field, earlier, now) in inputs {
        if earlier != now {
            return Some((field.to_owned(), earlier.clone(), now.clone()));
        }
    }
    // By name: a setting that stands at its default may be left out of one side.
    let (earlier, now) = (by_name(&earlier.settings), by_name(&now.settings));
    let fields = earlier.keys().chain(now.keys());
    fields.into_iter().find_map(|field| {
        let value = |side: &BTreeMap<String, String>| {
            side.get(field)
                .map_or_else(|| "the default".to_owned(), Clone::clone)
        };
        let (earlier, now) = (value(&earlier), value(&now));
        (earlier != now).then(|| (field.clone(), earlier, now))
    })
}

fn by_name(settings: &Settings) -> BTreeMap<String, String> {
    let split = |line: String| {
        line.split_once(" = ")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    settings.lines().into_iter().filter_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finished stages and times survive; times add up over invocations.
    #[test]
    fn the_state_survives() {
        let dir = tempfile::tempdir().unwrap();
        let open = || State::open(dir.path(), &Settings::demo(), ("a", "b"));
        let mut state = open().unwrap();
        state
            .add_time(Stage::ZeroShot, Duration::from_secs(2))
            .unwrap();
        state.finish(Stage::ZeroShot).unwrap();
        drop(state);
        let mut state = open().unwrap();
        assert!(
            state.is_finished(Stage::ZeroShot)
                && !state.is_finished(Stage::Turn(1, TurnStage::Bootstrap))
        );
        state
            .add_time(Stage::ZeroShot, Duration::from_secs(1))
            .unwrap();
        assert!((state.times()[0].seconds - 3.0).abs() < 1e-9);
    }

    /// Names of stages are read back; another name is an error.
    #[test]
    fn stages_have_names() {
        let stages = [
            Stage::ZeroShot,
            Stage::Turn(12, TurnStage::Bootstrap),
            Stage::Turn(1, TurnStage::Sft),
            Stage::Turn(1, TurnStage::Test),
            Stage::VanillaSft,
            Stage::VanillaTest,
        ];
        for stage in stages {
            assert_eq!(Stage::try_from(String::from(stage)), Ok(stage));
        }
        assert!(Stage::try_from("bootstrap_x".to_owned()).is_err());
    }

    /// Another setting, file or model is refused and named.
    #[test]
    fn other_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::open(dir.path(), &Settings::demo(), ("a", "b")).unwrap();
        state.set_base_digest("d").unwrap();
        assert!(
            state
                .set_base_digest("e")
                .unwrap_err()
                .to_string()
                .contains("base model")
        );
        drop(state);
        let mut changed = Settings::demo();
        changed.star.iterations = 9;
        let error = State::open(dir.path(), &changed, ("a", "b"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("star.iterations") && error.contains('9'),
            "{error}"
        );
        let mut changed = Settings::demo();
        changed.keys.answer = Some("final".to_owned());
        let error = State::open(dir.path(), &changed, ("a", "b")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("keys.answer") && error.contains("the default"),
            "{error}"
        );
        let error = State::open(dir.path(), &Settings::demo(), ("a", "c")).unwrap_err();
        assert!(error.to_string().contains("test file"), "{error}");
    }

    /// One experiment at a time: the second is told who holds the folder.
    #[test]
    fn a_second_experiment_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = || State::open(dir.path(), &Settings::demo(), ("a", "b"));
        let first = open().unwrap();
        let error = open().unwrap_err().to_string();
        let holder = format!("process {}", std::process::id());
        assert!(
            error.contains("state.json") && error.contains(&holder),
            "{error}"
        );
        drop(first);
        open().unwrap();
    }
}
