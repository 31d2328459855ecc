//! The reference page of the command line, made from the tree of commands.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// `docs/reference/cli.md`.
pub(crate) fn reference_page() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Exit codes\n\n| exit | meaning |\n|---|---|\n");
    for (exit, meaning) in streamhouse_cli::exit_codes() {
        push_line(&mut page, &format!("| {exit} | {meaning} |"));
    }
    page.push_str("\n## Error codes of the command itself\n\n");
    page.push_str("Those of the server stand in [errors.md](errors.md).\n\n| code | exit | meaning | hint |\n|---|---|---|---|\n");
    for (code, exit, meaning, hint) in streamhouse_cli::own_errors() {
        push_line(&mut page, &format!("| `{code}` | {exit} | {meaning} | {hint} |"));
    }
    let mut root = streamhouse_cli::command();
    root.build();
    page.push_str("\n## Global options\n\n");
    arguments(&mut page, root.get_arguments());
    page.push_str("\n## Commands\n");
    for command in root.get_subcommands() {
        section(&mut page, command, "streamhouse");
    }
    page
}

const INTRODUCTION: &str = "# The command line

Standard output is data, standard error is talk. Tables are for eyes and may change; JSON is a contract. With `-o json`
every command prints one document with `\"schema\": \"streamhouse.cli/v1\"`, in snake case, with whole numbers for bytes
and offsets, and RFC 3339 times in UTC. Where records stream (`consume -o json`, `produce --acks-out`) each line is one
object. Under `-o json` errors are JSON as well, one line on standard error:

```json
{\"schema\":\"streamhouse.cli/v1\",\"error\":{\"code\":\"TOPIC_NOT_FOUND\",\"message\":\"…\",\"hint\":\"…\",\"did_you_mean\":null,\"retryable\":false,\"may_have_happened\":false,\"side_effects\":false,\"exit_code\":3}}
```

Bytes that are not UTF-8 appear in base64, with `key_encoding` or `value_encoding` saying so. A closed pipe
(`| head`) ends a command silently with 0. Ctrl-C ends a command after a summary of what was done, with 130; a second
one ends it at once. What cannot be undone, or makes the cluster less safe, asks for the name to be typed back; `--yes`
skips the question, and without a terminal and without `--yes` such commands fail with 2.

This page is made from the commands themselves. After a change there, run
`UPDATE_DOCS=1 cargo test -p streamhouse-cli --test reference`.
";

fn push_line(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}

/// One command and those below it.
fn section(page: &mut String, command: &Command, parent: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let path = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    write!(page, "\n### {path}\n\n{about}\n\n").expect("a text takes what is written");
    let runs = !command.is_subcommand_required_set();
    if runs {
        // The flag for every setting is listed in the reference of the configuration.
        let own = |arg: &&Arg| arg.get_help_heading() != Some("Settings") && !arg.is_global_set();
        write!(page, "```text\n{path}{}\n```\n\n", usage(command)).expect("a text takes what is written");
        arguments(page, command.get_arguments().filter(own));
        if command.get_arguments().any(|arg| arg.get_help_heading() == Some("Settings")) {
            page.push_str("\nEvery setting of [configuration.md](configuration.md) has a flag as well, such as `--wal.flush-interval 10ms`.\n");
        }
        examples(page, command);
    }
    for below in command.get_subcommands() {
        section(page, below, &path);
    }
}

/// The arguments in the order in which they are written.
fn usage(command: &Command) -> String {
    let mut text = String::new();
    let has_options = command.get_arguments().any(|arg| !arg.is_positional() && !arg.is_global_set());
    if has_options {
        text.push_str(" [OPTIONS]");
    }
    for arg in command.get_positionals() {
        let name = arg.get_id().as_str().to_uppercase();
        let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        let many = if many || matches!(arg.get_action(), clap::ArgAction::Append) { "..." } else { "" };
        let (open, close) = if arg.is_required_set() { ("<", ">") } else { ("[", "]") };
        write!(text, " {open}{name}{close}{many}").expect("a text takes what is written");
    }
    text
}

fn arguments<'a>(page: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let shown: Vec<&Arg> = args.filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").collect();
    if shown.is_empty() {
        return;
    }
    page.push_str("| argument | meaning |\n|---|---|\n");
    for arg in shown {
        let mut name = match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}"),
            (None, Some(long)) => format!("--{long}"),
            (Some(short), None) => format!("-{short}"),
            (None, None) => format!("<{}>", arg.get_id().as_str().to_uppercase()),
        };
        if !arg.is_positional() && arg.get_action().takes_values() {
            let value =
                arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
            write!(name, " <{value}>").expect("a text takes what is written");
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let takes_value = arg.get_action().takes_values();
        let shown_default =
            takes_value && !default.is_empty() && default.iter().all(|value| !value.is_empty());
        let default =
            if shown_default { format!(" (default `{}`)", default.join(" ")) } else { String::new() };
        push_line(page, &format!("| `{name}` | {help}{default} |"));
    }
}

fn examples(page: &mut String, command: &Command) {
    let Some(text) = command.get_after_help().map(ToString::to_string) else { return };
    let lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
    write!(page, "\n```text\n{}\n```\n", lines.join("\n")).expect("a text takes what is written");
}
