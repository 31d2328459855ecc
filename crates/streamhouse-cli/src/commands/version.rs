//! `streamhouse version`.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Stop;

/// Print the versions of client and server
///
/// A server that does not answer is no error here: its version is unknown then.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  streamhouse version -o json")]
pub(crate) struct VersionArgs {
    /// Ask no server
    #[arg(long)]
    client: bool,
}

#[derive(Serialize)]
struct Versions {
    client: Version,
    server: Option<ServerVersion>,
    /// Why there is no server version.
    server_error: Option<String>,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    api: &'static str,
}

#[derive(Serialize)]
struct ServerVersion {
    version: String,
    commit: String,
    cluster_id: String,
    node_id: u64,
    /// Whether client and server are of the same version.
    same_version: bool,
}

pub(crate) async fn run(args: VersionArgs, context: &Context) -> Result<Exit, Stop> {
    let own = env!("CARGO_PKG_VERSION");
    let client = Version { version: own, commit: streamhouse_server::COMMIT, api: "streamhouse.v1" };
    let (server, server_error) = if args.client { (None, None) } else { ask(context, own).await? };
    let versions = Versions { client, server, server_error };
    context.output.result(&versions, |out| {
        writeln!(out, "client  {own}  {}", versions.client.commit)?;
        match (&versions.server, &versions.server_error) {
            (Some(server), _) => {
                let skew = if server.same_version { "" } else { "  (another version than the client)" };
                writeln!(out, "server  {}  {}{skew}", server.version, server.commit)
            }
            (None, Some(error)) => writeln!(out, "server  unknown: {error}"),
            (None, None) => Ok(()),
        }
    })?;
    Ok(Exit::Done)
}

async fn ask(context: &Context, own: &str) -> Result<(Option<ServerVersion>, Option<String>), Stop> {
    let asked = async {
        let house = context.connect().await?;
        context.call(house.admin().info()).await
    };
    match asked.await {
        Ok(info) => {
            let same_version = info.version == own;
            let server = ServerVersion {
                version: info.version,
                commit: info.commit,
                cluster_id: info.cluster_id,
                node_id: info.node.get(),
                same_version,
            };
            Ok((Some(server), None))
        }
        Err(Stop::Failed(failure)) => Ok((None, Some(failure.message))),
        Err(stop) => Err(stop),
    }
}
