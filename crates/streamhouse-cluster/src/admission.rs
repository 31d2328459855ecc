//! Who is let in. Pure.

use streamhouse_metadata::{
    Command, DirectoryId, FeatureLevel, FeatureRange, MemberRefusal, Outcome, Refusal,
};
use streamhouse_proto::internal as pb;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, NodeId, Timestamp};
use tonic::{Code, Status};

use crate::clocks::SKEW_MAX;

/// Longest version and address that are taken.
const TEXT_BYTES_MAX: usize = 512;
/// Under which name a refusal carries its code.
const REASON: &str = "streamhouse-reason";

/// A node that wants to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// Its id.
    pub node: NodeId,
    /// The identity of its data directory.
    pub directory: DirectoryId,
    /// The cluster that the directory belongs to, or else the store; `None` when both are new, and then it is not let
    /// in: whoever founded the cluster has marked the store that all its nodes have.
    pub cluster: Option<ClusterId>,
    /// Where other nodes reach it.
    pub internal: String,
    /// The feature levels that it understands.
    pub features: FeatureRange,
    /// Its version.
    pub version: String,
}

/// Why a node is not let in. The text names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct JoinRefusal {
    /// The kind of refusal.
    pub code: ErrorCode,
    /// For a person.
    pub text: String,
}

impl JoinRefusal {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// As it crosses the wire.
    pub(crate) fn status(&self) -> Status {
        let mut status = Status::new(Code::from_i32(self.code.grpc_code()), self.text.clone());
        let reason = self.code.reason().parse().expect("reasons are plain words");
        status.metadata_mut().insert(REASON, reason);
        status
    }

    /// Reads it back; `None` when the status is no refusal but a failure.
    pub(crate) fn of_status(status: &Status) -> Option<Self> {
        let reason = status.metadata().get(REASON)?.to_str().ok()?;
        let code = reason.parse().ok()?;
        Some(Self { code, text: status.message().to_owned() })
    }
}

impl Applicant {
    pub(crate) fn request(&self, now: Timestamp) -> pb::JoinRequest {
        pb::JoinRequest {
            node_id: self.node.get(),
            directory: self.directory.as_bytes().to_vec().into(),
            cluster_id: self.cluster.map(|cluster| cluster.as_bytes().to_vec().into()),
            internal_address: self.internal.clone(),
            feature_level_min: self.features.min.get(),
            feature_level_max: self.features.max.get(),
            version: self.version.clone(),
            role: "broker".to_owned(),
            now_ms: now.as_millis(),
        }
    }

    /// Reads a request.
    pub(crate) fn of_request(request: pb::JoinRequest) -> Result<Self, JoinRefusal> {
        let malformed =
            |what| JoinRefusal::new(ErrorCode::InvalidArgument, format!("the request has no valid {what}"));
        let directory: [u8; 16] =
            request.directory.as_ref().try_into().map_err(|_| malformed("identity of a directory"))?;
        let cluster = match request.cluster_id {
            None => None,
            Some(bytes) => {
                let bytes: [u8; 16] = bytes.as_ref().try_into().map_err(|_| malformed("cluster id"))?;
                Some(ClusterId::from_bytes(bytes))
            }
        };
        if request.node_id == 0 {
            return Err(malformed("node id"));
        }
        let fits = |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
        if !fits(&request.internal_address) || !fits(&request.version) {
            return Err(malformed("address or version"));
        }
        let (min, max) = (request.feature_level_min, request.feature_level_max);
        let features = FeatureRange { min: FeatureLevel::new(min), max: FeatureLevel::new(max) };
        if min == 0 || max < min {
            return Err(malformed("range of feature levels"));
        }
        Ok(Self {
            node: NodeId::new(request.node_id),
            directory: DirectoryId::from_bytes(directory),
            cluster,
            internal: request.internal_address,
            features,
            version: request.version,
        })
    }

    /// Its clock is so many milliseconds ahead of those of most nodes, or behind them.
    pub(crate) fn astray(&self, ahead_ms: i64) -> JoinRefusal {
        let text = format!(
            "the clock of node {} is {} s away from those of most nodes, at most {} s are borne. Set the clock of that \
             machine, such as by NTP, and start the node again",
            self.node,
            ahead_ms.unsigned_abs() / 1_000,
            SKEW_MAX.as_secs()
        );
        JoinRefusal::new(ErrorCode::ClockSkew, text)
    }

