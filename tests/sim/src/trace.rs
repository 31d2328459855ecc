//! Logs of a run, in the simulation's time.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::coverage::{Coverage, LogLines};

struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        write!(writer, "{:>12.6}", now.as_secs_f64())
    }
}

/// Counts log lines from now on, and writes those that `filter` lets through to `file`.
///
/// # Errors
/// When the file cannot be made, or the filter makes no sense.
pub(crate) fn start(file: Option<&Path>, filter: &str) -> anyhow::Result<()> {
    let ours = Targets::new().with_target("streamhouse", LevelFilter::DEBUG);
    let ours = ["broker", "client", "cluster", "metadata", "raft", "server", "storage"]
        .into_iter()
        .fold(ours, |targets, name| targets.with_target(format!("streamhouse_{name}"), LevelFilter::DEBUG));
    let counted = LogLines(Coverage::of_process()).with_filter(ours);
    let registry = tracing_subscriber::registry().with(counted);
    match file {
        None => tracing::subscriber::set_global_default(registry)?,
        Some(path) => {
            let file = io::LineWriter::new(File::create(path)?);
            let lines = tracing_subscriber::fmt::layer()
                .with_timer(SimTime)
                .with_ansi(false)
                .with_writer(Mutex::new(file))
                .with_filter(EnvFilter::try_new(filter)?);
            tracing::subscriber::set_global_default(registry.with(lines))?;
        }
    }
    metrics::set_global_recorder(Coverage::of_process()).map_err(|error| anyhow::anyhow!("{error}"))
}
