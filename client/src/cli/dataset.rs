//! From a dataset argument, in every command, to its questions. The environment says where the
//! Hugging Face cache is.

use std::path::{Path, PathBuf};

use super::args::DatasetArgs;
use crate::{
    dataset::{self, Keys, hub, hub::HubEnvironment},
    error::ClientError,
    loss::{Annotations, Examples},
    session::Questions,
};

/// The questions of a file, or of a name in the cache; the first `limit` of them.
pub(super) fn questions(
    argument: &Path,
    args: &DatasetArgs,
    limit: Option<usize>,
) -> Result<Questions, ClientError> {
    Questions::read_keys(&locate(argument, args)?, &keys(args), limit)
}

/// What a loss is measured on: lines as the trainer reads them, or the solutions of a question file
/// of another layout.
pub(super) fn examples(
    argument: &Path,
    args: &DatasetArgs,
    limit: Option<usize>,
    annotations: Annotations,
) -> Result<Examples, ClientError> {
    let (file, keys) = (locate(argument, args)?, keys(args));
    if keys == Keys::default() && dataset::holds_lines(&file)? {
        return Examples::read(&file, limit, annotations);
    }
    Examples::of_questions(&Questions::read_keys(&file, &keys, limit)?, annotations)
}

pub(super) fn keys(args: &DatasetArgs) -> Keys {
    Keys {
        question: args.question_key.clone(),
        answer: args.answer_key.clone(),
    }
}

/// The file that an argument stands for.
#[cfg(not(feature = "hub"))]
pub(super) fn locate(argument: &Path, _args: &DatasetArgs) -> Result<PathBuf, ClientError> {
    hub::locate(argument, &environment())
}

/// As without the feature; with `--download` the cache is filled first where it has to be.
#[cfg(feature = "hub")]
pub(super) fn locate(argument: &Path, args: &DatasetArgs) -> Result<PathBuf, ClientError> {
    if !args.download {
        return hub::locate(argument, &environment());
    }
    let account = hub::download::HubAccount::read(|name| std::env::var_os(name));
    hub::download::locate_or_download(argument, &environment(), &account)
}

fn environment() -> HubEnvironment {
    HubEnvironment::read(|name| std::env::var_os(name))
}
