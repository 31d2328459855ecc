//! Whether the store holds what the metadata say.
//!
//! Architecture invariant: functions of a state and a store, which know nothing of a running node, so that the cluster
//! may be stopped. Reads alone; changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use streamhouse_metadata::{Extent, ObjectEntry, State};
use streamhouse_storage::layout::Named;
use streamhouse_storage::object::decode_object;
use streamhouse_storage::{GetError, Layout, ListError, Purpose, Store};
use streamhouse_types::batch::{BatchLimits, RecordBatch};
use streamhouse_types::{ObjectId, Offset, PartitionId};
use tokio::sync::mpsc;

/// How closely the store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every referenced object is there and has its length.
    Presence,
    /// Every byte is read, every checksum, record count and offset checked.
    Bytes,
}

/// How far a check has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Referenced objects looked at so far.
    pub objects_checked: u64,
    /// Referenced objects in all.
    pub objects_total: u64,
    /// Bytes read so far.
    pub bytes_read: u64,
    /// Records counted so far.
    pub records_checked: u64,
    /// Faults found since the message before.
    pub faults: Vec<VerifyFault>,
    /// Objects in the store that were never committed and never can be.
    pub orphans: u64,
    /// Objects in the store that nothing refers to any more.
    pub garbage: u64,
    /// Objects in the store that are not decided yet.
    pub undecided: u64,
    /// Whether this is the last message.
    pub done: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFault {
    /// In which object; `None` when the metadata itself are at fault.
    pub object: Option<ObjectId>,
    /// In which partition; `None` when it concerns the whole object.
    pub partition: Option<PartitionId>,
    /// The offsets that are concerned, half-open; empty when none are.
    pub offsets: std::ops::Range<Offset>,
    /// What was found.
    pub what: String,
}

/// How many objects are checked at once.
const CHECKS_AT_ONCE: usize = 4;
/// After how many bytes of batches others are let on.
const YIELD_BYTES: usize = 64 << 10;
/// How many objects one message of progress covers.
const OBJECTS_PER_MESSAGE: u64 = 32;