    /// Judges whether it belongs to this cluster.
    pub(crate) fn check_cluster(&self, ours: ClusterId) -> Result<(), JoinRefusal> {
        if let Some(theirs) = self.cluster.filter(|theirs| *theirs != ours) {
            let text = format!(
                "the data directory or the store of node {} belongs to cluster {theirs}, this is cluster {ours}. Check \
                 cluster.seeds, node.data_dir and store.url: one of them is of another cluster",
                self.node
            );
            return Err(JoinRefusal::new(ErrorCode::ClusterMismatch, text));
        }
        if self.cluster.is_none() {
            let text = format!(
                "the store of node {} is empty, and cluster {ours} has one that is not. Check store.url: all nodes of a \
                 cluster have the same",
                self.node
            );
            return Err(JoinRefusal::new(ErrorCode::ClusterMismatch, text));
        }
        Ok(())
    }

    /// The command that lets it in.
    pub(crate) fn admission(&self) -> Command {
        Command::AdmitNode {
            node: self.node,
            directory: self.directory,
            features: self.features,
            version: self.version.clone(),
        }
    }
}

/// What the metadata answered to the admission, as the applicant is told.
pub(crate) fn judge(outcome: &Outcome) -> Result<(), JoinRefusal> {
    let (code, text) = match outcome {
        Outcome::Done => return Ok(()),
        Outcome::MemberRefused(refusal @ MemberRefusal::LevelUnknown { .. }) => {
            (ErrorCode::FeatureLevel, refusal.to_string())
        }
        Outcome::MemberRefused(refusal) => (ErrorCode::NodeRefused, refusal.to_string()),
        Outcome::Refused(refusal @ Refusal::Limit { .. }) => (ErrorCode::LimitExceeded, refusal.to_string()),
        Outcome::Refused(refusal) => (ErrorCode::Internal, refusal.to_string()),
        other => (ErrorCode::Internal, format!("the metadata answered {other:?}")),
    };
    Err(JoinRefusal::new(code, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant() -> Applicant {
        Applicant {
            node: NodeId::new(2),
            directory: DirectoryId::from_bytes([7; 16]),
            cluster: None,
            internal: "127.0.0.1:9095".to_owned(),
            features: FeatureRange { min: FeatureLevel::new(1), max: FeatureLevel::new(2) },
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let applicant = Applicant { cluster: Some(ClusterId::from_bytes([3; 16])), ..applicant() };
        assert_eq!(Applicant::of_request(applicant.request(Timestamp::from_millis(5))), Ok(applicant));
    }

    #[track_caller]
    fn check(cluster: Option<u8>, expected: Option<ErrorCode>) {
        let cluster = cluster.map(|byte| ClusterId::from_bytes([byte; 16]));
        let checked = Applicant { cluster, ..applicant() }.check_cluster(ClusterId::from_bytes([3; 16]));
        assert_eq!(checked.err().map(|refusal| refusal.code), expected);
    }

    #[test]
    fn the_directory_or_the_store_of_another_cluster_is_refused() {
        check(Some(3), None);
        check(Some(4), Some(ErrorCode::ClusterMismatch));
        check(None, Some(ErrorCode::ClusterMismatch));
    }

    #[test]
    fn a_refusal_crosses_the_wire_and_a_failure_is_none() {
        let refusal = JoinRefusal::new(ErrorCode::NodeRefused, "no");
        assert_eq!(JoinRefusal::of_status(&refusal.status()), Some(refusal));
        assert_eq!(JoinRefusal::of_status(&Status::unavailable("away")), None);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let whole = applicant().request(Timestamp::from_millis(1));
        for broken in [
            pb::JoinRequest { node_id: 0, ..whole.clone() },
            pb::JoinRequest { directory: vec![1; 15].into(), ..whole.clone() },
            pb::JoinRequest { cluster_id: Some(vec![1; 17].into()), ..whole.clone() },
            pb::JoinRequest { internal_address: String::new(), ..whole.clone() },
            pb::JoinRequest { version: "v".repeat(513), ..whole.clone() },
            pb::JoinRequest { feature_level_min: 3, feature_level_max: 2, ..whole },
        ] {
            assert!(Applicant::of_request(broken).is_err());
        }
    }
}
