//! The metadata log of the broker, with Raft behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use streamhouse_broker::metadata::{Changes, Command, Outcome, State};
use streamhouse_broker::{HighWatermarks, MetadataLog, ProposeError, ReadIndexError};
use streamhouse_cluster::{AgreedTime, Feed, is_near};
use streamhouse_env::Clock;
use streamhouse_raft::{ApplyObserver, LeaderCommands, RaftNode};
use streamhouse_types::{LogIndex, Timestamp};
use tokio::sync::watch;

/// Cluster time may be this far behind the leader's clock before a tick goes along with a proposal.
const TIME_LAG_MAX: Duration = Duration::from_secs(1);
/// How far one tick moves cluster time at most.
const TICK_MAX: Duration = Duration::from_secs(600);
/// Ticks in one proposal, when the cluster was stopped for long.
const TICKS_AT_ONCE: usize = 1_000;

/// Raft as the broker wants it.
#[derive(Clone)]
pub(crate) struct RaftLog {
    raft: RaftNode,
    clock: Arc<dyn Clock>,
    ticks: Ticks,
}

impl RaftLog {
    pub(crate) fn new(raft: RaftNode, clock: Arc<dyn Clock>, time: AgreedTime) -> Self {
        let ticks = Ticks::new(Arc::clone(&clock), time);
        Self { raft, clock, ticks }
    }

    /// Whether a majority of the voters agrees with this node, or with the leader that it knows, within `patience`.
    pub(crate) async fn is_in_touch(&self, patience: Duration) -> bool {
        tokio::select! {
            read = self.raft.read_index() => read.is_ok(),
            () = self.clock.sleep(patience) => false,
        }
    }

    /// Its voters, for people.
    pub(crate) fn voters(&self) -> String {
        voters(&self.raft)
    }

    /// Brings cluster time to what it is. After a long stop that takes many ticks, which must not delay the
    /// first write; on an idle node it keeps time going.
    pub(crate) async fn catch_up_time(&self) {
        while self.raft.is_leader() {
            let ticks = self.ticks.due(&self.raft.state());
            if ticks.is_empty() {
                return;
            }
            let outcomes = self.raft.propose(ticks).await;
            if outcomes.iter().any(Result::is_err) {
                return;
            }
        }
    }
}

/// The voters of a metadata log and where they are, for people.
pub(crate) fn voters(raft: &RaftNode) -> String {
    let voters = raft.members().into_iter().filter(|member| member.is_voter);
    let named = voters.map(|member| format!("n{} at {}", member.node, member.address));
    named.collect::<Vec<_>>().join(", ")
}

fn ticks_between(time: Timestamp, now: Timestamp) -> Vec<Command> {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let lag = now.as_millis().saturating_sub(time.as_millis());
    // Time 0 is a cluster that has no identity yet: its first command brings the time.
    if time.as_millis() <= 0 || lag <= millis(TIME_LAG_MAX) {
        return Vec::new();
    }
    let steps = usize::try_from(lag / millis(TICK_MAX)).unwrap_or(TICKS_AT_ONCE).saturating_add(1);
    vec![Command::Tick { now }; steps.min(TICKS_AT_ONCE)]
}

#[async_trait]
impl MetadataLog for RaftLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        let outcomes = self.raft.propose(commands).await;
        outcomes.into_iter().map(|outcome| outcome.map_err(told)).collect()
    }

    fn state(&self) -> State {
        self.raft.snapshot()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        look(&self.raft.state());
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        let mut applied = self.raft.applied();
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| *applied >= index) => reached.is_ok(),
            () = self.clock.sleep_until(deadline) => false,
        }
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        self.raft.read_index().await.map_err(|error| ReadIndexError { reason: error.to_string() })
    }
}

