//! Flags over the policy that a preset gives.

use data::select::{Duplicates, Gate, Policy};

use super::args::{DuplicatesArg, GateArg, PolicyArgs};
use crate::error::ClientError;

/// ReST-EM's cap (Singh et al. 2023): more of the easy questions teach nothing new.
const MAX_PER_QUESTION: usize = 10;

/// Of several samples a question the different ones are kept, as rejection sampling does (Yuan et
/// al. 2023): by their equations, so that other words alone do not count.
pub(super) fn suit_samples(policy: &mut Policy, num_samples: u32) {
    if num_samples > 1 {
        policy.max_per_question = (num_samples as usize).min(MAX_PER_QUESTION);
        policy.duplicates = Duplicates::Equations;
    }
}

/// Overrides what a flag is given for.
pub(super) fn override_by(policy: &mut Policy, args: &PolicyArgs) -> Result<(), ClientError> {
    if let Some(share) = args.max_hint_share {
        if !(0.0..=1.0).contains(&share) {
            let text = format!("--max-hint-share: expected 0 to 1, found {share}");
            return Err(ClientError::Usage(text));
        }
        policy.max_hint_share = share;
    }
    for (flag, count, target) in [
        (
            "--max-per-question",
            args.max_per_question,
            &mut policy.max_per_question,
        ),
        ("--min-right", args.min_right, &mut policy.min_right),
    ] {
        match count {
            Some(0) => {
                let text = format!("{flag}: expected at least 1, found 0");
                return Err(ClientError::Usage(text));
            }
            Some(count) => *target = count,
            None => {}
        }
    }
    if let Some(duplicates) = args.duplicates {
        policy.duplicates = match duplicates {
            DuplicatesArg::Texts => Duplicates::Texts,
            DuplicatesArg::Equations => Duplicates::Equations,
        };
    }
    for (given, gate) in [
        (args.leaks, &mut policy.leaked),
        (args.unverified_hints, &mut policy.unverified_hint),
        (args.fallback, &mut policy.fallback),
        (args.truncated, &mut policy.truncated),
        (args.false_equations, &mut policy.false_equations),
    ] {
        match given {
            Some(GateArg::Accept) => *gate = Gate::Accept,
            Some(GateArg::Reject) => *gate = Gate::Reject,
            None => {}
        }
    }
    Ok(())
}
