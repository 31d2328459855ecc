//! What a seed has in store: which faults occur, and how hard. Most runs have a few kinds only, so that each kind also
//! meets a cluster that is otherwise well.

use std::fmt;
use std::time::Duration;

use crate::seed::{Dice, Seed};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A process is killed; what it wrote stays.
    Kill,
    /// The power goes: what was not synced is lost, wholly or in part.
    Power,
    /// The power goes in the middle of what is written, such as between a write to the metadata log and its sync.
    Torn,
    /// A node is asked to stop in order.
    Stop,
    /// A node hears nothing and is not heard for a while, and then all at once.
    Pause,
    /// Nodes are cut off from each other.
    Partition,
    /// A node is heard but does not hear, or the other way round.
    OneWay,
    /// A node is heard by the others and not answered, until its incarnation is closed: what it proposed at first is done,
    /// and it does not know.
    Unanswered,
    /// Clients are cut off from a node.
    ClientCut,
    /// A node is cut off from the store.
    StoreCut,
    /// Single packets are lost and sent again.
    Loss,
    /// A connection goes silent for good.
    Wedge,
    /// Messages take long.
    Latency,
    /// Requests to the store take long, some very long.
    StoreSlow,
    /// Requests to the store fail before or after they are done, or are done late.
    StoreFails,
    /// The store asks for fewer requests.
    StoreBusy,
    /// Replies of the store are cut short or altered.
    StoreLies,
    /// The store does not answer for a while.
    StoreDown,
    /// A disk takes its time.
    DiskStall,
    /// A calendar jumps by up to an hour.
    ClockJump,
    /// Somebody asks another node to lead.
    Transfer,
    /// A snapshot is taken, and the log before it goes.
    Snapshot,
    /// An operator sends a node's clients elsewhere, and later back.
    Drain,
    /// An operator changes the number of voters.
    Voters,
    /// An operator removes a node for good, drained or dead, and lets a new one join in its place.
    Replace,
    /// A node loses its disk and starts again as the one that it was; then an operator replaces it.
    Wipe,
}

const ALL: &[Kind] = &[
    Kind::Kill,
    Kind::Power,
    Kind::Torn,
    Kind::Stop,
    Kind::Pause,
    Kind::Partition,
    Kind::OneWay,
    Kind::Unanswered,
    Kind::ClientCut,
    Kind::StoreCut,
    Kind::Loss,
    Kind::Wedge,
    Kind::Latency,
    Kind::StoreSlow,
    Kind::StoreFails,
    Kind::StoreBusy,
    Kind::StoreLies,
    Kind::StoreDown,
    Kind::DiskStall,
    Kind::ClockJump,
    Kind::Transfer,
    Kind::Snapshot,
    Kind::Drain,
    Kind::Voters,
    Kind::Replace,
    Kind::Wipe,
];

/// Kinds that need more than one node.
const MANY: &[Kind] = &[
    Kind::Partition,
    Kind::OneWay,
    Kind::Unanswered,
    Kind::Transfer,
    Kind::Drain,
    Kind::Voters,
    Kind::Replace,
    Kind::Wipe,
];

/// Kinds that an operator does, from a client's host.
pub(crate) const OPERATED: &[Kind] = &[Kind::Drain, Kind::Voters, Kind::Replace, Kind::Wipe];

/// Which calendars jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jumps {
    /// Those of one machine, again and again. All others are right, so everybody can know what time it is.
    OfOne,
    /// Any.
    OfAny,
}

/// What is fixed for a whole run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) jumps: Jumps,
    /// How long after the others the last node is started for the first time.
    pub(crate) late_ms: Option<u64>,
    /// Mean time between two faults.
    pub(crate) every: Duration,
    /// How long faults and load go on.
    pub(crate) faults_for: Duration,
    pub(crate) tick_ms: u64,
    pub(crate) latency_ms: (u64, u64),
    pub(crate) rates_ppm: Vec<u64>,
    pub(crate) disk_us: u64,
    pub(crate) flush_ms: u64,
    pub(crate) delete_grace_ms: u64,
    pub(crate) sweep_ms: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) snapshot_entries: u64,
    pub(crate) keep_entries: u64,
    pub(crate) close_after_ms: u64,
    pub(crate) store_ms: u64,
    pub(crate) partitions: u32,
    pub(crate) producers: u64,
    pub(crate) consumers: u64,
    /// Mean time between two records of a producer.
    pub(crate) record_every_ms: u64,
    /// Producers that speak Kafka's protocol.
    pub(crate) kafka_producers: u64,
    /// Members of the one group of consumers that do.
    pub(crate) kafka_members: u64,
}

impl Plan {
    pub(crate) fn draw(seed: u64, nodes: u64, faults_for: Duration) -> Self {
        let dice = Seed::new(seed).branch("plan").rng();
        let kinds = kinds(&dice, nodes);
        // Clients wait for ten seconds: what they are told by a node whose incarnation is closed must come before.
        let waited_for = kinds.contains(&Kind::Unanswered) && !dice.one_in(4);
        let close_after_ms = dice.magnitude(3_000, if waited_for { 8_000 } else { 20_000 });
        let jumps = if dice.one_in(3) { Jumps::OfAny } else { Jumps::OfOne };
        let latency_low = dice.magnitude(1, 20);
        let skewed = dice.one_in(3);
        let rate = || if skewed { dice.between(800_000, 1_200_000) } else { 1_000_000 };
        let rates_ppm = (0..nodes).map(|_| rate()).collect();
        let snapshot_entries = dice.magnitude(20, 2_000);
        Self {
            nodes,
            kinds,
            jumps,
            late_ms: (nodes > 1 && dice.one_in(3)).then(|| dice.between(1_000, 40_000)),
            every: Duration::from_millis(dice.magnitude(500, 10_000)),
            faults_for,
            tick_ms: *dice.pick(&[1, 2, 5]),
            latency_ms: (latency_low, latency_low + dice.magnitude(1, 40)),
            rates_ppm,
            disk_us: dice.magnitude(200, 10_000),
            flush_ms: dice.magnitude(2, 100),
            delete_grace_ms: dice.magnitude(500, 20_000),
            sweep_ms: dice.magnitude(1_000, 10_000),
            cache_bytes: *dice.pick(&[0, 64 << 10, 1 << 20, 16 << 20]),
            snapshot_entries,
            keep_entries: dice.below(snapshot_entries),
            close_after_ms,
            store_ms: dice.magnitude(2, 60),
            partitions: u32::try_from(dice.magnitude(1, 8)).expect("small"),
            producers: dice.between(2, 5),
            consumers: dice.between(1, 3),
            record_every_ms: dice.magnitude(5, 100),
            kafka_producers: dice.between(1, 2),
            kafka_members: dice.between(1, 3),
        }
    }

    /// Of the node in the place of this number.
    pub(crate) fn rate_ppm(&self, place: u64) -> u64 {
        self.rates_ppm[usize::try_from(place - 1).expect("few nodes")]
    }
}

/// A random subset; now and then none, and now and then all.
fn kinds(dice: &Dice, nodes: u64) -> Vec<Kind> {
    let share = *dice.pick(&[0, 100_000, 200_000, 300_000, 500_000, 1_000_000]);
    let possible = ALL.iter().copied().filter(|kind| nodes > 1 || !MANY.contains(kind));
    possible.filter(|_| dice.chance(share)).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
