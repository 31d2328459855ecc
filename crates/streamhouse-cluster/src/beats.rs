//! How a node shows the leader that it lives.

use std::time::Duration;

use streamhouse_broker::Broker;
use streamhouse_proto::internal as pb;
use streamhouse_types::{Incarnation, LogIndex, NodeId};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::LeaseSettings;
use crate::cluster::Cluster;

/// Beats that may wait for a slow connection; behind them it counts as dead.
const BEATS_WAITING: usize = 4;

/// Beats for as long as it runs.
pub struct Heart {
    cluster: Cluster,
    broker: Broker,
    settings: LeaseSettings,
}

/// An open stream of beats.
struct Stream {
    beats: mpsc::Sender<pb::Beat>,
    answers: Streaming<pb::BeatAnswer>,
}

impl Heart {
    /// A heart for this node.
    #[must_use]
    pub fn new(cluster: Cluster, broker: Broker, settings: LeaseSettings) -> Self {
        Self { cluster, broker, settings }
    }

    /// Beats to whoever leads, for ever.
    pub async fn run(self) {
        let mut leadership = self.cluster.raft().leadership();
        loop {
            self.register_again_when_closed();
            let leader = leadership.borrow_and_update().leader.clone();
            match leader {
                Some((leader, address)) if leader != self.cluster.node() => {
                    if let Err(error) = self.beat_to(&address, &mut leadership).await {
                        tracing::debug!(%leader, %error, "the leader does not hear this node");
                        self.cluster.peers().drop_connection(&address);
                    }
                    self.pause(self.settings.beat / 2, &mut leadership).await;
                }
                _ => self.pause(self.settings.beat, &mut leadership).await,
            }
        }
    }

    /// Waits a little, or until another leads.
    async fn pause<T>(&self, span: Duration, leadership: &mut watch::Receiver<T>) {
        tokio::select! {
            _ = leadership.changed() => {}
            () = self.cluster.clock().sleep(span) => {}
        }
    }

    /// Beats to one leader until another leads.
    async fn beat_to<T>(&self, address: &str, leadership: &mut watch::Receiver<T>) -> Result<(), Status> {
        let mut stream = self.open(address).await?;
        let clock = self.cluster.clock();
        let mut sequence = 0;
        let mut heard = clock.now();
        let mut next = clock.now();
        loop {
            if clock.now() >= next {
                self.register_again_when_closed();
                if let Some(beat) = self.beat(sequence) {
                    stream.beats.try_send(beat).map_err(|_| Status::unavailable("beats wait"))?;
                    sequence += 1;
                }
                next = clock.now() + self.settings.beat;
            }
            // A connection that gives no answers would cost the lease.
            if clock.now().saturating_sub(heard) > self.settings.lease {
                return Err(Status::deadline_exceeded("beats are not answered"));
            }
            tokio::select! {
                answer = stream.answers.message() => {
                    let answer = answer?.ok_or_else(|| Status::unavailable("the stream ended"))?;
                    heard = clock.now();
                    if answer.closed && let Some(incarnation) = self.broker.incarnation() {
                        self.broker.incarnation_closed(incarnation);
                    }
                }
                _ = leadership.changed() => return Ok(()),
                () = clock.sleep_until(next) => {}
            }
        }
    }

    async fn open(&self, address: &str) -> Result<Stream, Status> {
        let Some(mut client) = self.cluster.peers().client(address) else {
            return Err(Status::invalid_argument(format!("`{address}` is no address")));
        };
        let (beats, queue) = mpsc::channel(BEATS_WAITING);
        let opened = tokio::select! {
            opened = client.heartbeat(ReceiverStream::new(queue)) => opened?,
            () = self.cluster.clock().sleep(self.settings.lease) => {
                return Err(Status::deadline_exceeded("no answer in time"));
            }
        };
        Ok(Stream { beats, answers: opened.into_inner() })
    }

    /// `None` while the node is being registered: it has nothing to show.
    fn beat(&self, sequence: u64) -> Option<pb::Beat> {
        let incarnation = self.broker.incarnation()?;
        Some(pb::Beat {
            node_id: self.cluster.node().get(),
            incarnation: incarnation.get(),
            applied_index: self.broker.read_token().get(),
            pinned_index: self.pinned().get(),
            sequence,
            now_ms: self.cluster.clock().wall().as_millis(),
        })
    }

    /// What died at or before this is read neither here nor by the readers that follow this node.
    fn pinned(&self) -> LogIndex {
        let own = self.broker.pinned();
        self.cluster.feed().pinned().map_or(own, |readers| own.min(readers))
    }

    /// A node whose incarnation was closed while nothing was written hears of it from the metadata.
    fn register_again_when_closed(&self) {
        let Some(incarnation) = self.broker.incarnation() else { return };
        if is_closed(&self.cluster, self.cluster.node(), incarnation) {
            self.broker.incarnation_closed(incarnation);
        }
    }
}

fn is_closed(cluster: &Cluster, node: NodeId, incarnation: Incarnation) -> bool {
    let state = cluster.state();
    state.node(node).is_some_and(|entry| {
        entry.incarnation() > incarnation || (entry.incarnation() == incarnation && !entry.is_open())
    })
}
