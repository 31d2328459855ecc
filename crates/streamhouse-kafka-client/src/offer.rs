//! One record offered to one node, by a client that does not go elsewhere.

use std::io;

use kacrab_protocol::generated as g;
use streamhouse_types::Timestamp;
use streamhouse_types::batch::{BatchBuilder, Compression, RecordRef};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cluster::text;
use crate::wire::Wire;

const PRODUCE: i16 = 12;
/// How long the node is asked to try.
const TIMEOUT_MS: i32 = 60_000;

/// Offers a record to partition 0 of a topic, with `acks=all` and a minute's time; returns Kafka's error code, 0 when it
/// is stored. Not cancel-safe.
///
/// # Errors
/// When the connection is lost: the record may be stored.
pub async fn offer<T: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<T>,
    topic: &str,
    value: &[u8],
) -> io::Result<i16> {
    let mut batch = BatchBuilder::new(Compression::None);
    let timestamp = Timestamp::from_millis(0);
    batch
        .push(&RecordRef { key: None, value: Some(value), headers: &[], timestamp })
        .map_err(io::Error::other)?;
    let partition = g::PartitionProduceData { records: Some(batch.build()), ..Default::default() };
    let topic =
        g::TopicProduceData { name: text(topic), partition_data: vec![partition], ..Default::default() };
    let request = g::ProduceRequestData {
        acks: -1,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![topic],
        ..Default::default()
    };
    let answer = wire.call(&request, PRODUCE).await?;
    let told = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    told.map(|told| told.error_code).ok_or_else(|| io::Error::other("an answer without the partition"))
}
