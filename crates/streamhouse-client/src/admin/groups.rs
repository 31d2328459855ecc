//! Consumer groups, as those look at them who are no members.

use futures::stream::{self, Stream, TryStreamExt as _};
use streamhouse_api::{GroupInfo, Position, SoughtPartition};
use streamhouse_proto::v1;
use streamhouse_types::PartitionIndex;

use super::{Admin, Mode};
use crate::error::CallError;
use crate::ways::Way;

/// Groups in one answer of a list.
const PAGE_GROUPS: u32 = 500;

/// Where a group shall go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSeek {
    /// The topic.
    pub topic: String,
    /// The partition; `None`: all of the topic.
    pub partition: Option<PartitionIndex>,
    /// Where to.
    pub to: SeekTo,
}

/// A place to go on at, in words that fit every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// A place in the log. An offset outside the log counts as its nearer end.
    Position(Position),
    /// So many records after what is committed, or before it; within the log.
    By(i64),
    /// What is committed is forgotten.
    Forget,
}

impl Admin {
    /// All groups whose id starts with `prefix`, in the order of their ids, without members and partitions. Pages are
    /// asked for as the stream is read.
    pub fn list_groups(
        &self,
        prefix: &str,
    ) -> impl Stream<Item = Result<GroupInfo, CallError>> + Send + 'static {
        let (admin, prefix) = (self.clone(), prefix.to_owned());
        let pages = stream::try_unfold(Some(String::new()), move |token| {
            let (admin, id_prefix) = (admin.clone(), prefix.clone());
            async move {
                let Some(page_token) = token else { return Ok(None) };
                let request = v1::ListGroupsRequest { page_size: PAGE_GROUPS, page_token, id_prefix };
                let call = |way: Way, request| async move { way.groups().list_groups(request).await };
                let page = admin.read(request, call).await?;
                let next = Some(page.next_page_token).filter(|token| !token.is_empty());
                let groups = page.groups.into_iter().map(|group| Ok(GroupInfo::from(group)));
                Ok::<_, CallError>(Some((stream::iter(groups), next)))
            }
        });
        pages.try_flatten()
    }

    /// One group with its members and how far it is in each partition.
    ///
    /// # Errors
    /// When there is none of this id.
    pub async fn describe_group(&self, id: &str) -> Result<GroupInfo, CallError> {
        let request = v1::DescribeGroupRequest { group_id: id.to_owned() };
        let call = |way: Way, request| async move { way.groups().describe_group(request).await };
        let group = self.read(request, call).await?.group;
        group.map(GroupInfo::from).ok_or(CallError::BadAnswer { what: "no group in it" })
    }

    /// Moves what a group has committed, all of it or nothing; a group that is not there is made. Returns what changes,
    /// by topic and partition.
    ///
    /// # Errors
    /// When the group has members, or a topic or partition does not exist.
    pub async fn seek_group(
        &self,
        id: &str,
        seeks: Vec<GroupSeek>,
        mode: Mode,
    ) -> Result<Vec<SoughtPartition>, CallError> {
        use v1::group_seek::{Forget, To};
        let now = self.house.0.env.clock.wall();
        let seek = |seek: GroupSeek| v1::GroupSeek {
            topic: seek.topic,
            partition: seek.partition.map(PartitionIndex::get),
            to: Some(match seek.to {
                SeekTo::Position(Position::AfterStart(records)) => To::AfterStart(records),
                SeekTo::Position(position) => To::Position(position.to_message(now)),
                SeekTo::By(records) => To::By(records),
                SeekTo::Forget => To::Forget(Forget {}),
            }),
        };
        let request = v1::SeekGroupRequest {
            group_id: id.to_owned(),
            seeks: seeks.into_iter().map(seek).collect(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.groups().seek_group(request).await };
        let answer = self.change(mode, request, call).await?;
        Ok(answer.partitions.into_iter().map(SoughtPartition::from).collect())
    }

    /// Deletes a group and what it has committed.
    ///
    /// # Errors
    /// When there is none of this id, or it has members.
    pub async fn delete_group(&self, id: &str, mode: Mode) -> Result<(), CallError> {
        let request = v1::DeleteGroupRequest {
            group_id: id.to_owned(),
            request_id: self.house.request_id(),
            validate_only: mode.validate_only(),
        };
        let call = |way: Way, request| async move { way.groups().delete_group(request).await };
        self.change(mode, request, call).await.map(|_| ())
    }
}
