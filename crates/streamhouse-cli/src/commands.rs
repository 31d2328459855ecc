//! The commands, one file per group.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod group;
pub(crate) mod node;
pub(crate) mod produce;
pub(crate) mod server;
pub(crate) mod storage;
pub(crate) mod topic;
pub(crate) mod version;

use crate::args::{Command, Globals, Shape};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, LocalCode, Stop};

/// Runs one command to its end.
///
/// # Errors
/// When it cannot do what was asked.
pub(crate) fn execute(command: Command, globals: &Globals) -> Result<Exit, Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(LocalCode::Failed, format!("the runtime does not start: {error}")))?;
    let ended = runtime.block_on(Box::pin(dispatch(command, globals)));
    // What still runs ends with the process, all at once: a read of standard input that nobody waits for any more must not
    // keep it alive, and tasks of a failed node that were ended one after the other would answer for each other's end.
    std::mem::forget(runtime);
    ended
}

async fn dispatch(command: Command, globals: &Globals) -> Result<Exit, Stop> {
    let documents = || Context::new(globals, Shape::Document);
    match command {
        Command::Dev(args) => Box::pin(dev::run(args, globals.output(Shape::Document)?)).await,
        Command::Server(args) => Box::pin(server::run(args, globals.output(Shape::Document)?)).await,
        Command::Produce(args) => Box::pin(produce::run(args, &documents()?)).await,
        Command::Consume(args) => Box::pin(consume::run(args, &Context::new(globals, Shape::Records)?)).await,
        Command::Topic(command) => Box::pin(topic::run(command, &documents()?)).await,
        Command::Group(command) => Box::pin(group::run(command, &documents()?)).await,
        Command::Node(command) => Box::pin(node::run(command, &documents()?)).await,
        Command::Cluster(command) => Box::pin(cluster::run(command, &documents()?)).await,
        Command::Storage(command) => Box::pin(storage::run(command, &documents()?)).await,
        Command::Bench(args) => Box::pin(bench::run(args, &documents()?)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, &documents()?)).await,
        Command::Check(args) => check::run(&args, globals.output(Shape::Document)?),
        Command::Version(args) => Box::pin(version::run(args, &documents()?)).await,
        Command::Completions(args) => completions::run(&args, globals.output(Shape::Document)?),
        Command::Explain(args) => explain::run(&args, globals.output(Shape::Document)?),
    }
}
