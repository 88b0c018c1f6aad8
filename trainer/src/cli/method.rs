//! Flags that say which weights are trained and in which numbers; `trainer plan` and `trainer merge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::SftArgs;
use crate::config::{BaseFormat, DeviceKind, Method, MomentsDtype, Precision, SaveDtype, require};
use crate::error::{Result, TrainError};
use crate::lora::{LoraConfig, LoraTarget};

/// `--method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum MethodChoice {
    /// All weights.
    #[default]
    Full,
    /// Thin matrices beside frozen weights (LoRA); with --base int8 as QLoRA does.
    Lora,
}

/// Which weights are trained, and in which numbers.
#[derive(Debug, Clone, Args)]
pub struct MethodArgs {
    /// All weights, or low-rank adapters beside frozen ones.
    #[arg(long, value_enum, default_value_t)]
    pub method: MethodChoice,
    /// Numbers that weights are stored and products computed in; sums are f32 in each. Default: f32 on
    /// the CPU, bf16 on a GPU.
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// What the optimizer's moments are stored in: 8, 4 or about 2 bytes per trained weight.
    #[arg(long, value_enum, default_value_t)]
    pub moments: MomentsDtype,
    /// Part of each label's probability spread over the vocabulary. 0: none.
    #[arg(long, default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Rank of the adapters. Default: 16.
    #[arg(long)]
    pub lora_rank: Option<usize>,
    /// The adapters' output is multiplied by alpha / rank. Default: twice the rank.
    #[arg(long)]
    pub lora_alpha: Option<f64>,
    /// Odds that an input of an adapter is left out in a step. Default: 0.
    #[arg(long)]
    pub lora_dropout: Option<f64>,
    /// Projections with an adapter. Default: all seven.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub lora_targets: Option<Vec<LoraTarget>>,
    /// How frozen weights lie in memory; on a GPU bf16 or int8. Default: f32 with --precision f32, else
    /// bf16.
    #[arg(long, value_enum)]
    pub base: Option<BaseFormat>,
}

const DEFAULT_RANK: usize = 16;

impl MethodArgs {
    /// As given, or the device's default.
    pub fn precision(&self, device: DeviceKind) -> Result<Precision> {
        match (device, self.precision) {
            (DeviceKind::Cpu, precision) => Ok(precision.unwrap_or(Precision::F32)),
            (DeviceKind::Cuda, None) => Ok(Precision::Bf16),
            (DeviceKind::Cuda, Some(Precision::F32)) => Err(TrainError::BadSetting {
                flag: "--precision",
                found: "f32".to_string(),
                expected: "bf16 or bf16-weights with --device cuda".to_string(),
            }),
            (DeviceKind::Cuda, Some(precision)) => Ok(precision),
        }
    }

    /// The checked method.
    pub fn method(&self, device: DeviceKind) -> Result<Method> {
        let precision = self.precision(device)?;
        require(
            "--label-smoothing",
            self.label_smoothing,
            "0 <= x < 1",
            |x| (0.0..1.0).contains(&x),
        )?;
        if self.method == MethodChoice::Full {
            return self.refuse_lora_flags().map(|()| Method::Full);
        }
        let rank = self.lora_rank.unwrap_or(DEFAULT_RANK);
        let mut targets = self
            .lora_targets
            .clone()
            .unwrap_or_else(|| LoraTarget::ALL.to_vec());
        // The order of flags is no setting.
        targets.sort_unstable();
        targets.dedup();
        let lora = LoraConfig {
            rank,
            alpha: self.lora_alpha.unwrap_or(2.0 * rank as f64),
            dropout: self.lora_dropout.unwrap_or(0.0),
            targets,
            base: self.base.unwrap_or(match precision {
                Precision::F32 => BaseFormat::F32,
                Precision::Bf16 | Precision::Bf16Weights => BaseFormat::Bf16,
            }),
        };
        lora.check()?;
        if device == DeviceKind::Cuda {
            refuse_what_gpus_lack(&lora)?;
        }
        if precision == Precision::Bf16Weights {
            return Err(TrainError::BadSetting {
                flag: "--precision",
                found: "bf16-weights".to_string(),
                expected: "f32 or bf16 with --method lora: adapters are small and stay f32; the \
                           frozen weights are --base's"
                    .to_string(),
            });
        }
        Ok(Method::Lora(lora))
    }

    /// A flag that would change nothing is a misunderstanding.
    fn refuse_lora_flags(&self) -> Result<()> {
        let given = [
            ("--lora-rank", self.lora_rank.is_some()),
            ("--lora-alpha", self.lora_alpha.is_some()),
            ("--lora-dropout", self.lora_dropout.is_some()),
            ("--lora-targets", self.lora_targets.is_some()),
            ("--base", self.base.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => Err(TrainError::BadSetting {
                flag,
                found: "given".to_string(),
                expected: "--method lora with it".to_string(),
            }),
        }
    }
}

/// Products on a GPU are of matrices in bf16, or widened to it, whose rows are whole vectors of 16 bytes.
fn refuse_what_gpus_lack(lora: &LoraConfig) -> Result<()> {
    let base = lora.base;
    let expected = "bf16 or int8 with --device cuda: its products take no f32 factors";
    require("--base", base.name(), expected, |_| base != BaseFormat::F32)?;
    let expected = "a multiple of 8 with --device cuda";
    require("--lora-rank", lora.rank, expected, |rank| {
        rank.is_multiple_of(8)
    })
}

/// `trainer plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub sft: SftArgs,
    /// A rate that the time is worked out with, such as an earlier run's.
    #[arg(long)]
    pub tokens_per_s: Option<f64>,
}

/// `trainer merge`.
#[derive(Debug, Clone, Args)]
pub struct MergeArgs {
    /// The model that the adapter was trained on: a folder in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A folder with adapter_config.json and adapter_model.safetensors, such as
    /// runs/lora/epoch_3/adapter, or one that PEFT has written.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Where the merged checkpoint goes; must not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Type of saved weights. Default: that of the base model.
    #[arg(long, value_enum)]
    pub save_dtype: Option<SaveDtype>,
}
