//! Flags over the settings that a preset gives.

use data::{answer::Rule, select::Gate};

use super::{args::SettingsArgs, policy, resolve};
use crate::{
    error::ClientError,
    run::{PromptMismatch, Settings, TestWhen},
};

/// Overrides what a flag is given for and checks the ranges that the flags cannot check.
pub(super) fn override_by(settings: &mut Settings, args: &SettingsArgs) -> Result<(), ClientError> {
    questions(settings, args);
    prompts(settings, args)?;
    tries(settings, args);
    policy::override_by(&mut settings.policy, &args.accept)?;
    turns(settings, args);
    tuning(settings, args);
    set(&mut settings.seed, args.seed);
    check(settings)
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

fn questions(settings: &mut Settings, args: &SettingsArgs) {
    let args = &args.questions;
    settings.num_train = args.num_train.or(settings.num_train);
    settings.num_test = args.num_test.or(settings.num_test);
    set(&mut settings.held_out_fraction, args.held_out_fraction);
    set(&mut settings.max_held_out, args.max_held_out);
}

fn prompts(settings: &mut Settings, args: &SettingsArgs) -> Result<(), ClientError> {
    let args = &args.prompts;
    for each in [
        &mut settings.eval_prompt,
        &mut settings.bootstrap_prompt,
        &mut settings.training_prompt,
    ] {
        set(each, args.prompt.clone());
    }
    set(
        &mut settings.bootstrap_prompt,
        args.bootstrap_prompt.clone(),
    );
    set(&mut settings.training_prompt, args.training_prompt.clone());
    set(&mut settings.hint_prompt, args.hint_prompt.clone());
    if args.allow_prompt_mismatch {
        settings.prompt_mismatch = PromptMismatch::Allow;
    }
    set(
        &mut settings.prompt_format,
        args.prompt_format.map(resolve::format),
    );
    set(&mut settings.max_tokens, args.max_tokens);
    if let Some(name) = &args.rule {
        settings.rule = resolve::rule(name)?;
        // A rule that takes the last number has no marker to insist on.
        if settings.rule != Rule::Numeric {
            settings.policy.fallback = Gate::Accept;
        }
    }
    Ok(())
}

fn tries(settings: &mut Settings, args: &SettingsArgs) {
    let args = &args.tries;
    let sampling = &mut settings.sampling;
    if let Some(samples) = args.samples {
        sampling.samples = samples;
        policy::suit_samples(&mut settings.policy, samples);
    }
    set(&mut sampling.extra_samples, args.extra_samples);
    set(&mut sampling.max_forward, args.forward_attempts);
    sampling.max_forward = sampling.max_forward.max(sampling.samples);
    set(&mut sampling.max_hints, args.hint_attempts);
    set(
        &mut settings.resample_temperature,
        args.resample_temperature,
    );
    set(&mut settings.resample_top_p, args.resample_top_p);
}

fn turns(settings: &mut Settings, args: &SettingsArgs) {
    let args = &args.turns;
    let star = &mut settings.star;
    set(&mut star.iterations, args.iterations);
    set(&mut star.patience, args.patience);
    set(&mut star.restart, args.restart);
    set(&mut star.rationales, args.rationales);
    star.first_steps = args.first_steps.or(star.first_steps);
    set(&mut star.growth, args.growth);
    if args.test_each_iteration {
        star.test_when = TestWhen::EachIteration;
    }
}

fn tuning(settings: &mut Settings, args: &SettingsArgs) {
    let args = &args.tuning;
    let tuning = &mut settings.tuning;
    set(&mut tuning.epochs, args.epochs);
    set(&mut tuning.lr, args.lr);
    set(&mut tuning.lr_schedule, args.lr_schedule);
    set(&mut tuning.warmup_steps, args.warmup_steps);
    set(&mut tuning.batch_size, args.batch_size);
    set(&mut tuning.max_length, args.max_length);
    set(&mut tuning.validation_fraction, args.validation_fraction);
    set(&mut tuning.choose_epoch, args.choose_epoch);
    set(&mut tuning.solutions, args.annotations);
    let words = |text: &String| text.split_whitespace().map(str::to_owned).collect();
    set(
        &mut tuning.trainer_args,
        args.trainer_args.as_ref().map(words),
    );
}

fn check(settings: &Settings) -> Result<(), ClientError> {
    let wrong = |flag: &str, expected: &str, found: f64| {
        let text = format!("{flag}: expected {expected}, found {found}");
        Err(ClientError::Usage(text))
    };
    let growth = settings.star.growth;
    if !(growth.is_finite() && growth > 0.0) {
        return wrong("--growth", "more than 0", growth);
    }
    let share = settings.tuning.validation_fraction;
    if !(0.0..1.0).contains(&share) {
        return wrong("--validation-fraction", "0 or more and less than 1", share);
    }
    let lr = settings.tuning.lr;
    if !(lr.is_finite() && lr > 0.0) {
        return wrong("--lr", "more than 0", lr);
    }
    let temperature = settings.resample_temperature;
    if !(temperature.is_finite() && temperature >= 0.0) {
        return wrong("--resample-temperature", "0 or more", temperature.into());
    }
    let top_p = settings.resample_top_p;
    if !(top_p > 0.0 && top_p <= 1.0) {
        let expected = "more than 0 and at most 1";
        return wrong("--resample-top-p", expected, top_p.into());
    }
    settings.sampling.check(temperature)
}
