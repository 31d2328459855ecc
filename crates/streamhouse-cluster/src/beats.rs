//! How a node shows the leader that it lives, and that it can write to the object store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use streamhouse_broker::{Broker, StoreAccess, WritesSeen};
use streamhouse_metadata::Liveness;
use streamhouse_proto::internal as pb;
use streamhouse_types::{Incarnation, LogIndex, NodeId, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::LeaseSettings;
use crate::clocks::Calendar;
use crate::cluster::Cluster;
use crate::lease::{Beat, BeatAnswer, BeatVerdict};

/// Beats that may wait for a slow connection; behind them it counts as dead.
const BEATS_WAITING: usize = 4;

/// How often a node looks whether it is to show that it can write.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// How long a write may take that shows it.
const PROVE_PATIENCE: Duration = Duration::from_secs(3);

/// Beats for as long as it runs.
pub struct Heart {
    cluster: Cluster,
    broker: Broker,
    settings: LeaseSettings,
    /// The leader has asked whether this node can write.
    asked: AtomicBool,
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
        Self { cluster, broker, settings, asked: AtomicBool::new(false) }
    }

    /// Beats to whoever leads, for ever.
    pub async fn run(self) {
        tokio::join!(self.beat_for_ever(), self.prove_writes());
    }

    async fn beat_for_ever(&self) {
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
                leader => {
                    if leader.is_some() {
                        self.beat_here().await;
                    }
                    self.pause(self.settings.beat, &mut leadership).await;
                }
            }
        }
    }

    /// Writes something that changes nothing while writes fail, so that it shows when they go through again, and when
    /// the leader asks and there was no other write lately.
    async fn prove_writes(&self) {
        loop {
            let WritesSeen { failing, succeeded } = self.broker.store_writes();
            let lately = succeeded.is_some_and(|ago| ago < PROVE_EVERY);
            if failing.is_some() || (self.asked.swap(false, Ordering::Relaxed) && !lately) {
                self.broker.prove_writes(PROVE_PATIENCE).await;
            }
            self.cluster.clock().sleep(PROVE_EVERY).await;
        }
    }

    /// The leader's own heart beats as the others do: it must write as they must.
    async fn beat_here(&self) {
        self.heed_judgement();
        let Some(beat) = self.beat() else { return };
        // Another may lead by now.
        if let Ok(answer) = self.cluster.controller().beat(beat).await {
            self.heed(beat.incarnation, answer);
        }
    }

    fn heed(&self, incarnation: Incarnation, answer: BeatAnswer) {
        if answer.verdict == BeatVerdict::Closed {
            self.broker.incarnation_closed(incarnation);
        }
        if answer.prove_writes {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// A node that counts as dead although it lives has lost its homes to others, which can store what waits here.
    fn heed_judgement(&self) {
        let fails = self.broker.store_writes().failing.is_some();
        let state = self.cluster.state();
        let dead =
            state.member(self.cluster.node()).is_some_and(|member| member.liveness() == Liveness::Dead);
        self.broker.set_store_access(if dead && fails { StoreAccess::CutOff } else { StoreAccess::Tried });
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
                self.heed_judgement();
                if let Some(beat) = self.beat() {
                    let beat = told(beat, sequence, clock.wall());
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
                    if let Some(incarnation) = self.broker.incarnation() {
                        let verdict = if answer.closed { BeatVerdict::Closed } else { BeatVerdict::Open };
                        self.heed(incarnation, BeatAnswer { verdict, prove_writes: answer.prove_writes });
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
    fn beat(&self) -> Option<Beat> {
        let incarnation = self.broker.incarnation()?;
        let clock = self.cluster.clock();
        Some(Beat {
            node: self.cluster.node(),
            incarnation,
            applied: self.broker.read_token(),
            pinned: self.pinned(),
            calendar: Some(Calendar::of(clock.wall(), clock.now())),
            writes: self.broker.store_writes(),
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

/// A beat as it goes over the wire.
fn told(beat: Beat, sequence: u64, now: Timestamp) -> pb::Beat {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    pb::Beat {
        node_id: beat.node.get(),
        incarnation: beat.incarnation.get(),
        applied_index: beat.applied.get(),
        pinned_index: beat.pinned.get(),
        sequence,
        now_ms: now.as_millis(),
        writes_failing_ms: beat.writes.failing.map(millis),
        writes_succeeded_ms: beat.writes.succeeded.map(millis),
    }
}

fn is_closed(cluster: &Cluster, node: NodeId, incarnation: Incarnation) -> bool {
    let state = cluster.state();
    state.node(node).is_some_and(|entry| {
        entry.incarnation() > incarnation || (entry.incarnation() == incarnation && !entry.is_open())
    })
}
