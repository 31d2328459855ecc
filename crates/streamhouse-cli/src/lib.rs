//! The command line: how a person and a script speak to StreamHouse.
//!
//! Architecture invariant: knows the client's and the server's front doors and nothing that lies behind them. Standard
//! output carries results only; every command prints JSON on request, ends with a documented exit code, and says in
//! its errors what to do next.

mod address;
mod args;
mod commands;
mod consent;
mod context;
mod exit;
mod failure;
mod keys;
mod latency;
mod lines;
mod output;
mod records;
mod settings;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::Cli;
use exit::Exit;
use failure::{Failure, LocalCode, Stop};
use output::{Color, Format};

/// The whole tree of commands, as the parser and the reference page see it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// How commands may end, each with what it means, in the order of the numbers.
pub fn exit_codes() -> impl Iterator<Item = (u8, &'static str)> {
    Exit::ALL.into_iter().map(|exit| (exit.code(), exit.meaning()))
}

/// The errors of the command itself: code, exit, meaning and advice.
pub fn own_errors() -> impl Iterator<Item = (&'static str, u8, &'static str, &'static str)> {
    LocalCode::ALL.into_iter().map(|code| (code.name(), code.exit().code(), code.meaning(), code.advice()))
}

/// Runs the command that `args` name, the program's own name first, and says how the process ends.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let wishes = Wishes::of(&args);
    let ended = parse(&args, wishes).and_then(|cli| commands::execute(cli.command, &cli.globals));
    let exit = match ended {
        Ok(exit) => exit,
        Err(Stop::ClosedPipe) => Exit::Done,
        Err(Stop::Said(exit)) => exit,
        Err(Stop::Failed(failure)) => {
            // When standard error is gone, the exit code is all that is left to say it.
            let _gone = failure.render(&mut io::stderr().lock(), wishes.format, wishes.color.on_stderr());
            failure.exit
        }
    };
    exit.into()
}

/// What the arguments ask of errors, known even when the arguments make no sense.
#[derive(Clone, Copy)]
struct Wishes {
    format: Format,
    color: Color,
}

impl Wishes {
    fn of(args: &[OsString]) -> Self {
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let wants = |names: &[&str], value: &str| {
            words.iter().enumerate().any(|(at, word)| {
                let inline = names.iter().any(|name| {
                    let rest = word.strip_prefix(name);
                    rest.is_some_and(|rest| rest == value || rest.strip_prefix('=') == Some(value))
                });
                let apart =
                    names.contains(&word.as_ref()) && words.get(at + 1).is_some_and(|next| next == value);
                inline || apart
            })
        };
        let format = if wants(&["-o", "--output"], "json") { Format::Json } else { Format::Table };
        let color = match (wants(&["--color"], "always"), wants(&["--color"], "never")) {
            (_, true) => Color::Never,
            (true, false) => Color::Always,
            (false, false) => Color::Auto,
        };
        Self { format, color }
    }
}

fn parse(args: &[OsString], wishes: Wishes) -> Result<Cli, Stop> {
    let color = match wishes.color {
        Color::Auto => clap::ColorChoice::Auto,
        Color::Always => clap::ColorChoice::Always,
        Color::Never => clap::ColorChoice::Never,
    };
    let parsed = command().color(color).try_get_matches_from(args).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    match parsed {
        Ok((cli, matches)) => {
            args::refuse_what_would_be_ignored(&cli, &matches)?;
            Ok(cli)
        }
        // Help and version are results; of errors, people get the parser's own text with its suggestions.
        Err(error) if !error.use_stderr() || wishes.format != Format::Json => {
            error.print()?;
            Err(Stop::Said(if error.use_stderr() { Exit::Usage } else { Exit::Done }))
        }
        Err(error) => Err(usage_failure(&error).into()),
    }
}

/// The parser's text as message and hint.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let tips = rest.lines().map(str::trim).filter_map(|line| line.strip_prefix("tip: "));
    let tips = tips.collect::<Vec<_>>().join("; ");
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    Failure::usage(message).hint(if tips.is_empty() { LocalCode::Usage.advice().to_owned() } else { tips })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(args: &[&str]) -> Wishes {
        Wishes::of(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_wanted_form_of_errors_is_known_before_the_arguments_make_sense() {
        for args in
            [&["-o", "json"][..], &["-ojson"], &["-o=json"], &["--output", "json"], &["--output=json"]]
        {
            assert_eq!(wishes(args).format, Format::Json, "{args:?}");
        }
        assert_eq!(wishes(&["topic", "describe", "json"]).format, Format::Table);
        assert_eq!(wishes(&["--color", "never"]).color, Color::Never);
    }
}
