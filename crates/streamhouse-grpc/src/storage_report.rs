//! What was found in the store, as the API tells it. The same for a running node and for a stopped cluster.

use streamhouse_broker::metadata::{Extent, State};
use streamhouse_broker::{ObjectReport, StorageSummary};
use streamhouse_proto::v1;
use streamhouse_storage::object::ExtentEntry;
use streamhouse_types::{PartitionId, TopicId};
use streamhouse_verify::{VerifyFault, VerifyProgress};

use crate::convert::timestamp;

/// The level of a WAL object.
const LEVEL_WAL: u32 = 0;

/// What lies in the store at `url`, in sums.
#[must_use]
pub fn summary(found: StorageSummary, url: &str) -> v1::StorageSummaryResponse {
    let class = |name: &str, objects, bytes| v1::ObjectClass { name: name.to_owned(), objects, bytes };
    v1::StorageSummaryResponse {
        url: url.to_owned(),
        cluster_id: found.cluster.to_string(),
        classes: vec![
            class("wal", found.wal_objects, found.wal_bytes),
            class("snapshot", found.snapshot_objects, found.snapshot_bytes),
            class("garbage", found.garbage_objects, found.garbage_bytes),
        ],
        garbage_objects: found.garbage_objects,
    }
}

/// One object; `state` knows the names of topics.
#[must_use]
pub fn object(report: ObjectReport, state: &State) -> v1::InspectObjectResponse {
    let extent = |(entry, runs): (ExtentEntry, Vec<Extent>)| v1::ObjectExtent {
        topic_id: entry.partition.topic.get(),
        topic: topic_name(state, entry.partition.topic),
        partition: entry.partition.index.get(),
        position: entry.position,
        length: entry.length.into(),
        records: entry.records,
        crc32c: entry.crc,
        runs: runs.into_iter().map(run).collect(),
    };
    v1::InspectObjectResponse {
        key: report.key.to_string(),
        length: report.length,
        object_id: report.header.object.to_string(),
        level: LEVEL_WAL,
        created: Some(timestamp(report.header.created)),
        extents: report.extents.into_iter().map(extent).collect(),
        state: report.state.as_str().to_owned(),
    }
}

fn run(extent: Extent) -> v1::CommittedRun {
    v1::CommittedRun {
        base_offset: extent.base.get(),
        end_offset: extent.end.get(),
        position: extent.position,
        length: extent.length.into(),
    }
}

/// How far a check of the store is, and what it has found; `state` knows the names of topics.
#[must_use]
pub fn progress(found: VerifyProgress, state: &State) -> v1::VerifyResponse {
    v1::VerifyResponse {
        objects_checked: found.objects_checked,
        objects_total: found.objects_total,
        bytes_read: found.bytes_read,
        faults: found.faults.into_iter().map(|found| fault(found, state)).collect(),
        orphans: found.orphans,
        garbage: found.garbage,
        done: found.done,
        records_checked: found.records_checked,
    }
}

fn fault(found: VerifyFault, state: &State) -> v1::VerifyFault {
    let partition = found.partition;
    v1::VerifyFault {
        object_id: found.object.map(|object| object.to_string()).unwrap_or_default(),
        topic: partition.map(|partition: PartitionId| topic_name(state, partition.topic)).unwrap_or_default(),
        partition: partition.map(|partition| partition.index.get()).unwrap_or_default(),
        base_offset: found.offsets.start.get(),
        end_offset: found.offsets.end.get(),
        what: found.what,
    }
}

/// Empty when the topic is gone.
fn topic_name(state: &State, topic: TopicId) -> String {
    state.topic(topic).map(|topic| topic.name().to_string()).unwrap_or_default()
}
