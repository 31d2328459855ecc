//! `streamhouse server` and what looks at its configuration.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use streamhouse_server::{
    ConfigError, ConfigSources, DataDirError, EffectiveValue, EntryError, Preset, RunError, StartError,
    check_config, print_config,
};
use streamhouse_types::error_code::ErrorCode;

use crate::exit::Exit;
use crate::failure::{Failure, Stop, with_causes};
use crate::output::{Output, table};
use crate::settings::ServerSettings;
use streamhouse_units as units;

use super::dev::ReadyDocument;

/// Run a node, or look at its configuration
///
/// Settings come from flags, then from STREAMHOUSE_SECTION__KEY in the environment, then from the file, then from the
/// defaults. Unknown settings are refused. Secrets have no flags: they stand in the file or the environment.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  streamhouse server --config node.toml\n  streamhouse server --store.url s3://bucket/prefix --node.data-dir /var/lib/streamhouse\n  streamhouse server check-config --config node.toml"
)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    command: Option<ServerCommand>,
    #[command(flatten)]
    sources: SourceArgs,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Check the configuration without starting anything
    #[command(after_help = "Example:\n  streamhouse server check-config --config node.toml")]
    CheckConfig(SourceArgs),
    /// Print the settings in force and who set them; secrets are hidden
    #[command(after_help = "Example:\n  streamhouse server print-config --config node.toml --effective")]
    PrintConfig(PrintArgs),
}

#[derive(Debug, Args)]
struct PrintArgs {
    /// Every setting, not only those that somebody set
    #[arg(long)]
    effective: bool,
    #[command(flatten)]
    sources: SourceArgs,
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: ServerSettings,
}

impl SourceArgs {
    fn sources(self) -> ConfigSources {
        let mut sources = ConfigSources::of_process(Preset::Server);
        sources.file = self.config;
        sources.flags = self.settings.0;
        sources
    }
}

pub(crate) async fn run(args: ServerArgs, output: Output) -> Result<Exit, Stop> {
    match args.command {
        None => serve(args.sources.sources(), output).await,
        Some(ServerCommand::CheckConfig(args)) => check(&args.sources(), output),
        Some(ServerCommand::PrintConfig(args)) => print(args, output),
    }
}

async fn serve(sources: ConfigSources, output: Output) -> Result<Exit, Stop> {
    let greet = |ready: &streamhouse_server::Ready| {
        let line = format!(
            "ready in {}  kafka {}  grpc {}  internal {}  http {}",
            units::span(ready.elapsed),
            ready.addresses.kafka,
            ready.addresses.grpc,
            ready.addresses.internal,
            ready.addresses.http
        );
        // A node whose greeting nobody reads serves all the same.
        let _unread = output.result(&ReadyDocument::of(ready), |out| writeln!(out, "{line}"));
    };
    streamhouse_server::run_server(sources, greet).await.map_err(|error| start_failure(&error))?;
    Ok(Exit::Done)
}

/// Why a node did not start, or did not go on.
pub(super) fn start_failure(error: &RunError) -> Failure {
    let failure = Failure::of_code(error.code(), with_causes(error));
    match error {
        RunError::Start(StartError::Listen(_)) => {
            failure.hint("stop what listens there, or name another address; port 0 picks a free one")
        }
        RunError::Start(StartError::DataDir(DataDirError::Io { source, .. }))
            if !streamhouse_env::is_no_room(source) =>
        {
            failure.hint("look at the path and its rights, or choose another data directory")
        }
        RunError::Start(StartError::Raft(_)) if error.code() == ErrorCode::StorageCorrupt => {
            failure.hint("the store is not concerned: the data directory of this node is not whole")
        }
        RunError::Start(StartError::Entry(EntryError::Unreached { .. })) => {
            failure.hint("set listeners.advertised_internal to an address that the other nodes can reach")
        }
        RunError::Start(StartError::Entry(_)) if error.code() == ErrorCode::Unreachable => failure.hint(
            "cluster.seeds names the internal addresses of the other nodes: correct it, or start one of them",
        ),
        _ => failure,
    }
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
}

fn check(sources: &ConfigSources, output: Output) -> Result<Exit, Stop> {
    check_config(sources).map_err(|error| invalid(&error))?;
    output.result(&Checked { valid: true }, |out| writeln!(out, "the configuration is valid"))?;
    Ok(Exit::Done)
}

fn invalid(error: &ConfigError) -> Failure {
    Failure::of_code(ErrorCode::InvalidSetting, error.to_string())
}

#[derive(Serialize)]
struct Printed {
    settings: Vec<EffectiveValue>,
}

fn print(args: PrintArgs, output: Output) -> Result<Exit, Stop> {
    let mut settings = print_config(&args.sources.sources()).map_err(|error| invalid(&error))?;
    if !args.effective {
        settings.retain(|setting| setting.origin != "default");
    }
    let printed = Printed { settings };
    output.result(&printed, |out| {
        let mut rows = table(&["SETTING", "VALUE", "SET BY"]);
        for setting in &printed.settings {
            rows.add_row([setting.key, &setting.value.to_string(), &setting.origin]);
        }
        writeln!(out, "{rows}")
    })?;
    Ok(Exit::Done)
}