fn told(error: streamhouse_raft::ProposeError) -> ProposeError {
    let reason = error.to_string();
    match error {
        streamhouse_raft::ProposeError::NotHappened { .. }
        | streamhouse_raft::ProposeError::TooLarge { .. }
        | streamhouse_raft::ProposeError::Stopped => ProposeError::NotHappened { reason },
        streamhouse_raft::ProposeError::Unknown => ProposeError::Unknown { reason },
    }
}

/// Cluster time, as the leader moves it with what is proposed.
#[derive(Clone)]
pub(crate) struct Ticks {
    clock: Arc<dyn Clock>,
    time: AgreedTime,
}

impl Ticks {
    pub(crate) fn new(clock: Arc<dyn Clock>, time: AgreedTime) -> Self {
        Self { clock, time }
    }
}

impl LeaderCommands for Ticks {
    /// The ticks that bring cluster time to what most clocks show; none while the lag is small. A leader that does not
    /// know the others' clocks yet moves time by its own, but not far.
    fn due(&self, state: &State) -> Vec<Command> {
        let time = state.cluster_time();
        match self.time.now(&*self.clock) {
            Some(now) => ticks_between(time, now),
            None => {
                let now = self.clock.wall();
                let near = is_near(now.as_millis().saturating_sub(time.as_millis()));
                if near { ticks_between(time, now) } else { Vec::new() }
            }
        }
    }
}

/// What follows each apply: the broker's waiters wake, and whoever looks after nodes and homes sees that they changed.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    watermarks: HighWatermarks,
    version: Arc<AtomicU64>,
    moved: watch::Sender<u64>,
    feed: Feed,
}

impl Waker {
    pub(crate) fn new(watermarks: HighWatermarks) -> Self {
        Self { watermarks, ..Self::default() }
    }

    /// Counts the changes of nodes, topics and homes.
    pub(crate) fn version(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.version)
    }

    /// What is applied here, for readers.
    pub(crate) fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Changes whenever homes or nodes have.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    fn changed(&self) {
        let version = self.version.fetch_add(1, Ordering::AcqRel) + 1;
        self.moved.send_replace(version);
    }
}

impl ApplyObserver for Waker {
    fn applied(&self, index: LogIndex, command: &Bytes, changes: &Changes) {
        self.feed.applied(index, Some(command));
        self.watermarks.advanced(changes);
        if changes.nodes_changed || changes.topics_changed || !changes.moved.is_empty() {
            self.changed();
        }
    }

    fn skipped(&self, index: LogIndex) {
        self.feed.applied(index, None);
    }

    fn replaced(&self, state: &State) {
        self.feed.replaced(state.applied());
        self.watermarks.replaced();
        self.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ticks(lag_ms: i64, expected: usize) {
        let time = Timestamp::from_millis(1_800_000_000_000);
        assert_eq!(ticks_between(time, time.plus_millis(lag_ms)).len(), expected, "lag {lag_ms} ms");
    }

    #[test]
    fn time_goes_along_with_a_proposal_once_it_lags() {
        ticks(-5_000, 0);
        ticks(1_000, 0);
        ticks(1_001, 1);
        ticks(599_999, 1);
        ticks(1_500_000, 3);
        ticks(i64::MAX / 2, TICKS_AT_ONCE);
    }

    #[test]
    fn a_leader_that_has_asked_nobody_for_the_time_moves_it_a_little_only() {
        let clock = Arc::new(streamhouse_env::SystemClock);
        let ticks = Ticks::new(Arc::clone(&clock) as Arc<_>, AgreedTime::default());
        let ticks_after = |stood_ms: i64| {
            let mut state = State::new();
            let cluster = streamhouse_types::ClusterId::from_bytes([1; 16]);
            let now = clock.wall().plus_millis(-stood_ms);
            let _ = state.apply(LogIndex::new(1), &Command::Bootstrap { cluster, now });
            ticks.due(&state).len()
        };
        assert_eq!((ticks_after(0), ticks_after(60_000), ticks_after(3_600_000)), (0, 1, 0));
    }
}
