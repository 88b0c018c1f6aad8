//! The question files of an experiment and their split. Held-out questions leave the training set
//! before anything is generated from it.

use std::path::{Path, PathBuf};

use data::{annotation, question::Question, split::Holdout};

use super::settings::{Settings, Solutions};
use crate::{dataset::Keys, error::ClientError, files, session::Questions};

/// Keeps this split apart from the trainer's own one, which takes the plain seed: with the same one
/// the trainer would find all its validation questions gone.
const HELD_OUT_SALT: u64 = 0x5eed_0f0a_1d0a_7e57;

const FIT_FILE: &str = "fit.jsonl";
const HELD_OUT_FILE: &str = "held_out.jsonl";
const SOLUTIONS_FILE: &str = "solutions.jsonl";

/// The questions of an experiment.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Of the whole files.
    pub(super) train_sha256: String,
    pub(super) test_sha256: String,
    /// What is bootstrapped and trained on.
    pub(super) fit: Questions,
    /// The same questions as vanilla SFT learns them.
    solutions: Vec<Question>,
    pub(super) held_out: Questions,
    pub(super) test: Questions,
    /// Where [`Inputs::write`] puts the two sides.
    folder: PathBuf,
}

impl Inputs {
    /// Reads both files and splits the training questions. Writes nothing: whether this is the
    /// experiment that lies in `out` is still to be found out.
    pub(super) fn read(
        (train, test): (&Path, &Path),
        out: &Path,
        settings: &Settings,
    ) -> Result<Self, ClientError> {
        let train = Questions::read_keys(train, &settings.keys, settings.num_train)?;
        let test = Questions::read_keys(test, &settings.keys, settings.num_test)?;
        refuse_overlap(&train, &test)?;
        let holdout = Holdout::new(settings.held_out_fraction, settings.seed ^ HELD_OUT_SALT)
            .map_err(|error| ClientError::Usage(error.to_string()))?;
        let (mut held_out, fit): (Vec<Question>, Vec<Question>) = train
            .list
            .iter()
            .cloned()
            .partition(|it| holdout.holds_out(&it.question));
        held_out.truncate(settings.max_held_out);
        if fit.is_empty() || held_out.is_empty() {
            return Err(ClientError::Usage(format!(
                "{} training questions split into {} to train on and {} held-out ones, and both \
                 must be there: give more questions, or another --held-out-fraction or \
                 --max-held-out",
                train.list.len(),
                fit.len(),
                held_out.len()
            )));
        }
        let folder = out.join("data");
        Ok(Self {
            train_sha256: train.sha256,
            test_sha256: test.sha256.clone(),
            solutions: solutions(&fit, settings.tuning.solutions),
            fit: as_written(&folder.join(FIT_FILE), fit),
            held_out: as_written(&folder.join(HELD_OUT_FILE), held_out),
            test,
            folder,
        })
    }

    /// Writes the two sides of the split; the same questions leave the files untouched.
    pub(super) fn write(&self) -> Result<(), ClientError> {
        files::create_folder(&self.folder)?;
        let write = |name: &str, questions: &[Question]| {
            files::write_if_other(&self.folder.join(name), text(questions).as_bytes())
        };
        write(FIT_FILE, &self.fit.list)?;
        write(HELD_OUT_FILE, &self.held_out.list)?;
        write(SOLUTIONS_FILE, &self.solutions)
    }

    /// Something the user should know before vanilla SFT learns it.
    pub(super) fn warning(&self) -> Option<String> {
        let is_bare = |question: &&Question| !question.answer.contains("####");
        let num_bare = self.solutions.iter().filter(is_bare).count();
        (num_bare > 0).then(|| {
            format!(
                "{num_bare} of {} training questions have an answer and no solution: there vanilla \
                 SFT learns to answer with the bare number",
                self.solutions.len()
            )
        })
    }

    pub(super) fn solutions_path(&self) -> PathBuf {
        self.folder.join(SOLUTIONS_FILE)
    }
}

