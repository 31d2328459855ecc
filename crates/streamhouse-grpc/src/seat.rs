//! What this node is to the cluster.

use streamhouse_broker::metadata::{Command, Outcome};
use streamhouse_broker::{MetadataLog, ProposeError};
use streamhouse_cluster::{Cluster, LeaderError, ReaderLog, ReaderView, View};
use streamhouse_types::NodeId;

/// A member of the cluster, or a reader that follows one.
#[derive(Clone)]
pub enum Seat {
    /// A member.
    Member(Cluster),
    /// A reader, which takes no part in decisions.
    Reader(ReaderLog),
}

impl Seat {
    /// The metadata log.
    #[must_use]
    pub fn log(&self) -> &dyn MetadataLog {
        match self {
            Self::Member(cluster) => cluster.log(),
            Self::Reader(log) => log,
        }
    }

    /// Whether it only reads.
    #[must_use]
    pub const fn is_reader(&self) -> bool {
        matches!(self, Self::Reader(_))
    }

    /// How the nodes agree.
    pub async fn view(&self) -> View {
        match self {
            Self::Member(cluster) => cluster.view().await,
            Self::Reader(log) => log.view().await,
        }
    }

    /// The readers of all nodes that answer. Cancel-safe.
    pub async fn readers(&self) -> Vec<ReaderView> {
        match self {
            Self::Member(cluster) => cluster.readers().await,
            Self::Reader(log) => log.readers().await,
        }
    }

    /// Proposes one command; a reader proposes none. Cancelling leaves open whether it was carried out.
    ///
    /// # Errors
    /// When the log gave no answer: the error says whether the command may have been carried out.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        match self {
            Self::Member(cluster) => cluster.propose(command).await,
            Self::Reader(log) => {
                let reason = "the reader gave no answer".to_owned();
                log.propose(vec![command]).await.pop().unwrap_or(Err(ProposeError::NotHappened { reason }))
            }
        }
    }

    /// Asks another node to lead, or that node which `to` names.
    ///
    /// # Errors
    /// When no other node can lead now, and on a reader.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, LeaderError> {
        match self {
            Self::Member(cluster) => cluster.transfer_leader(to).await,
            Self::Reader(_) => {
                let reason = "a reader is no member: ask one of the brokers".to_owned();
                Err(LeaderError::Refused { reason })
            }
        }
    }
}
