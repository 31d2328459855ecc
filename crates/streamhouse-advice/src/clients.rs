//! The clients that produce less than they could, as they wait for answers most of the time: what holds each back, told
//! in a metric, in the log once, and to whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics;
use crate::window::{Ceiling, Next, Window};

/// Most clients that are named in the metric and in the log, over the life of a node: names are clients' own choice.
const NAMED_MAX: usize = 50;
/// How often a connection's ceiling is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Batches of this size or more are large enough; with them it is requests in flight that are too few.
const LARGE_BATCH: f64 = 256.0 * 1024.0;

/// A client that is held back by the way it produces.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldBack {
    /// Its name, as it gives it; empty where it gives none.
    pub client: Arc<str>,
    /// How many of its connections are held back.
    pub connections: u32,
    /// Requests that a connection leaves unanswered.
    pub requests: u32,
    /// Mean size of its batches, in bytes.
    pub batch_bytes: u64,
    /// Mean time from a request to its answer.
    pub answer: Duration,
    /// What all its connections can produce at most that way.
    pub bytes_per_second: u64,
    /// What to change, in a sentence.
    pub advice: String,
}

/// See the module. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    next: u64,
    /// What holds back each client's connections.
    held_back: BTreeMap<Arc<str>, BTreeMap<u64, Ceiling>>,
    /// Clients with a name in the metric.
    named: BTreeSet<Arc<str>>,
}

impl Clients {
    /// The clients that have been waiting for answers for ten seconds or more, and what holds each back, in the order of
    /// their names.
    #[must_use]
    pub fn held_back(&self) -> Vec<HeldBack> {
        let known = self.0.lock();
        known.held_back.iter().filter_map(|(client, connections)| held_back(client, connections)).collect()
    }

    /// Notes what holds a connection back, or that nothing does.
    fn note(&self, client: &Arc<str>, connection: u64, ceiling: Option<Ceiling>) {
        let mut known = self.0.lock();
        if ceiling.is_none() && !known.held_back.contains_key(client) {
            return;
        }
        let connections = known.held_back.entry(Arc::clone(client)).or_default();
        match ceiling {
            Some(ceiling) => drop(connections.insert(connection, ceiling)),
            None => drop(connections.remove(&connection)),
        }
        let said = held_back(client, connections);
        if said.is_none() {
            known.held_back.remove(client);
        }
        let is_new =
            known.named.len() < NAMED_MAX && said.is_some() && known.named.insert(Arc::clone(client));
        if let (true, Some(said)) = (is_new, &said) {
            tracing::warn!(client = &**client, bytes_per_second = said.bytes_per_second, "{}", said.advice);
        }
        if known.named.contains(client) {
            metrics::ceiling(client, said.map_or(0, |said| said.bytes_per_second));
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive estimates; a cast of a float saturates"
)]
fn held_back(client: &Arc<str>, connections: &BTreeMap<u64, Ceiling>) -> Option<HeldBack> {
    let tightest =
        connections.values().min_by(|a, b| a.bytes_per_second().total_cmp(&b.bytes_per_second()))?;
    let all: f64 = connections.values().map(Ceiling::bytes_per_second).sum();
    Some(HeldBack {
        client: Arc::clone(client),
        connections: u32::try_from(connections.len()).unwrap_or(u32::MAX),
        requests: tightest.requests,
        batch_bytes: tightest.batch_bytes as u64,
        answer: Duration::from_secs_f64(tightest.answer_seconds.max(0.0)),
        bytes_per_second: all as u64,
        advice: advice(client, tightest, all),
    })
}

fn advice(client: &str, tightest: &Ceiling, all: f64) -> String {
    let Ceiling { requests, batch_bytes, answer_seconds, .. } = *tightest;
    let change = if batch_bytes < LARGE_BATCH {
        "set linger.ms=100 and batch.size=1048576"
    } else {
        "let it have more requests in flight, up to max.in.flight.requests.per.connection=5"
    };
    format!(
        "client `{client}` is limited to {:.2} MiB/s by batches of {:.1} KiB, {requests} requests in flight and {:.0} ms for an answer: {change}",
        all / f64::from(1 << 20),
        batch_bytes / 1024.0,
        answer_seconds * 1_000.0,
    )
}

/// One connection, as far as it produces. When it goes away, it holds back nobody.
#[derive(Debug)]
pub struct Watch<'a> {
    clients: &'a Clients,
    connection: u64,
    state: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    window: Window,
    client: Option<Arc<str>>,
    looked: Duration,
}

impl<'a> Watch<'a> {
    /// Watches one more connection.
    #[must_use]
    pub fn new(clients: &'a Clients) -> Self {
        let mut known = clients.0.lock();
        known.next += 1;
        Self { clients, connection: known.next, state: Mutex::default() }
    }

    /// A request that wants an answer has come. Tells when the next may come.
    pub fn arrived(&self, client: &str, now: Duration, bytes: usize, batches: usize) -> Next {
        let mut state = self.state.lock();
        if state.client.is_none() {
            state.client = Some(client.into());
        }
        state.window.arrived(now, bytes, batches);
        state.window.next()
    }

    /// Its answer has left.
    pub fn answered(&self, now: Duration, took: Duration) {
        let mut state = self.state.lock();
        state.window.answered(now, took);
        if now.saturating_sub(state.looked) < LOOK_EVERY {
            return;
        }
        state.looked = now;
        if let Some(client) = &state.client {
            self.clients.note(client, self.connection, state.window.ceiling(now));
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(client) = &self.state.lock().client {
            self.clients.note(client, self.connection, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that waits for every answer, for twelve seconds.
    fn busy<'a>(clients: &'a Clients, client: &str, bytes: usize) -> Watch<'a> {
        let watch = Watch::new(clients);
        for tick in 0..60 {
            let now = Duration::from_millis(200 * tick);
            watch.arrived(client, now, bytes, 1);
            let took = Duration::from_millis(200);
            watch.answered(now + took, took);
        }
        watch
    }

    #[test]
    fn a_client_is_told_what_to_change_as_long_as_it_is_there() {
        let clients = Clients::default();
        let connections = [busy(&clients, "billing", 16 << 10), busy(&clients, "billing", 16 << 10)];
        let large = busy(&clients, "loader", 1 << 20);
        let [billing, loader] = &clients.held_back()[..] else { panic!("{:?}", clients.held_back()) };
        assert_eq!((billing.connections, billing.requests, billing.batch_bytes), (2, 1, 16 << 10));
        assert_eq!(billing.bytes_per_second, 2 * (16 << 10) * 5);
        assert!(
            billing.advice.contains("0.16 MiB/s") && billing.advice.contains("batch.size"),
            "{billing:?}"
        );
        assert!(loader.advice.contains("max.in.flight"), "{loader:?}");
        drop((connections, large));
        assert_eq!(clients.held_back(), []);
    }

    #[test]
    fn only_so_many_names_get_into_the_metric() {
        let clients = Clients::default();
        for number in 0..NAMED_MAX + 10 {
            drop(busy(&clients, &format!("client {number}"), 1_000));
        }
        assert_eq!(clients.0.lock().named.len(), NAMED_MAX);
        assert!(clients.0.lock().held_back.is_empty());
    }
}
