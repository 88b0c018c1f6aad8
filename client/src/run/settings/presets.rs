//! What stands behind the defaults of an experiment: ours, the paper's, the reference report's, the
//! demo's.

use data::{
    answer::Rule,
    select::{Duplicates, Policy},
};
use trainer::schedule::ScheduleKind;

use super::{
    ChooseEpoch, LoopSettings, PromptMismatch, Rationales, Restart, Settings, Solutions, TestWhen,
    TuningSettings,
};
use crate::{dataset::Keys, sampling::Sampling, session::FormatChoice};

impl Settings {
    /// The defaults of `star run`: one prompt for generation, training and test, verified
    /// rationales, room for whole answers; the report's optimizer settings.
    pub fn default_preset() -> Self {
        Self {
            preset: "default".to_owned(),
            eval_prompt: "basic".to_owned(),
            bootstrap_prompt: "basic".to_owned(),
            hint_prompt: "hint".to_owned(),
            training_prompt: "basic".to_owned(),
            prompt_mismatch: PromptMismatch::Refuse,
            prompt_format: FormatChoice::Auto,
            max_tokens: 1024,
            rule: Rule::Numeric,
            sampling: Sampling {
                max_hints: 1,
                ..Sampling::only(1)
            },
            resample_temperature: 0.7,
            resample_top_p: 0.95,
            policy: Policy::sound(),
            keys: Keys::default(),
            num_train: None,
            num_test: None,
            held_out_fraction: 0.03,
            max_held_out: 250,
            star: LoopSettings {
                iterations: 1,
                patience: 2,
                restart: Restart::Base,
                rationales: Rationales::ThisIteration,
                first_steps: None,
                growth: 1.0,
                test_when: TestWhen::AtTheEnd,
            },
            tuning: TuningSettings {
                epochs: 4,
                lr: 1e-5,
                lr_schedule: ScheduleKind::Linear,
                warmup_steps: 0,
                batch_size: 8,
                max_length: 1024,
                validation_fraction: 0.1,
                choose_epoch: ChooseEpoch::BestOnHeldOut,
                solutions: Solutions::WithoutAnnotations,
                trainer_args: Vec::new(),
            },
            seed: 0,
        }
    }

    /// STaR as published (Zelikman et al. 2022, arXiv 2203.14465): few-shot prompts, greedy decoding,
    /// one verified hint attempt where the forward one failed, the base model fine-tuned anew in each
    /// loop, 40 steps in the first and 20 % more in each one after it (section 4.1), learning rate
    /// 1e-6 constant after 100 steps of warm-up, batches of 8 (appendix H). Ours are the held-out
    /// questions instead of the test set for the choice of the loop, and the limit of 1024 tokens,
    /// where the paper's code has 96.
    pub fn star() -> Self {
        let default = Self::default_preset();
        Self {
            preset: "star".to_owned(),
            eval_prompt: "cot-8shot".to_owned(),
            bootstrap_prompt: "cot-8shot".to_owned(),
            hint_prompt: "cot-8shot-hint".to_owned(),
            training_prompt: "qa".to_owned(),
            prompt_mismatch: PromptMismatch::Allow,
            prompt_format: FormatChoice::Plain,
            star: LoopSettings {
                iterations: 16,
                patience: 3,
                first_steps: Some(40),
                growth: 1.2,
                ..default.star
            },
            tuning: TuningSettings {
                epochs: 1,
                lr: 1e-6,
                lr_schedule: ScheduleKind::Constant,
                warmup_steps: 100,
                choose_epoch: ChooseEpoch::Last,
                ..default.tuning
            },
            ..default
        }
    }

    /// What the reference report did, word for word where it says so.
    pub fn report() -> Self {
        let default = Self::default_preset();
        Self {
            preset: "report".to_owned(),
            eval_prompt: "marked".to_owned(),
            bootstrap_prompt: "basic-forward".to_owned(),
            training_prompt: "sft".to_owned(),
            prompt_mismatch: PromptMismatch::Allow,
            max_tokens: 256,
            rule: Rule::Report,
            policy: Policy::report(),
            tuning: TuningSettings {
                choose_epoch: ChooseEpoch::Last,
                solutions: Solutions::AsWritten,
                ..default.tuning
            },
            ..default
        }
    }

    /// `star demo`: a model of a million parameters on two cores in a few minutes. A small model that
    /// was just pre-trained takes a learning rate thirty times that of a 3B one.
    pub fn demo() -> Self {
        let default = Self::default_preset();
        Self {
            preset: "demo".to_owned(),
            prompt_format: FormatChoice::Plain,
            // The longest demo solution has six steps; what is longer runs on without end.
            max_tokens: 256,
            // A third of what is there: enough for a clear result, in a third of the time.
            num_train: Some(1000),
            held_out_fraction: 0.1,
            max_held_out: 150,
            sampling: Sampling {
                max_hints: 2,
                ..Sampling::only(2)
            },
            policy: Policy {
                max_per_question: 2,
                duplicates: Duplicates::Equations,
                ..default.policy
            },
            star: LoopSettings {
                iterations: 2,
                ..default.star
            },
            tuning: TuningSettings {
                epochs: 3,
                lr: 3e-4,
                batch_size: 16,
                max_length: 512,
                ..default.tuning
            },
            ..default
        }
    }
}
