//! After everything is healed: all that was acknowledged is read once more, and every object is held against the metadata.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use streamhouse_client::{Offset, PartitionIndex, Position, ReadError, StreamHouse, VerifyDepth};

use super::consume::{self, Reading};
use super::{Client, TOPIC};
use crate::world::Stage;

pub(super) async fn run(client: &Client) {
    let dice = client.seed.branch("audit").rng();
    client.world.history.final_read();
    let mut resume = BTreeMap::new();
    loop {
        let house = client.connect(&dice).await;
        match read_all(client, &house, &mut resume).await {
            Ok(()) => match verify(client, &house).await {
                Ok(()) => return client.world.finished(),
                Err(error) => tracing::info!(%error, "objects are not verified yet"),
            },
            Err(error) if error.is_retryable() || matches!(error, ReadError::TimedOut { .. }) => {
                tracing::info!(%error, "the final read goes on");
            }
            Err(error) => {
                return client.world.violate(format!("the final read: {}", crate::node::chain(&error)));
            }
        }
        client.pause(200).await;
    }
}

/// Reads to the present end, from where an earlier attempt was.
async fn read_all(
    client: &Client,
    house: &StreamHouse,
    resume: &mut BTreeMap<PartitionIndex, Offset>,
) -> Result<(), ReadError> {
    debug_assert_eq!(client.world.stage(), Stage::Audit);
    let token = client.world.history.newest_token();
    let mut wish = house.topic(TOPIC).read(Position::Start).at_least(token);
    for (partition, offset) in &*resume {
        wish = wish.resume(*partition, *offset);
    }
    let mut reader = wish.open().await?;
    let begin = client.world.history.now();
    let reading = Reading { name: "final read", token };
    while let Some(batch) = reader.next_batch().await {
        let batch = batch?;
        consume::note(&client.world.history, reading, begin, &batch)?;
        resume.insert(batch.partition(), batch.offsets().end);
    }
    Ok(())
}

async fn verify(client: &Client, house: &StreamHouse) -> Result<(), streamhouse_client::CallError> {
    let mut steps = Box::pin(house.admin().verify_storage(VerifyDepth::Deep).await?);
    while let Some(step) = steps.next().await {
        for fault in step?.faults {
            client.world.violate(format!("an object is not as the metadata has it: {fault:?}"));
        }
    }
    Ok(())
}
