//! What a campaign must have been through. One that has not has tested less than it seems.

use std::collections::BTreeMap;

/// Something that must have happened in some seed of every campaign.
pub(crate) struct Point {
    /// For people.
    pub(crate) name: &'static str,
    /// What is counted for it: beginnings of names.
    pub(crate) counted: &'static [&'static str],
    /// How many seeds a campaign has that must have met it.
    pub(crate) within: u64,
}

impl Point {
    /// How often it happened.
    pub(crate) fn met(&self, counted: &BTreeMap<String, u64>) -> u64 {
        let of = |prefix: &&str| -> u64 {
            counted.iter().filter(|(name, _)| name.starts_with(*prefix)).map(|(_, count)| count).sum()
        };
        self.counted.iter().map(of).sum()
    }
}

/// One that the campaign of every merge has met: it is in at least one seed of five.
const fn point(name: &'static str, counted: &'static [&'static str]) -> Point {
    Point { name, counted, within: 44 }
}

/// One that only longer campaigns meet for sure.
const fn rare(name: &'static str, counted: &'static [&'static str]) -> Point {
    Point { name, counted, within: 200 }
}

/// All of them.
pub(crate) const POINTS: &[Point] = &[
    rare("a zombie's commit was refused", &["log: a commit of a closed incarnation was refused"]),
    point(
        "an incarnation was closed for its silence",
        &["log: node was silent for long, its incarnation is closed"],
    ),
    point("a silent node's homes moved", &["log: node is silent, its homes go to others"]),
    point("leadership was passed on", &["log: leadership is passed on", "log: leadership was passed on"]),
    point("the voters changed", &["log: the voters change"]),
    point("a snapshot of the leader was installed", &["log: snapshot of the leader installed"]),
    point("a snapshot reached the store", &["log: snapshot uploaded"]),
    point("a fetch waited for a newer high watermark", &["a fetch waited for records that were not there"]),
    point("a node that is behind answered", &["a node that is behind answered"]),
    point("an offset that never was is out of range", &["client: fetch OFFSET_OUT_OF_RANGE"]),
    point("a duplicate was recognised and acknowledged", &["an acknowledged duplicate"]),
    point("a write may have happened", &["client: send COMMIT_UNKNOWN"]),
    point("a write surely did not happen", &["a write surely did not happen"]),
    point("a store request was tried again", &["log: store request is tried again"]),
    rare("an upload was given up", &["log: upload failed"]),
    rare("wrong bytes were read again", &["log: wrong bytes are read again"]),
    point("an orphan was deleted", &["metric: streamhouse_sweep_deleted_total{class=orphan}"]),
    point("a node lost what it had not synced", &["fault: Power"]),
    rare(
        "the power went between a write to the log and its sync",
        &["power: gone between a write to the log and its sync"],
    ),
    rare("a torn log was mended", &["log: cut the unfinished end of the metadata log"]),
    point("a node was killed", &["fault: Kill"]),
    point("a node was stopped in order", &["fault: Stop"]),
    point("a node was paused", &["fault: Pause"]),
    point("nodes were cut off from each other", &["fault: Partition"]),
    point("a node was heard and did not hear", &["fault: OneWay"]),
    rare(
        "a node that was not answered had its incarnation closed",
        &["unanswered: the node's incarnation was closed"],
    ),
    rare(
        "a closed incarnation had commits that it had not heard of",
        &["unanswered: the node's incarnation was closed, and it had committed what it did not know"],
    ),
    point("clients were cut off", &["fault: ClientCut"]),
    rare("the store was cut off", &["fault: StoreCut"]),
    rare(
        "a node that alone could not write lost its homes",
        &["log: node alone cannot write to the object store, its homes go to others"],
    ),
    point("packets were lost", &["fault: Loss"]),
    point("connections went silent", &["fault: Wedge"]),
    point(
        "the store was slow, failed, was busy",
        &["fault: StoreSlow", "fault: StoreFails", "fault: StoreBusy"],
    ),
    point("the store was down", &["fault: StoreDown"]),
    rare("the store lied", &["store: Garble", "store: Truncate"]),
    rare("a write took effect late", &["store: Late"]),
    point("a disk stalled", &["fault: DiskStall"]),
    point("a calendar jumped", &["fault: ClockJump"]),
    rare(
        "one led whose calendar alone was far ahead",
        &["clock: one led whose calendar alone was far ahead"],
    ),
    point("a node was drained", &["operator: Drain"]),
    point("a node was removed for good", &["operator: Replace"]),
    rare("a removed node heard of it", &["a node heard that it was removed"]),
    rare("a removed node was not let in again", &["a node that was removed was not let in again"]),
    point(
        "a new node took the place of a removed one",
        &["a new node took the place of one that was removed"],
    ),
    rare("a node that lost its disk was not let in", &["a node without its disk was not let in"]),
    rare("a node could not be removed", &["operator: a removal was not done"]),
    point("a group went over to another coordinator", &["kafka: a group went over to another coordinator"]),
    point("a member of a group was fenced", &["kafka: a member was fenced"]),
    point("a Kafka producer's duplicate was acknowledged", &["kafka: a duplicate was acknowledged"]),
    point(
        "a Kafka client read from a node that does not lead",
        &["kafka: a client read from a node that does not lead"],
    ),
    point("a Kafka client was sent on", &["kafka: a client was sent on"]),
];
