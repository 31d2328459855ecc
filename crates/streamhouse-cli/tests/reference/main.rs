//! `docs/reference/cli.md` is the tree of commands, rendered; and the tree keeps to its rules.

mod page;

use std::path::Path;

use clap::Command;

#[test]
fn the_reference_page_is_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let page = page::reference_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/cli.md differs from the commands: run `UPDATE_DOCS=1 cargo test -p streamhouse-cli --test reference`"
    );
}

/// Every command that does something, with the words that lead to it.
fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    if !command.is_subcommand_required_set() {
        found.push((path.to_owned(), command.clone()));
    }
    for below in command.get_subcommands() {
        leaves(below, &format!("{path} {}", below.get_name()), found);
    }
}

fn all_leaves() -> Vec<(String, Command)> {
    let mut root = streamhouse_cli::command();
    root.build();
    let mut found = Vec::new();
    for command in root.get_subcommands() {
        leaves(command, command.get_name(), &mut found);
    }
    assert!(found.len() > 15, "the tree lost its leaves");
    found
}

#[test]
fn every_command_has_a_summary_and_an_example() {
    for (path, command) in all_leaves() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(
            !about.is_empty() && !about.contains('\n') && !about.ends_with('.'),
            "{path}: summary {about:?}"
        );
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Example"), "{path} shows no example");
        let first_word = path.split(' ').next().unwrap();
        let shown =
            help.lines().skip(1).all(|line| line.contains("streamhouse") || line.contains(first_word));
        assert!(shown, "{path}: an example runs something else: {help}");
    }
}

#[test]
fn every_example_is_a_command_that_the_parser_takes() {
    for (path, command) in all_leaves() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().skip(1) {
            let part = line.split('|').find(|part| part.contains("streamhouse")).unwrap();
            let part = part.split(['<', '>']).next().unwrap();
            let words: Vec<&str> = part.split_whitespace().collect();
            let parsed = streamhouse_cli::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn every_command_takes_json_and_no_command_needs_an_option() {
    for (path, command) in all_leaves() {
        let has_output = command.get_arguments().any(|arg| arg.get_id() == "output");
        assert!(has_output, "{path} has no -o");
        for arg in command.get_arguments().filter(|arg| arg.is_required_set()) {
            let meant = ["total", "partition", "before"].contains(&arg.get_id().as_str());
            assert!(arg.is_positional() || meant, "{path} needs --{}", arg.get_id());
        }
    }
}

#[test]
fn every_argument_says_what_it_does() {
    for (path, command) in all_leaves() {
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{path}: {} has no help", arg.get_id());
        }
    }
}
