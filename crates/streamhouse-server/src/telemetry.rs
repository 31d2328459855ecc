//! Metrics: one recorder for the process, joined from the tables of all crates.

use std::fmt::Write as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::health::Health;

/// Latencies in seconds: dense where object stores live.
const LATENCY: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Bytes of batches and objects.
const BYTES: &[f64] = &[
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    8_388_608.0,
    67_108_864.0,
];
/// Records, partitions and the like.
const COUNTS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 5_000.0, 10_000.0, 100_000.0];

/// One row of a table: name, kind and help.
type Described = (&'static str, &'static str, &'static str);

/// The metrics of this crate: name, kind and help.
pub(crate) const METRICS: &[Described] = &[
    (CONNECTIONS, "gauge", "Open connections, by listener."),
    (DRAIN_STAGE_SECONDS, "gauge", "Time that each stage of the last drain took, by stage, in seconds."),
];

pub(crate) const CONNECTIONS: &str = "streamhouse_connections";
pub(crate) const DRAIN_STAGE_SECONDS: &str = "streamhouse_drain_stage_seconds";

/// The tables of all crates.
fn tables() -> impl Iterator<Item = Described> {
    let raft = streamhouse_raft::metrics::ALL.iter().map(|metric| {
        let kind = match metric.kind {
            streamhouse_raft::metrics::Kind::Counter => "counter",
            streamhouse_raft::metrics::Kind::Gauge => "gauge",
            streamhouse_raft::metrics::Kind::Histogram => "histogram",
        };
        (metric.name, kind, metric.help)
    });
    let others = [
        METRICS,
        streamhouse_grpc::metrics::METRICS,
        streamhouse_storage::metrics::METRICS,
        streamhouse_broker::metrics::METRICS,
        streamhouse_groups::metrics::METRICS,
        streamhouse_kafka::metrics::METRICS,
        streamhouse_advice::metrics::METRICS,
        streamhouse_cluster::metrics::METRICS,
    ];
    others.into_iter().flatten().copied().chain(raft)
}

/// A builder with buckets for every histogram: one without would become a summary.
fn builder() -> PrometheusBuilder {
    let histograms = tables().filter(|(_, kind, _)| *kind == "histogram");
    histograms.fold(PrometheusBuilder::new(), |builder, (name, ..)| {
        let buckets = match name {
            name if name.ends_with("_seconds") => LATENCY,
            name if name.ends_with("_bytes") => BYTES,
            _ => COUNTS,
        };
        let matcher = Matcher::Full(name.to_owned());
        builder.set_buckets_for_metric(matcher, buckets).expect("there are buckets")
    })
}

fn describe() {
    for (name, kind, help) in tables() {
        match kind {
            "counter" => metrics::describe_counter!(name, help),
            "gauge" => metrics::describe_gauge!(name, help),
            _ => metrics::describe_histogram!(name, help),
        }
    }
}

/// The process's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Telemetry {
    handle: PrometheusHandle,
}

impl Telemetry {
    /// The metrics of this process; the first call starts recording.
    #[must_use]
    pub fn of_process() -> Self {
        static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = RECORDER.get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            // Somebody else's recorder stays; then ours has nothing to show.
            drop(metrics::set_global_recorder(recorder));
            describe();
            handle
        });
        Self { handle: handle.clone() }
    }

    /// Moves recorded samples into their buckets. To be called every few seconds, else they pile up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The page for Prometheus.
    #[must_use]
    pub fn render(&self, health: &Health) -> String {
        let mut page = self.handle.render();
        let version = env!("CARGO_PKG_VERSION");
        let mut line = |name: &str, kind: &str, help: &str, rows: &[(String, f64)]| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        };
        let commit = crate::COMMIT;
        let build = format!("{{version=\"{version}\",commit=\"{commit}\"}}");
        line("streamhouse_build_info", "gauge", "What runs here.", &[(build, 1.0)]);
        let states = ["starting", "ready", "draining"].map(|state| {
            let value = if health.state() == state { 1.0 } else { 0.0 };
            (format!("{{state=\"{state}\"}}"), value)
        });
        line("streamhouse_node_state", "gauge", "1 for the state the node is in.", &states);
        let silences: Vec<_> = health
            .silences()
            .into_iter()
            .map(|(name, seconds)| (format!("{{loop=\"{name}\"}}"), seconds))
            .collect();
        line(
            "streamhouse_watchdog_stalled_seconds",
            "gauge",
            "Time since a watched loop came round.",
            &silences,
        );
        if let Some(process) = Process::read() {
            let plain = |value| [(String::new(), value)];
            let bytes = plain(process.resident_bytes);
            line("process_resident_memory_bytes", "gauge", "Resident memory.", &bytes);
            let seconds = plain(process.cpu_seconds);
            line("process_cpu_seconds_total", "counter", "CPU time, user and system.", &seconds);
            line("process_open_fds", "gauge", "Open files.", &plain(process.open_files));
        }
        page
    }
}

/// What the system says of this process.
struct Process {
    resident_bytes: f64,
    cpu_seconds: f64,
    open_files: f64,
}

impl Process {
    /// `None` where there is no `/proc`.
    fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything, so fields count from its end: utime and stime are 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
        const TICKS_PER_SECOND: f64 = 100.0;
        let cpu_seconds = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        let open_files = f64::from(u32::try_from(open_files).unwrap_or(u32::MAX));
        Some(Self { resident_bytes: kib * 1024.0, cpu_seconds, open_files })
    }
}
