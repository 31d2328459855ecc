//! `streamhouse completions`.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Stop;
use crate::output::Output;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  streamhouse completions bash > ~/.local/share/bash-completion/completions/streamhouse\n  streamhouse completions zsh > ~/.zfunc/_streamhouse"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Serialize)]
struct Completions {
    shell: String,
    script: String,
}

pub(crate) fn run(args: &CompletionsArgs, output: Output) -> Result<Exit, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "streamhouse", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let completions = Completions { shell: args.shell.to_string(), script };
    output.result(&completions, |out| out.write_all(completions.script.as_bytes()))?;
    Ok(Exit::Done)
}
