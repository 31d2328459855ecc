//! Who may come in, decided before a request's body is read.

use std::sync::{Arc, OnceLock};

use streamhouse_types::{ClusterId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata of a request between nodes that names the sender's cluster, as text.
pub const CLUSTER_METADATA: &str = "streamhouse-cluster";

/// Requests of other nodes at one time. A leader keeps two open to each follower; each forwarded proposal is one.
const REQUESTS_MAX: usize = 256;
/// Bytes of forwarded commands that are waited for at one time.
const FORWARDED_BYTES_MAX: u32 = 64 << 20;
/// Forwarded proposals that are waited for at one time; they leave room for votes and replication.
const FORWARDED_MAX: usize = 128;
/// A snapshot is held in memory while it comes in.
const SNAPSHOTS_MAX: usize = 1;

/// How much other nodes may ask of this one at a time, so that its memory is bounded whatever they do.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    requests: Arc<Semaphore>,
    forwarded: Arc<Semaphore>,
    forwarded_bytes: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
}

/// Room that is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            forwarded: Arc::new(Semaphore::new(FORWARDED_MAX)),
            forwarded_bytes: Arc::new(Semaphore::new(FORWARDED_BYTES_MAX as usize)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        }
    }

    /// Room for a proposal of `bytes` bytes; `None` while there is none.
    pub(super) fn for_proposal(&self, bytes: usize) -> Option<Taken> {
        let bytes = u32::try_from(bytes).ok()?;
        let one = self.forwarded.clone().try_acquire_owned().ok()?;
        let bytes = self.forwarded_bytes.clone().try_acquire_many_owned(bytes).ok()?;
        Some(Taken { _permits: [Some(one), Some(bytes)] })
    }

    /// Room for a snapshot.
    pub(super) fn for_snapshot(&self) -> Result<Taken, Status> {
        let one = self.snapshots.clone().try_acquire_owned();
        let one = one.map_err(|_| Status::resource_exhausted("another snapshot is coming in"))?;
        Ok(Taken { _permits: [Some(one), None] })
    }
}

/// The place of a request among those that are let in; to be kept until it is answered.
#[derive(Debug, Clone)]
pub(super) struct Entered {
    _place: Arc<OwnedSemaphorePermit>,
}

/// Whether a node takes part in its cluster, which never ends once it has begun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part(Arc<OnceLock<()>>);

impl Part {
    pub(crate) fn begin(&self) {
        self.0.get_or_init(|| ());
    }

    fn has_begun(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Lets in what comes from the same cluster, once the node takes part in it, and not too much of it.
#[derive(Debug, Clone)]
pub struct ClusterGuard {
    node: NodeId,
    cluster: Arc<OnceLock<ClusterId>>,
    part: Part,
    room: Room,
}

impl ClusterGuard {
    pub(super) fn new(node: NodeId, cluster: Arc<OnceLock<ClusterId>>, part: Part, room: Room) -> Self {
        Self { node, cluster, part, room }
    }

    /// A node whose directory was lost must not answer for the one it was: its empty log would vote for a node that
    /// lacks what the old one has acknowledged.
    fn check_part(&self) -> Result<(), Status> {
        if self.part.has_begun() {
            return Ok(());
        }
        Err(Status::unavailable(format!("node {} is not let into a cluster yet", self.node)))
    }

    /// A node that came to the address of one of another cluster must not speak with its members.
    fn check_cluster(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let (Some(own), Some(theirs)) = (self.cluster.get(), metadata.get(CLUSTER_METADATA)) else {
            return Ok(());
        };
        let own = own.to_string();
        if theirs.as_bytes() == own.as_bytes() {
            return Ok(());
        }
        let theirs: String = theirs.to_str().unwrap_or("an unreadable one").chars().take(64).collect();
        let node = self.node;
        Err(Status::failed_precondition(format!(
            "this is node {node} of cluster {own}, but the request is from cluster {theirs}; check the addresses"
        )))
    }
}

impl Interceptor for ClusterGuard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.check_cluster(request.metadata())?;
        self.check_part()?;
        let place = self.room.requests.clone().try_acquire_owned();
        let place =
            place.map_err(|_| Status::resource_exhausted("too many requests of other nodes at once"))?;
        request.extensions_mut().insert(Entered { _place: Arc::new(place) });
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(own: Option<[u8; 16]>) -> ClusterGuard {
        let cluster = OnceLock::new();
        if let Some(own) = own {
            cluster.set(ClusterId::from_random_bytes(own)).expect("empty");
        }
        let part = Part::default();
        part.begin();
        ClusterGuard::new(NodeId::new(2), Arc::new(cluster), part, Room::new())
    }

    fn request(cluster: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(cluster) = cluster {
            request.metadata_mut().insert(CLUSTER_METADATA, cluster.parse().expect("plain text"));
        }
        request
    }

    #[test]
    fn a_request_of_another_cluster_is_refused_by_both_names() {
        let (own, other) = ([1; 16], ClusterId::from_random_bytes([2; 16]).to_string());
        let refused = guard(Some(own)).call(request(Some(&other))).expect_err("foreign");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        let own = ClusterId::from_random_bytes(own).to_string();
        assert!(refused.message().contains(&own) && refused.message().contains(&other), "{refused}");
        guard(Some([1; 16])).call(request(Some(&own))).expect("the same cluster");
    }

    #[test]
    fn who_does_not_know_a_cluster_yet_is_let_in() {
        guard(Some([1; 16])).call(request(None)).expect("a node that joins");
        guard(None).call(request(Some("anything"))).expect("this one joins");
    }

    #[test]
    fn nobody_comes_in_before_the_node_takes_part() {
        let part = Part::default();
        let mut guard = ClusterGuard::new(NodeId::new(2), Arc::default(), part.clone(), Room::new());
        let refused = guard.call(request(None)).expect_err("not let in yet");
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        part.begin();
        guard.call(request(None)).expect("let in");
    }

    #[test]
    fn no_more_requests_come_in_than_there_is_room_for() {
        let mut guard = guard(None);
        let inside: Vec<_> = (0..REQUESTS_MAX).map(|_| guard.call(request(None)).expect("room")).collect();
        let refused = guard.call(request(None)).expect_err("full");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(inside);
        guard.call(request(None)).expect("room again");
    }

    #[test]
    fn forwarded_commands_are_bounded_in_number_and_bytes() {
        let room = Room::new();
        let large = room.for_proposal(FORWARDED_BYTES_MAX as usize).expect("room");
        assert!(room.for_proposal(1).is_none());
        drop(large);
        let many: Vec<_> = (0..FORWARDED_MAX).map(|_| room.for_proposal(1).expect("room")).collect();
        assert!(room.for_proposal(1).is_none());
        drop(many);
        let one = room.for_snapshot().expect("room");
        assert!(room.for_snapshot().is_err());
        drop(one);
    }
}