/// A test question that was trained on would make every number worthless.
fn refuse_overlap(train: &Questions, test: &Questions) -> Result<(), ClientError> {
    let known: std::collections::HashSet<&str> = train
        .list
        .iter()
        .map(|question| question.question.as_str())
        .collect();
    match test
        .list
        .iter()
        .find(|question| known.contains(question.question.as_str()))
    {
        None => Ok(()),
        Some(question) => Err(ClientError::Usage(format!(
            "question {} is in {} and in {}: a test question must not be trained on",
            question.id, train.path, test.path
        ))),
    }
}

/// The questions as vanilla SFT learns them.
fn solutions(questions: &[Question], how: Solutions) -> Vec<Question> {
    let answer = |answer: &str| match how {
        Solutions::AsWritten => answer.to_owned(),
        Solutions::WithoutAnnotations => annotation::strip(answer),
    };
    let each = |question: &Question| Question {
        answer: answer(&question.answer),
        ..question.clone()
    };
    questions.iter().map(each).collect()
}

/// A set as it is read back from the file that [`Inputs::write`] makes of it.
fn as_written(path: &Path, list: Vec<Question>) -> Questions {
    Questions {
        path: path.display().to_string(),
        sha256: files::sha256_hex(text(&list).as_bytes()),
        keys: Keys::default(),
        list,
    }
}

/// The lines of a question file; with the ids, so that both sides of the split keep them.
fn text(questions: &[Question]) -> String {
    let line = |question: &Question| {
        let line = serde_json::json!({
            "id": question.id,
            "question": question.question,
            "answer": question.answer,
        });
        format!("{line}\n")
    };
    questions.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, range: std::ops::Range<u32>) -> PathBuf {
        let lines = range.map(|i| {
            let answer = format!("#### {i}");
            serde_json::json!({"question": format!("What is {i}?"), "answer": answer}).to_string()
        });
        let path = dir.join(name);
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        path
    }

    /// Every training question is on exactly one side, the same one each time.
    #[test]
    fn the_split_is_whole_and_stable() {
        let dir = tempfile::tempdir().unwrap();
        let train = file(dir.path(), "train.jsonl", 0..200);
        let test = file(dir.path(), "test.jsonl", 1000..1010);
        let settings = Settings {
            num_train: None,
            ..Settings::demo()
        };
        let read = || Inputs::read((&train, &test), dir.path(), &settings).unwrap();
        let (first, second) = (read(), read());
        assert_eq!(first.warning(), None);
        first.write().unwrap();
        assert_eq!(first.fit.list, second.fit.list);
        assert_eq!(first.fit.list.len() + first.held_out.list.len(), 200);
        let path = dir.path().join("data/fit.jsonl");
        let read = data::question::read_questions(&path).unwrap();
        assert_eq!(read.questions, first.fit.list);
        assert_eq!(read.sha256, first.fit.sha256);
    }

    /// A question in both files stops the run before it starts.
    #[test]
    fn overlap_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let train = file(dir.path(), "train.jsonl", 0..200);
        let test = file(dir.path(), "test.jsonl", 199..210);
        let error =
            Inputs::read((&train, &test), dir.path(), &Settings::default_preset()).unwrap_err();
        assert!(
            error.to_string().contains("must not be trained on"),
            "{error}"
        );
    }

    /// A split with an empty side is refused, and the sentence names the flags that made it.
    #[test]
    fn an_empty_side_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let train = file(dir.path(), "train.jsonl", 0..200);
        let test = file(dir.path(), "test.jsonl", 1000..1010);
        let settings = Settings {
            max_held_out: 0,
            ..Settings::default_preset()
        };
        let error = Inputs::read((&train, &test), dir.path(), &settings).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("0 held-out") && error.contains("--max-held-out"),
            "{error}"
        );
    }

    /// A file of bare answers is no file of solutions, and that is said.
    #[test]
    fn bare_answers_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let train = file(dir.path(), "train.jsonl", 0..200);
        let text = std::fs::read_to_string(&train).unwrap();
        std::fs::write(&train, text.replace("#### ", "")).unwrap();
        let test = file(dir.path(), "test.jsonl", 1000..1010);
        let settings = Settings::default_preset();
        let inputs = Inputs::read((&train, &test), dir.path(), &settings);
        let warning = inputs.unwrap().warning().unwrap();
        assert!(warning.contains("bare number"), "{warning}");
    }
}
