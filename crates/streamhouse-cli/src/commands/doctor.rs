//! `streamhouse doctor`.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use streamhouse_doctor::{Options, Verdict, advise, examine};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Stop;

/// Find out whether Kafka clients can use a cluster from here, and what to change. Exit 7 if they cannot
///
/// Goes the way of a client: dials the first address, asks what is answered there and which nodes there are, and dials each
/// of their advertised addresses. Then asks the nodes over gRPC (--server) which clients are held back by their own settings.
/// Changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  streamhouse doctor --bootstrap kafka.example:9092")]
pub(crate) struct DoctorArgs {
    /// Address of a Kafka listener, or several with commas between, as clients have them in bootstrap.servers
    #[arg(long, value_name = "HOST:PORT,...", default_value = "127.0.0.1:9092")]
    bootstrap: String,
}

pub(crate) async fn run(args: DoctorArgs, context: &Context) -> Result<Exit, Stop> {
    let patience = context.timeout.unwrap_or(Duration::from_secs(5));
    let options = Options { bootstrap: args.bootstrap, patience };
    let mut report = context.or_interrupt(examine(&context.env, &options)).await?;
    // Without the cluster it is not known whose clients are meant.
    if report.cluster_id.is_some() {
        let server = context.address()?;
        context.or_interrupt(advise(&context.env, &server, patience, &mut report)).await?;
    }
    context.output.result(&report, |out| write!(out, "{report}"))?;
    Ok(if report.verdict() == Verdict::Fail { Exit::CheckFailed } else { Exit::Done })
}
