//! What members of consumer groups say.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use streamhouse_types::Offset;

use super::Micros;

/// A member of a group has committed how far it has read a partition, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit<'a> {
    /// The group.
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    /// The partition.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// The generation that the member belongs to.
    pub generation: u64,
    /// The next record to read.
    pub offset: Offset,
    /// When it was asked for.
    pub begin: Micros,
    /// When the outcome was known.
    pub end: Micros,
    /// The outcome.
    pub outcome: CommitOutcome,
}

/// What came of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitOutcome {
    /// It was acknowledged.
    Done,
    /// It did not happen and never will.
    No,
    /// It may have happened, or happen yet.
    Maybe,
}

/// A member of a group was told where to go on in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committed<'a> {
    /// The group.
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    /// The partition.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// The generation that the member belongs to.
    pub generation: u64,
    /// When it was asked.
    pub begin: Micros,
    /// When the answer was there.
    pub end: Micros,
    /// What was committed; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
}

/// Somebody is about to move a group to another offset: from here on any may be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seek<'a> {
    /// The group.
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    /// The partition.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// When.
    pub at: Micros,
}
