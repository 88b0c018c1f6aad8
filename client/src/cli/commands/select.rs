//! `star select`.

use data::{
    preference::PairPolicy,
    prompt::PromptFormat,
    pseudo_label::VotePolicy,
    select::{Gate, Policy},
};

use super::{
    super::{
        args::{PolicyPreset, PromptFormatArg, SelectArgs},
        dataset, policy,
    },
    print, print_json,
};
use crate::{
    error::ClientError,
    select::{Outputs, PairsWanted, make, refuse_overwriting},
    session::load_prompt,
};

pub(super) fn select(args: &SelectArgs) -> Result<(), ClientError> {
    let mut accept = match args.policy {
        PolicyPreset::Sound => Policy::sound(),
        PolicyPreset::Report => Policy::report(),
    };
    policy::override_by(&mut accept, &args.accept)?;
    let questions = dataset::questions(&args.dataset, &args.questions, None)?;
    let outputs = Outputs {
        pairs: pairs(args, &accept)?,
        labels: labels(args)?,
        accepted: args.out.clone(),
        policy: accept,
    };
    let file = dataset::locate(&args.dataset, &args.questions)?;
    refuse_overwriting(&args.logs, &file, &outputs)?;
    let made = make(&args.logs, &questions.list, &outputs)?;
    if args.json {
        print_json(&made)
    } else {
        print(&made.text())
    }
}

fn pairs(args: &SelectArgs, accept: &Policy) -> Result<Option<PairsWanted>, ClientError> {
    let args = &args.pairs;
    let Some(path) = args.pairs.clone() else {
        return Ok(None);
    };
    Ok(Some(PairsWanted {
        path,
        policy: PairPolicy {
            max_per_question: args.max_pairs,
            duplicates: accept.duplicates,
            fallback: accept.fallback,
            // The gate lets them in among the rejected ones.
            truncated: if args.reject_truncated {
                Gate::Accept
            } else {
                Gate::Reject
            },
        },
        prompt: load_prompt(&args.prompt)?,
        format: match args.prompt_format {
            PromptFormatArg::Plain => PromptFormat::Plain,
            PromptFormatArg::Chat => PromptFormat::Chat,
        },
    }))
}

fn labels(args: &SelectArgs) -> Result<Option<(std::path::PathBuf, VotePolicy)>, ClientError> {
    let args = &args.labels;
    let share = args.min_share;
    if !(0.0..=1.0).contains(&share) {
        let text = format!("--min-share: expected 0 to 1, found {share}");
        return Err(ClientError::Usage(text));
    }
    let policy = VotePolicy {
        min_votes: args.min_votes,
        min_share: share,
    };
    Ok(args.pseudo_labels.clone().map(|path| (path, policy)))
}
