//! The fine-tunings of an experiment and the names of what they leave.

use super::state::{Stage, TurnStage};

/// Which data is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Rationales that the model itself wrote, in this turn of the loop (from 1).
    Star { iteration: u32 },
    /// The data set's own solutions.
    Vanilla,
}

impl Kind {
    /// Its folder below the checkpoints.
    pub(super) fn folder(self) -> String {
        match self {
            Self::Star { iteration } => format!("star/iteration_{iteration}"),
            Self::Vanilla => "vanilla".to_owned(),
        }
    }

    /// The same as a part of a file's name.
    pub(super) fn file_name(self) -> String {
        self.folder().replace('/', "_")
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Star { .. } => "STaR SFT",
            Self::Vanilla => "vanilla SFT",
        }
    }

    /// For a progress bar.
    pub(super) fn label(self) -> String {
        match self {
            Self::Star { iteration } => format!("{} {iteration}", self.title()),
            Self::Vanilla => self.title().to_owned(),
        }
    }

    pub(super) fn sft_stage(self) -> Stage {
        match self {
            Self::Star { iteration } => Stage::Turn(iteration, TurnStage::Sft),
            Self::Vanilla => Stage::VanillaSft,
        }
    }

    pub(super) fn test_stage(self) -> Stage {
        match self {
            Self::Star { iteration } => Stage::Turn(iteration, TurnStage::Test),
            Self::Vanilla => Stage::VanillaTest,
        }
    }

    pub(super) fn test_folder(self) -> String {
        format!("test_{}", self.file_name())
    }

    /// An epoch's checkpoint, as `Checkpoints` names it.
    pub(super) fn checkpoint(self, epoch: u32) -> String {
        format!("{}/epoch_{epoch}", self.folder())
    }

    pub(super) fn held_out_folder(self, epoch: u32) -> String {
        format!("held_out/{}_epoch_{epoch}", self.file_name())
    }
}

/// The folder of a turn's bootstrapping.
pub(super) fn bootstrap_folder(iteration: u32) -> String {
    format!("bootstrap/iteration_{iteration}")
}
