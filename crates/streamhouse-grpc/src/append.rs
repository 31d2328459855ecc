//! Appends of plain records, for simple clients: the server builds the batches.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use streamhouse_broker::{Appended, TopicInfo, UnitAppend};
use streamhouse_proto::v1;
use streamhouse_types::batch::{
    BatchBuilder, BatchLimits, Compression, RecordBatch, RecordHeader, RecordRef,
};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::partitioner::partition_for_key;
use streamhouse_types::{PartitionId, PartitionIndex, Timestamp};
use tonic::Status;

use crate::Services;
use crate::convert::{millis, offset};
use crate::status::Fault;

/// Most bytes of keys, values and headers in one request.
const BYTES_MAX: usize = 1 << 20;
/// Most records in one request.
const RECORDS_MAX: usize = 10_000;

impl Services {
    pub(crate) async fn append_records(
        &self,
        request: v1::AppendRequest,
    ) -> Result<v1::AppendResponse, Status> {
        let name = self.name("topic", &request.topic)?;
        within_limits(&request)?;
        let topic = self.broker.ensure_topic(&name).await.map_err(Fault::from)?;
        let expected = match (request.expected_offset, request.partition) {
            (None, _) => Vec::new(),
            (Some(raw), Some(index)) => {
                vec![(self.partition_of(&topic, index).await?, offset("expected_offset", raw)?)]
            }
            (Some(_), None) => {
                return Err(Fault::argument("expected_offset", "needs `partition`").into());
            }
        };
        let limits = self.broker.topic_limits(topic.id).ok_or_else(|| {
            Fault::new(ErrorCode::TopicNotFound, format!("topic `{name}` was deleted"))
                .about("topic", name.as_str())
        })?;
        let fixed = match request.partition {
            Some(index) => Some(self.partition_of(&topic, index).await?),
            None => None,
        };
        let routed = self.route(&topic, fixed, &request.records);
        let built = build(&routed, &request.records, &self.limited(limits), self.clock.wall())?;
        let unit = UnitAppend { batches: built.batches, expected, permit: None };
        let pending = self.broker.append_unit(&self.broker.session(0), unit).await.map_err(Fault::from)?;
        let appended = pending.await.map_err(Fault::from)?;
        let appended = placed(&built.places, &appended, request.records.len());
        Ok(v1::AppendResponse { appended, read_token: self.broker.read_token().get() })
    }

    /// A partition for records without a key: each request takes the next.
    fn next_keyless(&self, partitions: u32) -> PartitionIndex {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        PartitionIndex::new(turn % partitions.max(1))
    }

    /// The records of each partition, by their places in the request.
    fn route(
        &self,
        topic: &TopicInfo,
        fixed: Option<PartitionId>,
        records: &[v1::Record],
    ) -> BTreeMap<PartitionId, Vec<usize>> {
        let keyless = self.next_keyless(topic.partitions);
        let mut routed: BTreeMap<PartitionId, Vec<usize>> = BTreeMap::new();
        for (place, record) in records.iter().enumerate() {
            let chosen = |index| PartitionId::new(topic.id, index);
            let partition = fixed.unwrap_or_else(|| match &record.key {
                Some(key) => chosen(partition_for_key(key, topic.partitions)),
                None => chosen(keyless),
            });
            routed.entry(partition).or_default().push(place);
        }
        routed
    }
}

fn within_limits(request: &v1::AppendRequest) -> Result<(), Fault> {
    let count = request.records.len();
    if count == 0 || count > RECORDS_MAX {
        return Err(Fault::argument("records", format!("one to {RECORDS_MAX} records, not {count}")));
    }
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let of_header = |header: &v1::Header| header.key.len() + length(&header.value);
    let of_record = |record: &v1::Record| {
        length(&record.key) + length(&record.value) + record.headers.iter().map(of_header).sum::<usize>()
    };
    let bytes: usize = request.records.iter().map(of_record).sum();
    if bytes > BYTES_MAX {
        let text =
            format!("{bytes} bytes of records are over the limit of {BYTES_MAX}; use a session for more");
        return Err(Fault::new(ErrorCode::BatchTooLarge, text).field("records"));
    }
    Ok(())
}

/// Batches, and which records of the request each holds.
struct Built {
    batches: Vec<(PartitionId, RecordBatch)>,
    places: Vec<(PartitionId, Vec<usize>)>,
}

fn build(
    routed: &BTreeMap<PartitionId, Vec<usize>>,
    records: &[v1::Record],
    limits: &BatchLimits,
    now: Timestamp,
) -> Result<Built, Fault> {
    let mut built = Built { batches: Vec::new(), places: Vec::new() };
    for (partition, places) in routed {
        let mut open: Option<(BatchBuilder, Vec<usize>)> = None;
        for place in places {
            let record = &records[*place];
            let headers = headers_of(record);
            let timestamp = match &record.timestamp {
                Some(time) => millis("records.timestamp", time)?,
                None => now,
            };
            let record = RecordRef {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
                timestamp,
            };
            let full = |builder: &BatchBuilder| {
                builder.len_bytes() + builder.cost_bytes(&record) > limits.max_batch_bytes as usize
            };
            if let Some((builder, held)) = open.take_if(|(builder, _)| full(builder)) {
                built.close(*partition, builder, held, limits)?;
            }
            let (builder, held) =
                open.get_or_insert_with(|| (BatchBuilder::new(Compression::None), Vec::new()));
            builder.push(&record)?;
            held.push(*place);
        }
        if let Some((builder, held)) = open {
            built.close(*partition, builder, held, limits)?;
        }
    }
    Ok(built)
}

impl Built {
    fn close(
        &mut self,
        partition: PartitionId,
        builder: BatchBuilder,
        held: Vec<usize>,
        limits: &BatchLimits,
    ) -> Result<(), Fault> {
        let batch = RecordBatch::parse(builder.build(), limits)?;
        self.batches.push((partition, batch));
        self.places.push((partition, held));
        Ok(())
    }
}

fn headers_of(record: &v1::Record) -> Vec<RecordHeader> {
    let header = |header: &v1::Header| RecordHeader {
        key: bytes::Bytes::copy_from_slice(header.key.as_bytes()),
        value: header.value.clone(),
    };
    record.headers.iter().map(header).collect()
}

/// Where each record went, in the order of the request.
fn placed(places: &[(PartitionId, Vec<usize>)], appended: &[Appended], count: usize) -> Vec<v1::AppendedAt> {
    let mut placed = vec![v1::AppendedAt::default(); count];
    for ((partition, held), appended) in places.iter().zip(appended) {
        for (delta, place) in (0_u64..).zip(held) {
            let offset = appended.base.get() + delta;
            placed[*place] = v1::AppendedAt { partition: partition.index.get(), offset };
        }
    }
    placed
}
