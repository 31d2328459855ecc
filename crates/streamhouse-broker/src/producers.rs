//! Producer ids: taken from the metadata in blocks, given out one by one.

use std::time::Duration;

use streamhouse_metadata::{Command, Outcome, ProducerWindow, Refusal};
use streamhouse_types::{Incarnation, ProducerId};
use tokio::sync::Mutex;

use crate::Broker;
use crate::error::{Obstacle, ProducerError};
use crate::log::ProposeError;

/// How many ids a node takes at once, and how many it gives to one request at most.
const BLOCK: u32 = 1_000;
/// How long to wait for a node that is being registered.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(5);

/// The ids of this node's blocks that are not given out yet, by window.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    native: Mutex<Block>,
    kafka: Mutex<Block>,
}

#[derive(Debug, Default)]
struct Block {
    next: u64,
    left: u32,
}

impl Block {
    fn take(&mut self, count: u32) -> Option<ProducerId> {
        if self.left < count {
            return None;
        }
        let first = ProducerId::new(self.next);
        self.next += u64::from(count);
        self.left -= count;
        Some(first)
    }
}

impl Broker {
    /// Gives out `count` producer ids, 1 to 1,000, that follow each other; returns the first. Their epoch is 0, and of
    /// what each sends to a partition as many batches are remembered as `window` says.
    /// Cancel-safe: at worst some ids are never used.
    ///
    /// # Errors
    /// See [`ProducerError`].
    pub async fn init_producer(
        &self,
        count: u32,
        window: ProducerWindow,
    ) -> Result<ProducerId, ProducerError> {
        if count == 0 || count > BLOCK {
            return Err(ProducerError::TooMany { wanted: count, limit: BLOCK });
        }
        if !self.takes_writes() {
            let reason = Obstacle::ReadOnly.to_string();
            return Err(ProducerError::Unavailable(ProposeError::NotHappened { reason }));
        }
        let block = match window {
            ProducerWindow::Native => &self.0.producers.native,
            ProducerWindow::Kafka => &self.0.producers.kafka,
        };
        // Before the lock: those who ask wait side by side.
        self.registered_in_time().await?;
        let mut block = block.lock().await;
        if let Some(first) = block.take(count) {
            return Ok(first);
        }
        *block = self.grant_block(window).await?;
        Ok(block.take(count).expect("a block holds as many ids as one request may ask for"))
    }

    /// The incarnation of this node, if it has one before long.
    async fn registered_in_time(&self) -> Result<Incarnation, ProducerError> {
        let registered = tokio::select! {
            registered = self.registered() => registered.ok(),
            () = self.0.env.clock.sleep(REGISTRATION_PATIENCE) => None,
        };
        let reason = || "the node is not registered".to_owned();
        registered.ok_or_else(|| ProducerError::Unavailable(ProposeError::NotHappened { reason: reason() }))
    }

    async fn grant_block(&self, window: ProducerWindow) -> Result<Block, ProducerError> {
        let unavailable = |reason: &str| {
            ProducerError::Unavailable(ProposeError::NotHappened { reason: reason.to_owned() })
        };
        // The incarnation may close while the command is on its way: then ask again under the next.
        for _ in 0..3 {
            let incarnation = self.registered_in_time().await?;
            let node = self.0.node;
            let command = Command::GrantProducerIds { node, incarnation, count: BLOCK, window };
            match self.0.change(command).await {
                Ok(Outcome::ProducerIds { first, count }) if count >= BLOCK => {
                    return Ok(Block { next: first.get(), left: count });
                }
                Ok(Outcome::Refused(Refusal::UnknownNode)) => {}
                Ok(Outcome::Refused(refusal)) => return Err(ProducerError::Refused(refusal)),
                Ok(_) => return Err(unavailable("the metadata log gave the answer to something else")),
                // An answer that was lost wastes a block, and nothing else.
                Err(error) => return Err(ProducerError::Unavailable(error)),
            }
        }
        Err(unavailable("the node's registration keeps changing"))
    }
}
