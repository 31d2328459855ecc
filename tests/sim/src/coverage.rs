//! What a run has been through: log lines by their fixed text, metrics, and what clients were told, all counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;
use streamhouse_client::ClientError;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};

#[derive(Debug, Default)]
struct Counts {
    /// By text.
    texts: Mutex<BTreeMap<String, u64>>,
    /// By name and labels.
    metrics: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

/// The counts of this process. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Coverage(Arc<Counts>);

impl Coverage {
    pub(crate) fn of_process() -> Self {
        static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();
        Self(COUNTS.get_or_init(Arc::default).clone())
    }

    pub(crate) fn count(&self, what: &str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: &str, times: u64) {
        let mut texts = self.0.texts.lock();
        match texts.get_mut(what) {
            Some(count) => *count += times,
            None => drop(texts.insert(what.to_owned(), times)),
        }
    }

    /// A client was told an error.
    pub(crate) fn error(&self, what: &str, error: &dyn ClientError) {
        let code = error.code().map_or("none", |code| code.reason());
        let happened = if error.may_have_happened() { " (may have happened)" } else { "" };
        tracing::debug!(what, code, error = crate::node::chain(error), "client was told");
        self.count(&format!("client: {what} {code}{happened}"));
        if what == "send" && !error.may_have_happened() {
            self.count("a write surely did not happen");
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let mut all = self.0.texts.lock().clone();
        for (name, count) in &*self.0.metrics.lock() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                all.insert(format!("metric: {name}"), count);
            }
        }
        all
    }
}

/// Counts log lines.
pub(crate) struct LogLines(pub(crate) Coverage);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("log: {value:?}");
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        if !message.0.is_empty() {
            self.0.count(&message.0);
        }
    }
}

/// Counts what counters count; gauges and histograms are passed over.
impl Recorder for Coverage {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<String> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Counter::from_arc(self.0.metrics.lock().entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
