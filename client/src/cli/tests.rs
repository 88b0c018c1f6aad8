use clap::{CommandFactory, Parser};
use data::select::Gate;

use super::*;

/// clap's own consistency checks over all flags.
#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Every command shows at least one example under its flags.
#[test]
fn every_command_has_examples() {
    for command in Cli::command().get_subcommands() {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            help.contains("star "),
            "{} has no example",
            command.get_name()
        );
    }
}

/// What bootstrapping would not learn fails the look, and what it would does not: it depends on the
/// rule and the preset.
#[test]
fn preflight_looks_as_bootstrapping_does() {
    let guess = |more: &[&str]| {
        let cli = Cli::try_parse_from(["star", "preflight", "--dataset", "d"].iter().chain(more));
        let args::Command::Preflight(args) = cli.unwrap().command else {
            panic!("asked for preflight")
        };
        resolve::preflight_method(&args.method).unwrap().1
    };
    assert_eq!(guess(&[]), Gate::Reject);
    assert_eq!(guess(&["--rule", "lm-flexible"]), Gate::Accept);
    assert_eq!(guess(&["--preset", "report"]), Gate::Accept);
}

/// Tries that would be made in vain, or that no machine can hold, are refused and the flags named.
#[test]
fn tries_in_vain_are_refused() {
    let tries = |more: &[&str]| {
        let fixed = ["star", "bootstrap", "--dataset", "d", "--out", "o"];
        let cli = Cli::try_parse_from(fixed.iter().chain(more)).map_err(|it| it.to_string())?;
        let args::Command::Bootstrap(args) = cli.command else {
            panic!("asked for bootstrap")
        };
        let made = resolve::bootstrap_method(&args.method, &args.samples, 0);
        made.map(|made| made.0.sampling)
            .map_err(|error| error.to_string())
    };
    let refused = |more: &[&str], flag: &str| {
        let error = tries(more).unwrap_err();
        assert!(error.contains(flag), "{error}");
    };
    refused(&["--extra-samples", "4"], "--extra-samples 4");
    refused(&["--samples", "10001"], "--samples");
    for flag in ["--samples", "--forward-attempts", "--hint-attempts"] {
        refused(
            &[flag, "3", "--resample-temperature", "0"],
            "--resample-temperature",
        );
    }
    assert_eq!(tries(&["--resample-temperature", "0"]).unwrap().samples, 1);
    let mixed = tries(&["--samples", "2", "--extra-samples", "4"]).unwrap();
    assert_eq!((mixed.samples, mixed.extra_samples), (2, 4));
}

/// Flags for a server elsewhere are not swallowed where the server is in this process.
#[cfg(feature = "embedded")]
#[tokio::test]
async fn flags_without_a_server_are_refused() {
    let needed = ["--model", "m", "--train", "t", "--test", "t", "--out", "o"];
    for more in [["--token-file", "secret"], ["--wait", "5"]] {
        let words = ["star", "run"].iter().chain(&needed).chain(&more);
        let args::Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("asked for run")
        };
        let error = experiment::run(*args, Interrupt::default())
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(more[0]), "{error}");
    }
}

/// Several greedy samples would be one sample: refused, and both flags are named.
#[test]
fn samples_need_a_temperature() {
    let method = |more: &[&str]| {
        let fixed = ["star", "eval", "--dataset", "d", "--out", "o"];
        let cli = Cli::try_parse_from(fixed.iter().chain(more)).unwrap();
        let args::Command::Eval(args) = cli.command else {
            panic!("asked for eval")
        };
        resolve::eval_method(&args.method, args.samples)
    };
    let error = method(&["--samples", "4"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let error = error.to_string();
    assert!(
        error.contains("--samples 4 with --temperature 0"),
        "{error}"
    );
    let sampled = method(&["--samples", "4", "--temperature", "0.7"]).unwrap();
    assert_eq!(sampled.sampling.samples, 4);
    assert_eq!(method(&[]).unwrap().sampling.samples, 1);
}
