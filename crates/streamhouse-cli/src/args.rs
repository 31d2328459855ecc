//! The root of the command tree and what all commands share.

use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Parser, Subcommand};

use crate::commands::{
    bench::BenchArgs, check::CheckArgs, cluster::ClusterCommand, completions::CompletionsArgs,
    consume::ConsumeArgs, dev::DevArgs, doctor::DoctorArgs, explain::ExplainArgs, group::GroupCommand,
    node::NodeCommand, produce::ProduceArgs, server::ServerArgs, storage::StorageCommand,
    topic::TopicCommand, version::VersionArgs,
};
use crate::failure::{Failure, Stop};
use crate::output::{Color, Format, Output, Talk};
use streamhouse_units::parse_span;

/// An event log whose only durable store is an object store.
#[derive(Debug, Parser)]
#[command(
    name = "streamhouse",
    version,
    about = "An event log whose only durable store is an object store",
    after_help = "First steps:\n  streamhouse dev\n  echo hello | streamhouse produce greetings\n  streamhouse consume greetings",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Address of the server; else that of the dev node in this directory, else 127.0.0.1:9094
    #[arg(long, global = true, value_name = "HOST:PORT", env = "STREAMHOUSE_SERVER")]
    pub(crate) server: Option<String>,
    /// Form of the result: table, json, or value (for consume)
    #[arg(short, long, global = true, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Option<Format>,
    /// Say nothing but the result and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Longest wait for an answer, such as 10s
    #[arg(long, global = true, value_name = "SPAN", value_parser = parse_patience)]
    pub(crate) timeout: Option<Duration>,
    /// Colours: auto, always or never; NO_COLOR is respected
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) color: Color,
}

/// What a command prints: one document, or records one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A table, or one JSON document.
    Document,
    /// The value of each record, or one JSON object for each.
    Records,
}

impl Globals {
    /// Where the results of a command of this shape go.
    ///
    /// # Errors
    /// When the form that was asked for is not one that the command has.
    pub(crate) fn output(&self, shape: Shape) -> Result<Output, Failure> {
        let talk = if self.quiet { Talk::Quiet } else { Talk::Normal };
        let format = match (shape, self.output) {
            (Shape::Document, None) => Format::Table,
            (Shape::Records, None) => Format::Value,
            (Shape::Document, Some(Format::Value)) => {
                return Err(Failure::usage("this command prints no records: -o takes table or json"));
            }
            (Shape::Records, Some(Format::Table)) => {
                return Err(Failure::usage("records are printed as they come: -o takes value or json"));
            }
            (_, Some(format)) => format,
        };
        Ok(Output { format, talk })
    }
}

/// The commands, in the order of their use. Most describe themselves where their arguments are.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(DevArgs),
    Server(ServerArgs),
    Produce(ProduceArgs),
    Consume(ConsumeArgs),
    /// Make, list, change and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// List, describe, move and delete consumer groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// List, drain and remove the nodes of the cluster
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look at the cluster as a whole
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Look into the object store
    #[command(subcommand)]
    Storage(StorageCommand),
    Bench(BenchArgs),
    Doctor(DoctorArgs),
    Check(CheckArgs),
    Version(VersionArgs),
    Completions(CompletionsArgs),
    Explain(ExplainArgs),
}

impl Command {
    /// Whether the command talks to a server.
    fn connects(&self) -> bool {
        match self {
            Self::Dev(_) | Self::Server(_) | Self::Check(_) | Self::Completions(_) | Self::Explain(_) => {
                false
            }
            Self::Storage(command) => command.connects(),
            Self::Produce(_)
            | Self::Consume(_)
            | Self::Topic(_)
            | Self::Group(_)
            | Self::Node(_)
            | Self::Cluster(_)
            | Self::Bench(_)
            | Self::Doctor(_)
            | Self::Version(_) => true,
        }
    }
}

/// A wait that ends before it begins would fail every call.
fn parse_patience(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => Err("must be longer than nothing, such as 10s".to_owned()),
        patience => Ok(patience),
    }
}

/// An option that is accepted and does nothing is worse than one that is refused.
pub(crate) fn refuse_what_would_be_ignored(cli: &Cli, matches: &ArgMatches) -> Result<(), Stop> {
    if cli.command.connects() {
        return Ok(());
    }
    for name in ["server", "timeout"] {
        if on_command_line(matches, name) {
            return Err(Failure::usage(format!("this command talks to no server: leave out --{name}")).into());
        }
    }
    Ok(())
}

fn on_command_line(matches: &ArgMatches, name: &str) -> bool {
    let here = matches.try_contains_id(name).unwrap_or(false)
        && matches.value_source(name) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, below)| on_command_line(below, name))
}
