//! The server as a program, for benchmarks and scripts. It prints its addresses as one line of JSON.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use streamhouse_faults::{Delay, FaultPlan, FaultServer, Op, Place, ServerOptions};

/// An S3 server that fails on purpose. Any access key is taken.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where S3 is spoken; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where faults are controlled (GET and POST /_faults).
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// A bucket that is there from the start; may be given more than once.
    #[arg(long = "bucket", default_value = "bucket")]
    buckets: Vec<String>,
    /// How long writes take besides the work itself (median).
    #[arg(long, value_parser = humantime::parse_duration)]
    put_delay: Option<Duration>,
    /// 99th percentile of the delay of writes; delays are then log-normal.
    #[arg(long, value_parser = humantime::parse_duration, requires = "put_delay")]
    put_p99: Option<Duration>,
    /// How long reads take besides the work itself (median).
    #[arg(long, value_parser = humantime::parse_duration)]
    get_delay: Option<Duration>,
    /// 99th percentile of the delay of reads.
    #[arg(long, value_parser = humantime::parse_duration, requires = "get_delay")]
    get_p99: Option<Duration>,
    /// What fails, as JSON such as {"put": {"faults": {"fail_after": 0.1}}}.
    #[arg(long)]
    plan: Option<String>,
    /// Decides the faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Keeps objects as files in this folder, for runs that do not fit into memory.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Most MiB of objects in memory.
    #[arg(long, default_value_t = 4_096)]
    memory_mib: u64,
}

fn delay(median: Option<Duration>, p99: Option<Duration>) -> Option<Delay> {
    let millis = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    median.map(|median| Delay { median_ms: millis(median), p99_ms: p99.map(millis) })
}

impl Args {
    fn options(self) -> anyhow::Result<ServerOptions> {
        let mut plan: FaultPlan = match &self.plan {
            Some(text) => serde_json::from_str(text).context("--plan cannot be read")?,
            None => FaultPlan::new(),
        };
        for (op, delay) in
            [(Op::Put, delay(self.put_delay, self.put_p99)), (Op::Get, delay(self.get_delay, self.get_p99))]
        {
            if delay.is_some() {
                plan.entry(op).or_default().delay = delay;
            }
        }
        let place = match self.folder {
            Some(folder) => {
                std::fs::create_dir_all(&folder).context("--folder cannot be made")?;
                Place::Folder(folder)
            }
            None => Place::Memory { cap_bytes: self.memory_mib << 20 },
        };
        let Self { listen, control, buckets, seed, .. } = self;
        Ok(ServerOptions { listen, control, buckets, place, seed, plan })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Args::parse().options()?;
    let buckets = options.buckets.clone();
    let server = FaultServer::start(options).await.context("cannot listen")?;
    let addresses =
        serde_json::json!({ "s3": server.endpoint(), "control": server.control_url(), "buckets": buckets });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{addresses}").and_then(|()| stdout.flush()).context("cannot print the addresses")?;
    tokio::signal::ctrl_c().await.context("cannot wait for a signal")
}
