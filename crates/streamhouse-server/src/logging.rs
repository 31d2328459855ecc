//! Log lines: text for people, JSON for machines, to standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Libraries that say more than an operator wants to read, unless they are asked for by name, and from which level on
/// they are heard. openraft warns of every answer that a change of term has made void, also at the first start. The parts
/// of it that hand requests and answers to heartbeats over call it an error that it was stopped meanwhile, and that a
/// change of members waits for the one before; when it ends by itself the node says so.
const CHATTY: [(&str, &str); 8] = [
    ("openraft", "error"),
    ("openraft::core::heartbeat", "off"),
    ("openraft::raft::raft_inner", "off"),
    ("openraft::raft::stream_append", "off"),
    ("openraft::raft::api::management", "off"),
    ("hyper", "warn"),
    ("h2", "warn"),
    ("tonic", "warn"),
];

fn filter(level: &str) -> EnvFilter {
    let asked = |part: &str| part.split("::").next().is_some_and(|library| level.contains(library));
    let quiet = CHATTY.iter().filter(|(part, _)| !asked(part)).map(|(part, least)| format!("{part}={least}"));
    let directives: Vec<String> = quiet.chain([level.to_owned()]).collect();
    EnvFilter::builder().parse_lossy(directives.join(","))
}

/// Starts logging for the process. A second call changes nothing: the first one's settings stay.
pub fn start_logging(settings: &LogSettings) {
    // A log that nobody reads any more is no reason to panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.level))
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match settings.format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_asked_for() {
        let quiet = filter("info").to_string();
        assert!(
            quiet.contains("openraft=error") && quiet.contains("h2=warn") && quiet.contains("info"),
            "{quiet}"
        );
        let asked = filter("info,openraft=debug").to_string();
        assert!(
            asked.contains("openraft=debug") && !asked.contains("=error,") && !asked.contains("=off"),
            "{asked}"
        );
    }

    #[test]
    fn that_it_was_stopped_is_no_error_of_a_node_that_stops() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let log = folder.path().join("log");
        let writer = Arc::new(File::create(&log).expect("a file"));
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter("warn")).with_writer(writer);
        tracing::subscriber::with_default(subscriber.finish(), || {
            tracing::error!(target: "openraft::raft::stream_append", "stream_append: RaftCore stopped: has stopped");
            tracing::error!(target: "openraft::core::heartbeat::worker", "failed to send to RaftCore stopped");
            tracing::error!(target: "openraft::core::raft_core", "RaftCore::main error: the disk is full");
        });
        let written = std::fs::read_to_string(&log).expect("the log");
        assert!(written.contains("the disk is full") && !written.contains("RaftCore stopped"), "{written}");
    }
}
