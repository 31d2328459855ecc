//! Topics: looked up, made, changed, deleted.

use std::time::Duration;

use streamhouse_metadata::{
    Command, CreateTopic, FeatureLevel, MAX_MESSAGE_BYTES, Outcome, Refusal, RequestId, SettingEdits,
    SettingStep, State, Topic, TopicSettings, TrimPartition,
};
use streamhouse_storage::Backoff;
use streamhouse_types::{Offset, PartitionId, TopicId, TopicName};

use crate::broker::Shared;
use crate::log::ProposeError;
use crate::{Broker, NewTopic, TopicError, TopicInfo};

/// Whether a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Checked and made.
    Apply,
    /// Checked only.
    ValidateOnly,
}

impl Mode {
    fn validate_only(self) -> bool {
        self == Self::ValidateOnly
    }
}

impl TopicInfo {
    fn of(topic: &Topic) -> Self {
        Self {
            id: topic.id(),
            name: topic.name().clone(),
            partitions: topic.partition_count(),
            settings: topic.settings().clone(),
        }
    }
}

impl Broker {
    /// Proposes a command that does no harm when it is proposed again, until it is answered or `request_deadline` has
    /// passed. Not cancel-safe: a dropped call may have happened.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] when the answer to any of the tries was lost, [`ProposeError::NotHappened`] as soon as no
    /// leader took the first.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.0.change(command).await
    }

    /// The topic of this name, made when it does not exist and `auto_create_topics` is on. A reader makes none.
    ///
    /// # Errors
    /// When it does not exist, or could not be made.
    pub async fn ensure_topic(&self, name: &TopicName) -> Result<TopicInfo, TopicError> {
        match self.topic(name).await {
            Err(TopicError::NotFound { .. }) if self.0.settings.auto_create_topics && self.takes_writes() => {
            }
            found => return found,
        }
        let new = NewTopic {
            name: name.clone(),
            partitions: 0,
            settings: Vec::new(),
            request: None,
            validate_only: false,
        };
        match self.create_topic(new).await {
            // Somebody else was faster.
            Err(TopicError::Exists { .. }) => self.topic(name).await,
            made => made,
        }
    }

    /// The topic of this name.
    ///
    /// # Errors
    /// When it does not exist, by metadata known to be current.
    pub async fn topic(&self, name: &TopicName) -> Result<TopicInfo, TopicError> {
        let look = |state: &State| state.topic_by_name(name).map(TopicInfo::of);
        self.0.find(look).await?.ok_or_else(|| TopicError::NotFound { name: name.clone() })
    }

    /// How many partitions a topic has that was described before, for a request that names one beyond those.
    ///
    /// # Errors
    /// When the topic is gone, by metadata known to be current.
    pub async fn partitions_now(&self, topic: &TopicInfo) -> Result<u32, TopicError> {
        self.0.log.read_index().await?;
        let look = |state: &State| state.topic(topic.id).map(TopicInfo::of);
        let now = crate::log::read(&*self.0.log, look);
        now.map(|now| now.partitions).ok_or_else(|| TopicError::NotFound { name: topic.name.clone() })
    }

    /// Makes a topic. When it is only validated, the answer describes the topic that would be.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn create_topic(&self, new: NewTopic) -> Result<TopicInfo, TopicError> {
        let NewTopic { name, partitions, settings, request, validate_only } = new;
        for (name, value) in &settings {
            self.0.within_node(name, value)?;
        }
        let level = self.look(State::feature_level);
        let settings = resolve(level, settings)?;
        let partitions = if partitions == 0 { self.0.settings.default_partitions } else { partitions };
        let create = CreateTopic {
            request: self.0.request_id(request),
            name: name.clone(),
            partitions,
            settings: settings.clone(),
            validate_only,
        };
        let kept: Vec<(String, String)> =
            settings.kept.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        // A release before could not even read the command, or refuses it.
        let command = match level {
            _ if kept.is_empty() => Command::CreateTopic(create),
            FeatureLevel::KEPT_SETTINGS => Command::CreateTopicWith { create, kept },
            level => Command::CreateTopicAt { level, create, kept },
        };
        match self.0.change(command).await? {
            Outcome::TopicCreated { topic } if validate_only => {
                Ok(TopicInfo { id: topic, name, partitions, settings })
            }
            Outcome::TopicCreated { topic } => self.0.topic_by_id(topic, &name).await,
            Outcome::Refused(Refusal::TopicExists { .. }) => Err(TopicError::Exists { name }),
            outcome => Err(refused(outcome, &name)),
        }
    }

    /// Changes settings. Of two changes at a time none undoes the other, once every node knows how. Request ids work as
    /// in [`NewTopic`].
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        edits: SettingEdits,
        request: Option<RequestId>,
        mode: Mode,
    ) -> Result<TopicInfo, TopicError> {
        for (setting, step) in &edits.steps {
            if let SettingStep::Set(value) = step {
                self.0.within_node(setting, value)?;
            }
        }
        let TopicInfo { id: topic, settings, .. } = self.topic(name).await?;
        let request = self.0.request_id(request);
        let validate_only = mode.validate_only();
        let level = self.look(State::feature_level);
        let command = if level >= FeatureLevel::EDITED_SETTINGS {
            Command::EditTopic { level, request, topic, edits, validate_only }
        } else {
            // A release before reads no edits: they are worked out here, from what is set as far as is known.
            let changes = edits.resolve(&settings)?;
            let wanted = level_of(changes.iter().map(|(setting, _)| setting));
            // Below the level they are refused by name, by every release alike.
            match wanted {
                wanted if wanted > FeatureLevel::KEPT_SETTINGS && wanted <= level => {
                    Command::AlterTopicAt { level: wanted, request, topic, changes, validate_only }
                }
                _ => Command::AlterTopic { request, topic, changes, validate_only },
            }
        };
        match self.0.change(command).await? {
            Outcome::Done => self.0.topic_by_id(topic, name).await,
            outcome => Err(refused(outcome, name)),
        }
    }

    /// Deletes a topic and all that it holds.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete_topic(
        &self,
        name: &TopicName,
        request: Option<RequestId>,
        mode: Mode,
    ) -> Result<(), TopicError> {
        let topic = self.topic(name).await?.id;
        let request = self.0.request_id(request);
        let validate_only = mode.validate_only();
        match self.0.change(Command::DeleteTopic { request, topic, validate_only }).await? {
            Outcome::Done => Ok(()),
            outcome => Err(refused(outcome, name)),
        }
    }

    /// Raises the number of partitions to `total`.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn add_partitions(
        &self,
        name: &TopicName,
        total: u32,
        request: Option<RequestId>,
        mode: Mode,
    ) -> Result<TopicInfo, TopicError> {
        let topic = self.topic(name).await?.id;
        let request = self.0.request_id(request);
        let validate_only = mode.validate_only();
        match self.0.change(Command::AddPartitions { request, topic, total, validate_only }).await? {
            Outcome::Done => self.0.topic_by_id(topic, name).await,
            outcome => Err(refused(outcome, name)),
        }
    }

    /// Drops the records before an offset; returns the log start there is now. An offset past the end is refused:
    /// whoever names it means another partition.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn trim(&self, partition: PartitionId, before: Offset) -> Result<Offset, TopicError> {
        let state = self.state();
        let found = state.partition(partition).ok_or(TopicError::UnknownPartition { partition })?;
        let high_watermark = found.high_watermark();
        if before > high_watermark {
            return Err(TopicError::PastEnd { before, high_watermark });
        }
        match self.0.change(Command::TrimPartition(TrimPartition { partition, before })).await? {
            Outcome::Trimmed { log_start } => Ok(log_start),
            Outcome::Refused(Refusal::UnknownPartition) => Err(TopicError::UnknownPartition { partition }),
            Outcome::Refused(refusal) => Err(TopicError::Refused(refusal)),
            _ => Err(TopicError::Unknown(unexpected())),
        }
    }
}