/// Checks a store against a state, and reports the progress; the last message has `done` set. Ends early when nobody
/// listens.
///
/// # Errors
/// When the store cannot be listed. An object that cannot be read is a fault, not an error.
pub async fn verify<E>(
    state: &State,
    store: &Store,
    layout: Layout,
    depth: Depth,
    port: &mpsc::Sender<Result<VerifyProgress, E>>,
) -> Result<(), ListError> {
    let mut progress = VerifyProgress { faults: check_offsets(state), ..VerifyProgress::default() };
    let listed = list(store, layout).await?;
    classify(state, &listed, &mut progress);
    let mut extents: BTreeMap<ObjectId, Vec<(PartitionId, Extent)>> = BTreeMap::new();
    for partition in state.partitions() {
        for extent in partition.extents_from(Offset::ZERO) {
            extents.entry(extent.object).or_default().push((partition.id(), extent));
        }
    }
    progress.objects_total = extents.len() as u64;
    let checks = extents.into_iter().map(|(id, extents)| {
        let object =
            Object { id, entry: state.object(&id).copied(), listed: listed.get(&id).copied(), extents };
        async move { object.check(store, layout, depth).await }
    });
    let mut checks = std::pin::pin!(futures::stream::iter(checks).buffer_unordered(CHECKS_AT_ONCE));
    while let Some(checked) = checks.next().await {
        progress.objects_checked += 1;
        progress.bytes_read += checked.bytes;
        progress.records_checked += checked.records;
        progress.faults.extend(checked.faults);
        if progress.objects_checked.is_multiple_of(OBJECTS_PER_MESSAGE) {
            let message = progress.clone();
            progress.faults.clear();
            if port.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
    }
    progress.done = true;
    drop(port.send(Ok(progress)).await);
    Ok(())
}

async fn list(store: &Store, layout: Layout) -> Result<BTreeMap<ObjectId, u64>, ListError> {
    let named = |meta: streamhouse_storage::BlobMeta| match layout.parse(&meta.key) {
        Some(Named::Wal(object)) => Some((object, meta.length)),
        _ => None,
    };
    let listing = store.list(&layout.wal_prefix(), Purpose::Verify);
    listing.try_filter_map(|meta| futures::future::ready(Ok(named(meta)))).try_collect().await
}

fn classify(state: &State, listed: &BTreeMap<ObjectId, u64>, progress: &mut VerifyProgress) {
    let garbage: BTreeSet<ObjectId> = state.garbage().map(|(object, _)| object).collect();
    for object in listed.keys().filter(|object| state.object(object).is_none()) {
        if garbage.contains(object) {
            progress.garbage += 1;
        } else if state.is_orphan(object) {
            progress.orphans += 1;
        } else {
            progress.undecided += 1;
        }
    }
}

/// Whether the extents of each partition follow each other without gaps from the log start to the high watermark.
fn check_offsets(state: &State) -> Vec<VerifyFault> {
    let mut faults = Vec::new();
    for partition in state.partitions() {
        let mut fault = |offsets: std::ops::Range<Offset>, what: &str| {
            let (object, partition) = (None, Some(partition.id()));
            faults.push(VerifyFault { object, partition, offsets, what: what.to_owned() });
        };
        let mut expected = None;
        for extent in partition.extents_from(Offset::ZERO) {
            match expected {
                None if extent.base > partition.log_start() => {
                    fault(partition.log_start()..extent.base, "offsets are missing at the log start");
                }
                Some(end) if end != extent.base => {
                    fault(end..extent.base, "offsets are missing between extents")
                }
                _ => {}
            }
            expected = Some(extent.end);
        }
        let end = expected.unwrap_or(partition.log_start());
        if end != partition.high_watermark() {
            fault(end..partition.high_watermark(), "offsets are missing below the high watermark");
        }
    }
    faults
}

/// An object that metadata refer to.
struct Object {
    id: ObjectId,
    entry: Option<ObjectEntry>,
    /// Its length in the listing.
    listed: Option<u64>,
    extents: Vec<(PartitionId, Extent)>,
}

/// What was found in one object.
#[derive(Default)]
struct Checked {
    bytes: u64,
    records: u64,
    faults: Vec<VerifyFault>,
}

impl Object {
    async fn check(&self, store: &Store, layout: Layout, depth: Depth) -> Checked {
        let mut checked = Checked::default();
        if let Err(what) = self.check_bytes(store, layout, depth, &mut checked).await {
            // A fault of the object is a fault of everything in it.
            checked.faults.extend(self.extents.iter().map(|(partition, extent)| VerifyFault {
                object: Some(self.id),
                partition: Some(*partition),
                offsets: extent.base..extent.end,
                what: what.clone(),
            }));
        }
        checked
    }

    async fn check_bytes(
        &self,
        store: &Store,
        layout: Layout,
        depth: Depth,
        checked: &mut Checked,
    ) -> Result<(), String> {
        let entry = self.entry.ok_or("extents refer to an object that metadata do not know")?;
        let key = layout.wal_key(&self.id);
        let length = match self.listed {
            Some(length) => length,
            // A listing may miss what was written while it ran.
            None => match store.head(&key, Purpose::Verify).await {
                Ok(meta) => meta.length,
                Err(GetError::NotFound { .. }) => return Err("object is missing".to_owned()),
                Err(error) => return Err(format!("object cannot be looked at: {error}")),
            },
        };
        if length != entry.length {
            return Err(format!("object has {length} bytes instead of {}", entry.length));
        }
        if depth == Depth::Presence {
            return Ok(());
        }
        let bytes = store.get_range(&key, 0..length, Purpose::Verify).await;
        let bytes = bytes.map_err(|error| format!("object cannot be read: {error}"))?;
        checked.bytes += length;
        let (header, footer) = decode_object(&bytes).map_err(|error| error.to_string())?;
        if header.object != self.id || header.cluster != layout.cluster() {
            return Err(format!("object says that it is {} of cluster {}", header.object, header.cluster));
        }
        if footer.trailer.body_crc != entry.crc {
            return Err(format!(
                "body has checksum {:08x} instead of {:08x}",
                footer.trailer.body_crc, entry.crc
            ));
        }
        for (partition, extent) in &self.extents {
            match check_extent(&bytes, extent).await {
                Ok(records) => checked.records += records,
                Err(what) => checked.faults.push(VerifyFault {
                    object: Some(self.id),
                    partition: Some(*partition),
                    offsets: extent.base..extent.end,
                    what,
                }),
            }
        }
        Ok(())
    }
}

/// Whether an extent holds the batches and records that it should; returns how many records. Makes way for others now and
/// then: records are many, and who else has work on this thread has clients that wait.
async fn check_extent(object: &Bytes, extent: &Extent) -> Result<u64, String> {
    let start = usize::try_from(extent.position).map_err(|_| "extent lies past its object".to_owned())?;
    let end = start.saturating_add(extent.length as usize);
    if end > object.len() {
        return Err("extent lies past its object".to_owned());
    }
    let mut bytes = object.slice(start..end);
    let (mut batches, mut records, mut since_yield) = (0_u32, 0_u64, 0_usize);
    while let Some(batch) =
        RecordBatch::split_first(&mut bytes, &BatchLimits::MAX).map_err(|error| error.to_string())?
    {
        let mut found = 0_u32;
        for record in batch.records().map_err(|error| error.to_string())? {
            record.map_err(|error| error.to_string())?;
            found += 1;
        }
        let header = batch.header();
        if found != header.record_count {
            return Err(format!("batch {batches} has {found} records instead of {}", header.record_count));
        }
        batches += 1;
        records += u64::from(header.offset_count());
        since_yield += batch.bytes().len();
        if since_yield >= YIELD_BYTES {
            since_yield = 0;
            tokio::task::yield_now().await;
        }
    }
    if batches != extent.batches || records != extent.end.since(extent.base) {
        return Err(format!(
            "{batches} batches with {records} records instead of {} with {}",
            extent.batches,
            extent.end.since(extent.base)
        ));
    }
    Ok(records)
}
