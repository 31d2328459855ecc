//! A consumer that follows a topic while it is written and while nodes come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use streamhouse_check::Recorder;
use streamhouse_client::{Offset, PartitionIndex, Position, ReadToken, StreamHouse};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::reading::Reading;

/// How long a consumer may lag behind the producers at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it writes down what it was given.
const WRITE: Duration = Duration::from_millis(250);

/// A consumer at work.
#[derive(Debug)]
pub struct Tail {
    wanted: watch::Sender<Option<u64>>,
    /// How far it is, by partition.
    at: watch::Receiver<BTreeMap<PartitionIndex, Offset>>,
    reading: JoinHandle<anyhow::Result<u64>>,
}

impl Tail {
    /// Begins to follow a topic from its start; everything that it is given is written down under the name.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub async fn start(
        house: &StreamHouse,
        topic: &str,
        name: &str,
        recorder: Recorder,
    ) -> anyhow::Result<Self> {
        let reader = house.topic(topic).read(Position::Start).follow(true).open().await?;
        let mut reading = Reading::begin(&recorder, name, topic, ReadToken::default());
        let (wanted, mut until) = watch::channel(None);
        let (far, at) = watch::channel(BTreeMap::new());
        let reading = tokio::spawn(async move {
            let mut records = reader.records();
            let mut ticks = tokio::time::interval(WRITE);
            let mut read = 0;
            while until.borrow().is_none_or(|wanted| read < wanted) {
                tokio::select! {
                    record = records.next() => {
                        let record = record.context("a consumer that follows does not end")??;
                        reading.take(&record, records.progress());
                        let (partition, offset) = (record.partition, record.offset);
                        far.send_modify(|far| *far.entry(partition).or_default() = offset);
                        read += 1;
                    }
                    _ = ticks.tick() => reading.write_all(),
                    changed = until.changed() => changed?,
                }
            }
            reading.write_all();
            Ok(read)
        });
        Ok(Self { wanted, at, reading })
    }

    /// Ends it once it was given so many records, which is all there are.
    ///
    /// # Errors
    /// When it failed, or is not given them in time.
    pub async fn finish(mut self, records: u64) -> anyhow::Result<()> {
        self.wanted.send_replace(Some(records));
        let read = tokio::time::timeout(PATIENCE, &mut self.reading).await;
        let missing =
            || format!("the consumer has not got all {records} records, but up to {:?}", self.at.borrow());
        let read = read.with_context(missing)???;
        ensure!(read == records, "the consumer was given {read} records, there are {records}");
        Ok(())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