/// The feature level from which on topics have all these settings.
fn level_of<'a>(names: impl Iterator<Item = &'a String>) -> FeatureLevel {
    names.map(|name| TopicSettings::level(name)).max().unwrap_or(FeatureLevel::FIRST)
}

/// The defaults with these settings changed, as every node knows how.
fn resolve(level: FeatureLevel, settings: Vec<(String, String)>) -> Result<TopicSettings, TopicError> {
    let mut resolved = TopicSettings::default();
    for (name, value) in settings {
        resolved.set_at(level, &name, Some(&value))?;
    }
    Ok(resolved)
}

fn refused(outcome: Outcome, name: &TopicName) -> TopicError {
    match outcome {
        Outcome::Refused(Refusal::UnknownTopic) => TopicError::NotFound { name: name.clone() },
        Outcome::Refused(Refusal::Setting(error)) => TopicError::Setting(error),
        Outcome::Refused(refusal) => TopicError::Refused(refusal),
        _ => TopicError::Unknown(unexpected()),
    }
}

fn unexpected() -> ProposeError {
    ProposeError::Unknown { reason: "the metadata log gave the answer to something else".to_owned() }
}

impl Shared {
    /// The id of a request: the caller's, or a fresh one.
    pub(crate) fn request_id(&self, given: Option<RequestId>) -> RequestId {
        given.unwrap_or_else(|| {
            let mut id = [0; 16];
            self.env.rng.fill(&mut id);
            id
        })
    }

