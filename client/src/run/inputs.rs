//! The question files of an experiment and their split. Held-out questions leave the training set
//! before anything is generated from it.

use std::path::{Path, PathBuf};

use data::{annotation, question::Question, split::Holdout};

use super::settings::{Settings, Solutions};
use crate::{error::ClientError, files, session::Questions};

/// Keeps this split apart from the trainer's own one, which takes the plain seed: with the same one
/// the trainer would find all its validation questions gone.
const HELD_OUT_SALT: u64 = 0x5eed_0f0a_1d0a_7e57;

/// The questions of an experiment.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Of the whole files.
    pub(super) train_sha256: String,
    pub(super) test_sha256: String,
    /// What is bootstrapped and trained on.
    pub(super) fit: Questions,
    /// The same questions with the solutions that vanilla SFT learns.
    pub(super) solutions_path: PathBuf,
    pub(super) held_out: Questions,
    pub(super) test: Questions,
}

impl Inputs {
    /// Reads both files, splits the training questions and writes the two sides to `out/data`.
    pub(super) fn prepare(
        (train, test): (&Path, &Path),
        out: &Path,
        settings: &Settings,
    ) -> Result<Self, ClientError> {
        let train = Questions::read(train, settings.num_train)?;
        let test = Questions::read(test, settings.num_test)?;
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
                "{} training questions do not split into a part to train on and a held-out part; \
                 give more",
                train.list.len()
            )));
        }
        let folder = out.join("data");
        files::create_folder(&folder)?;
        let fit = write(&folder.join("fit.jsonl"), fit)?;
        let held_out = write(&folder.join("held_out.jsonl"), held_out)?;
        let solutions_path = folder.join("solutions.jsonl");
        write(
            &solutions_path,
            solutions(&fit.list, settings.tuning.solutions),
        )?;
        Ok(Self {
            train_sha256: train.sha256,
            test_sha256: test.sha256.clone(),
            fit,
            solutions_path,
            held_out,
            test,
        })
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

/// Writes questions with their ids, so that both sides keep them, and gives the set as read back.
fn write(path: &Path, questions: Vec<Question>) -> Result<Questions, ClientError> {
    let mut text = String::new();
    for question in &questions {
        let line = serde_json::json!({
            "id": question.id,
            "question": question.question,
            "answer": question.answer,
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    // The same questions give the same bytes: a resumed run does not touch the file.
    if std::fs::read(path).ok().as_deref() != Some(text.as_bytes()) {
        files::write_atomic(path, text.as_bytes())?;
    }
    let sha256 = files::sha256_hex(text.as_bytes());
    Ok(Questions {
        path: path.display().to_string(),
        sha256,
        list: questions,
    })
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
        let prepare = || Inputs::prepare((&train, &test), dir.path(), &settings).unwrap();
        let (first, second) = (prepare(), prepare());
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
            Inputs::prepare((&train, &test), dir.path(), &Settings::default_preset()).unwrap_err();
        assert!(
            error.to_string().contains("must not be trained on"),
            "{error}"
        );
    }
}
