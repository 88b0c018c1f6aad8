use super::optimizer_args::{PRETRAIN_DEFAULTS, SFT_DEFAULTS};
use super::*;
use crate::config::MomentsDtype;
use crate::schedule::ScheduleKind;

fn parse(args: &[&str]) -> Command {
    Arguments::try_parse_from(args).unwrap().command
}

/// Each command has its own defaults.
#[test]
fn defaults_differ_by_command() {
    let sft = parse(&[
        "trainer", "sft", "--model", "m", "--train", "t", "--out", "o",
    ]);
    let Command::Sft(sft) = sft else {
        panic!("sft")
    };
    let config = sft
        .optimizer
        .config(SFT_DEFAULTS, MomentsDtype::F32)
        .unwrap();
    assert_eq!((config.schedule.peak_lr, config.beta2), (1e-5, 0.999));
    assert_eq!(config.schedule.kind, ScheduleKind::Linear);
    let pretrain = parse(&["trainer", "pretrain", "--text", "a", "b", "--out", "o"]);
    let Command::Pretrain(pretrain) = pretrain else {
        panic!("pretrain")
    };
    let config = pretrain
        .optimizer
        .config(PRETRAIN_DEFAULTS, MomentsDtype::F32)
        .unwrap();
    assert_eq!((config.schedule.peak_lr, config.beta2), (3e-3, 0.95));
    assert_eq!(pretrain.text.len(), 2);
}

/// Only `sft` says that the same command goes on; a stopped `pretrain` says where its model is.
#[test]
fn only_sft_is_resumable() {
    let sft = parse(&[
        "trainer", "sft", "--model", "m", "--train", "t", "--out", "o",
    ]);
    assert_eq!(stopped_exit(&sft).0, EXIT_RESUMABLE);
    let pretrain = parse(&["trainer", "pretrain", "--text", "a", "--out", "o"]);
    let (code, sentence) = stopped_exit(&pretrain);
    assert_eq!(code, 1);
    assert!(sentence.contains("--init-from o/model"), "{sentence}");
}

/// The whole set of flags is consistent (clap's own check).
#[test]
fn flags_are_consistent() {
    <Arguments as clap::CommandFactory>::command().debug_assert();
}

/// A setting out of range is an error that names the flag.
#[test]
fn bad_setting_names_the_flag() {
    let args = [
        "trainer", "sft", "--model", "m", "--train", "t", "--out", "o", "--lr", "0",
    ];
    let Command::Sft(sft) = parse(&args) else {
        panic!("sft")
    };
    let error = sft
        .optimizer
        .config(SFT_DEFAULTS, MomentsDtype::F32)
        .unwrap_err()
        .to_string();
    assert!(error.contains("--lr = 0"), "{error}");
}