    /// Refuses a limit of batches beyond this node's own: it would be shown, and never hold.
    fn within_node(&self, setting: &str, value: &str) -> Result<(), TopicError> {
        let limit = self.settings.max_batch_bytes;
        match value.parse::<u64>() {
            Ok(value) if setting == MAX_MESSAGE_BYTES && value > limit.into() => {
                Err(TopicError::BeyondNode { value, limit })
            }
            _ => Ok(()),
        }
    }

    /// Looks something up here, and once more when it is not here but the state may be old.
    pub(crate) async fn find<T>(&self, look: impl Fn(&State) -> Option<T>) -> Result<Option<T>, TopicError> {
        if let Some(found) = crate::log::read(&*self.log, &look) {
            return Ok(Some(found));
        }
        self.log.read_index().await?;
        Ok(crate::log::read(&*self.log, &look))
    }

    async fn topic_by_id(&self, id: TopicId, name: &TopicName) -> Result<TopicInfo, TopicError> {
        let found = self.find(|state| state.topic(id).map(TopicInfo::of)).await?;
        found.ok_or_else(|| TopicError::NotFound { name: name.clone() })
    }

    /// Proposes a change that may be proposed again without harm, until it is answered, no leader is found for it, or the
    /// deadline has come.
    pub(crate) async fn change(&self, command: Command) -> Result<Outcome, ProposeError> {
        let deadline = self.env.clock.now() + self.settings.request_deadline;
        let mut backoff = Backoff::new();
        let mut lost = None;
        loop {
            let answer = self.log.propose(vec![command.clone()]).await.pop();
            let error = match answer.unwrap_or_else(|| Err(unexpected())) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let pause = backoff.next_pause(&*self.env.rng).max(Duration::from_millis(1));
            let ends = self.env.clock.now() + pause >= deadline;
            match error {
                error @ ProposeError::Unknown { .. } => lost = Some(error),
                // The log has looked for a leader as long as that makes sense; another node may know one.
                error @ ProposeError::NotHappened { .. } if lost.is_none() => return Err(error),
                ProposeError::NotHappened { .. } => {}
            }
            if ends {
                return Err(lost.unwrap_or_else(unexpected));
            }
            self.env.clock.sleep(pause).await;
        }
    }
}
