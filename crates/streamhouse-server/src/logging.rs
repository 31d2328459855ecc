//! Log lines: text for people, JSON for machines, to standard error.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Whether a level setting can be used.
///
/// # Errors
/// With what is wrong about it.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    EnvFilter::builder().parse(level).map(drop).map_err(|error| error.to_string())
}

/// Starts logging for the process. A second call changes nothing: the first one's settings stay.
pub fn start_logging(settings: &LogSettings) {
    let filter = EnvFilter::builder().parse_lossy(&settings.level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
}
