//! Topics and their partitions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{TopicId, TopicName};

use crate::{Partition, TopicSettings};

/// A topic with its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    pub(crate) settings: TopicSettings,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// Its id; never reused, also when the name is.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("a topic has at most 10,000 partitions")
    }

    /// Its partitions, by index.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Partition> {
        self.partitions.iter().map(|partition| &**partition)
    }
}
