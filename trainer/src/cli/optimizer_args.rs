//! The optimizer's flags and the defaults of the two commands.

use clap::Args;

use crate::config::{MomentsDtype, OptimizerConfig};
use crate::error::Result;
use crate::schedule::{Schedule, ScheduleKind};

/// What of [`OptimizerArgs`] the two commands have different defaults for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerDefaults {
    pub lr: f64,
    pub schedule: ScheduleKind,
    pub warmup_steps: u64,
    pub beta2: f64,
    pub weight_decay: f64,
}

/// Fine-tuning: the report's linear decay without warm-up, PyTorch's betas.
pub const SFT_DEFAULTS: OptimizerDefaults = OptimizerDefaults {
    lr: 1e-5,
    schedule: ScheduleKind::Linear,
    warmup_steps: 0,
    beta2: 0.999,
    weight_decay: 0.0,
};

/// From scratch: short memory of the second moment and some decay, as GPT-3 and Llama.
pub const PRETRAIN_DEFAULTS: OptimizerDefaults = OptimizerDefaults {
    lr: 3e-3,
    schedule: ScheduleKind::Cosine,
    warmup_steps: 50,
    beta2: 0.95,
    weight_decay: 0.1,
};

/// AdamW, schedule, clipping. (Generic defaults are not possible here: clap keeps a default's text
/// in a static, which all instances of a generic struct would share.)
#[derive(Debug, Clone, Args)]
pub struct OptimizerArgs {
    /// Peak learning rate. Default: 1e-5 for sft, 3e-3 for pretrain.
    #[arg(long)]
    pub lr: Option<f64>,
    /// Default: linear for sft, cosine for pretrain.
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleKind>,
    /// Steps until the peak. Default: 0 for sft, 50 for pretrain.
    #[arg(long)]
    pub warmup_steps: Option<u64>,
    /// Where the schedule ends, as a part of the peak.
    #[arg(long, default_value_t = 0.0)]
    pub min_lr_ratio: f64,
    #[arg(long, default_value_t = 0.9)]
    pub beta1: f64,
    /// Default: 0.999 for sft, 0.95 for pretrain.
    #[arg(long)]
    pub beta2: Option<f64>,
    #[arg(long, default_value_t = 1e-8)]
    pub eps: f64,
    /// On matrices only. Default: 0 for sft, 0.1 for pretrain.
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// The averaged gradient is scaled down to this global norm.
    #[arg(long, default_value_t = 1.0)]
    pub max_grad_norm: f64,
}

impl OptimizerArgs {
    pub fn config(
        &self,
        defaults: OptimizerDefaults,
        moments: MomentsDtype,
    ) -> Result<OptimizerConfig> {
        let config = OptimizerConfig {
            schedule: Schedule {
                kind: self.schedule.unwrap_or(defaults.schedule),
                peak_lr: self.lr.unwrap_or(defaults.lr),
                warmup_steps: self.warmup_steps.unwrap_or(defaults.warmup_steps),
                min_lr_ratio: self.min_lr_ratio,
            },
            beta1: self.beta1,
            beta2: self.beta2.unwrap_or(defaults.beta2),
            eps: self.eps,
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            max_grad_norm: self.max_grad_norm,
            moments,
        };
        config.check()?;
        Ok(config)
    }
}
