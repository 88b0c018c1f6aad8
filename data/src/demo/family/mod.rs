//! The families of problems: which there are, how often, and which the base model never sees.

mod counting;
mod making;
mod measuring;
mod money;
mod unseen;

use super::{
    rng::Rng,
    story::{Story, Told},
};

/// One kind of problem, in endless variation.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    tell: fn(Story) -> Option<Told>,
    /// Of the answers to this family in the pre-training text, how many in a hundred are blurted
    /// out without a step. See `corpus`.
    pub(super) offhand_percent: i64,
}

/// Families of the pre-training text, the training split and the test split.
pub(super) const KNOWN: &[Family] = &[
    Family {
        name: "collection",
        tell: counting::collection,
        offhand_percent: 30,
    },
    Family {
        name: "comparison",
        tell: counting::comparison,
        offhand_percent: 75,
    },
    Family {
        name: "ages",
        tell: counting::ages,
        offhand_percent: 75,
    },
    Family {
        name: "shopping",
        tell: money::shopping,
        offhand_percent: 75,
    },
    Family {
        name: "wages",
        tell: money::wages,
        offhand_percent: 30,
    },
    Family {
        name: "savings",
        tell: money::savings,
        offhand_percent: 75,
    },
    Family {
        name: "baking",
        tell: making::baking,
        offhand_percent: 30,
    },
    Family {
        name: "hens",
        tell: making::hens,
        offhand_percent: 75,
    },
    Family {
        name: "reading",
        tell: measuring::reading,
        offhand_percent: 30,
    },
    Family {
        name: "travel",
        tell: measuring::travel,
        offhand_percent: 75,
    },
    Family {
        name: "class",
        tell: measuring::class,
        offhand_percent: 30,
    },
];

/// Families of the test split only.
pub(super) const UNSEEN: &[Family] = &[
    Family {
        name: "garden",
        tell: unseen::garden,
        offhand_percent: 0,
    },
    Family {
        name: "tickets",
        tell: unseen::tickets,
        offhand_percent: 0,
    },
    Family {
        name: "tank",
        tell: unseen::tank,
        offhand_percent: 0,
    },
];

/// Draws until the numbers fit.
const MAX_DRAWS: usize = 10_000;

impl Family {
    /// A problem of this family with exactly `num_steps` steps.
    pub(super) fn tell(&self, rng: &mut Rng, num_steps: usize) -> Told {
        for _ in 0..MAX_DRAWS {
            if let Some(told) = (self.tell)(Story::new(rng, num_steps)) {
                return told;
            }
        }
        panic!(
            "family {} cannot tell a problem of {num_steps} steps",
            self.name
        )
    }
}
