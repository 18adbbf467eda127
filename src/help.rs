//! The help page: commands in groups, which clap does not know.

use std::fmt::Write;

use clap::Command;

/// The groups of the commands; all of them are in one.
const GROUPS: [(&str, &[&str]); 2] = [
    ("The service", &["serve", "worker", "migrate", "key"]),
    (
        "The client of a running service",
        &["train", "predict", "models", "model", "cancel", "delete", "export", "upload", "datasets", "dataset"],
    ),
];

/// `command` with a help page that lists its subcommands in groups.
pub(crate) fn grouped(command: Command) -> Command {
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (heading, names) in GROUPS {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "\n{heading}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _infallible = writeln!(text, "  {name:<9} {about}");
        }
    }
    text += "\nOptions:\n{options}{after-help}";
    command.disable_help_subcommand(true).help_template(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Arguments;

    #[test]
    fn every_command_is_in_one_group_with_its_description() {
        let command = grouped(Arguments::command());
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for name in command.get_subcommands().map(Command::get_name) {
            assert_eq!(listed.iter().filter(|&&listed| listed == name).count(), 1, "{name}");
        }
        for name in listed {
            assert!(command.find_subcommand(name).is_some_and(|command| command.get_about().is_some()), "{name}");
        }
        command.debug_assert();
    }
}
