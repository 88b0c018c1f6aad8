use clap::CommandFactory;

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
