//! From the files of the stages to `results.json`.

use std::time::SystemTime;

use data::record::Attempt;

use super::{
    fine_tune,
    kind::{Kind, bootstrap_folder},
    losses,
    recipe::Recipe,
    stages::Lab,
    turns::Turns,
};
use crate::{
    clock,
    collect::ATTEMPTS_FILE,
    compare::Comparison,
    error::ClientError,
    eval::{EvalSummary, read_attempts},
    files,
    manifest::SOFTWARE,
    report::{
        analysis::{Analysis, Evaluated, analyse},
        results::{Inputs, RESULTS_VERSION, Results, Variant},
    },
};

/// Reads what the stages left and puts it together.
pub(super) fn assemble(
    lab: &Lab,
    zero_shot: EvalSummary,
    turns: Turns,
) -> Result<Results, ClientError> {
    let inputs = &lab.inputs;
    let star = Kind::Star {
        iteration: turns.chosen,
    };
    let tests = Tests::read(lab, star)?;
    let bootstrap_attempts = attempts(lab, &bootstrap_folder(turns.chosen))?;
    Ok(Results {
        version: RESULTS_VERSION,
        software: SOFTWARE.to_owned(),
        finished_at: clock::rfc3339(clock::unix_seconds(SystemTime::now())),
        settings: lab.settings.to_json(),
        inputs: Inputs {
            model: lab.model.display().to_string(),
            train: inputs.fit.path.clone(),
            train_sha256: inputs.train_sha256.clone(),
            test: inputs.test.path.clone(),
            test_sha256: inputs.test_sha256.clone(),
            num_fit: inputs.fit.list.len() as u64,
            num_held_out: inputs.held_out.list.len() as u64,
            num_test: inputs.test.list.len() as u64,
        },
        base_on_held_out: lab.summary("held_out/base")?,
        star: variant(lab, star)?,
        vanilla: variant(lab, Kind::Vanilla)?,
        comparisons: tests.comparisons()?,
        analysis: Some(tests.analysis(lab, &bootstrap_attempts)),
        stages: lab.state.times(),
        memory: lab.state.memory(),
        bootstrap: turns.chosen_turn()?.bootstrap.clone(),
        iterations: turns.list,
        zero_shot,
    })
}

fn variant(lab: &Lab, kind: Kind) -> Result<Variant, ClientError> {
    let train_file = Recipe::of(lab, kind)?.train_file;
    let chosen_epoch = fine_tune::chosen_epoch(lab, kind)?;
    let facts = fine_tune::facts(lab, kind)?;
    Ok(Variant {
        name: kind.title().to_owned(),
        train_sha256: files::sha256_of_file(&train_file)?,
        train_file: train_file.display().to_string(),
        num_train_examples: facts.num_train_examples,
        num_validation_examples: facts.num_validation_examples,
        losses: losses::read(&lab.checkpoints.path(&kind.folder()))?,
        held_out: fine_tune::held_out(lab, kind)?,
        chosen_epoch,
        checkpoint: lab
            .checkpoints
            .name_at_server(&kind.checkpoint(chosen_epoch)),
        test: lab.summary(&kind.test_folder())?,
    })
}

/// The attempts on the test questions.
struct Tests {
    star_title: &'static str,
    zero_shot: Vec<Attempt>,
    star: Vec<Attempt>,
    vanilla: Vec<Attempt>,
}

impl Tests {
    fn read(lab: &Lab, star: Kind) -> Result<Self, ClientError> {
        Ok(Self {
            star_title: star.title(),
            zero_shot: attempts(lab, "zero_shot")?,
            star: attempts(lab, &star.test_folder())?,
            vanilla: attempts(lab, &Kind::Vanilla.test_folder())?,
        })
    }

    /// STaR against zero-shot first: that is the question the experiment asks.
    fn comparisons(&self) -> Result<Vec<Comparison>, ClientError> {
        let base = ("zero-shot", self.zero_shot.as_slice());
        let star = (self.star_title, self.star.as_slice());
        let vanilla = (Kind::Vanilla.title(), self.vanilla.as_slice());
        [(base, star), (base, vanilla), (vanilla, star)]
            .into_iter()
            .map(|(first, second)| Comparison::of(first, second))
            .collect()
    }

    fn analysis(&self, lab: &Lab, bootstrap: &[Attempt]) -> Analysis {
        let model = |name, attempts| Evaluated { name, attempts };
        let models = [
            model("zero-shot", self.zero_shot.as_slice()),
            model(Kind::Vanilla.title(), &self.vanilla),
            model(self.star_title, &self.star),
        ];
        analyse(&lab.inputs.test.list, &models, bootstrap)
    }
}

fn attempts(lab: &Lab, folder: &str) -> Result<Vec<Attempt>, ClientError> {
    read_attempts(&lab.path(folder).join(ATTEMPTS_FILE))
}
