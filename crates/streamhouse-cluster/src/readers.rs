//! Which readers there are, for people who look at the cluster. Nothing is decided by it.

use std::time::Duration;

use futures::future::join_all;
use streamhouse_metadata::{Liveness, Member, NodeEntry, State};
use streamhouse_proto::internal as pb;
use streamhouse_types::{LogIndex, NodeId};

use crate::cluster::Cluster;

/// Longest wait for what another node knows of its readers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a node that counts as dead, but may answer.
const DEAD_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest text that a reader may say of itself.
const TEXT_BYTES_MAX: usize = 512;

/// What a reader says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderTold {
    /// Who it is. Two readers may say the same.
    pub node: NodeId,
    /// Its release.
    pub version: String,
    /// Where it stands; may be empty.
    pub zone: String,
    /// Where clients reach it.
    pub grpc: String,
}

/// A reader, as the node that it follows knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderView {
    /// What it said of itself.
    pub told: ReaderTold,
    /// How far it has applied the metadata.
    pub applied: LogIndex,
    /// Since it was heard of last.
    pub silent: Duration,
}

impl ReaderTold {
    /// Reads what a reader says as it begins to follow; `None` from releases that do not tell.
    pub(crate) fn of(request: &pb::FollowRequest) -> Option<Self> {
        let pb::FollowRequest { version, zone, grpc_address, .. } = request.clone();
        let told = Self { node: NodeId::new(request.reader_id), version, zone, grpc: grpc_address };
        let fits = [&told.version, &told.zone, &told.grpc].iter().all(|text| text.len() <= TEXT_BYTES_MAX);
        (fits && request.reader_id > 0 && !told.version.is_empty()).then_some(told)
    }
}

impl Cluster {
    /// The readers of all nodes that answer, by number. Cancel-safe.
    pub async fn readers(&self) -> Vec<ReaderView> {
        let state = self.state();
        let asked = addresses(&state, self.node()).map(|(address, within)| self.readers_of(address, within));
        let others = join_all(asked).await.into_iter().flatten();
        let mut all: Vec<_> = self.feed().readers(self.clock().now()).into_iter().chain(others).collect();
        all.sort_by(|one, other| (one.told.node, &one.told.grpc).cmp(&(other.told.node, &other.told.grpc)));
        all
    }

    async fn readers_of(&self, address: String, within: Duration) -> Vec<ReaderView> {
        let Some(mut client) = self.peers().client(&address) else { return Vec::new() };
        let answer = tokio::select! {
            answer = client.readers(pb::ReadersRequest { of_all: false }) => answer,
            () = self.clock().sleep(within) => return Vec::new(),
        };
        answer.map(|answer| views(answer.into_inner())).unwrap_or_default()
    }
}

/// Where the other nodes are, and how long each may take to answer: one that counts as dead need not hold up a listing.
fn addresses(state: &State, but: NodeId) -> impl Iterator<Item = (String, Duration)> {
    let open = state.nodes().filter(move |node| node.is_open() && node.id() != but);
    let within = |node: &NodeEntry| match state.member(node.id()).map(Member::liveness) {
        Some(Liveness::Dead) => DEAD_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    };
    open.filter_map(move |node| Some((node.address("internal")?.to_owned(), within(node))))
}

pub(crate) fn views(answer: pb::ReadersResponse) -> Vec<ReaderView> {
    let view = |reader: pb::ReaderView| ReaderView {
        told: ReaderTold {
            node: NodeId::new(reader.reader_id),
            version: reader.version,
            zone: reader.zone,
            grpc: reader.grpc_address,
        },
        applied: LogIndex::new(reader.applied_index),
        silent: Duration::from_millis(reader.silent_ms),
    };
    answer.readers.into_iter().map(view).collect()
}

pub(crate) fn answer(readers: Vec<ReaderView>) -> pb::ReadersResponse {
    let reader = |reader: ReaderView| pb::ReaderView {
        reader_id: reader.told.node.get(),
        version: reader.told.version,
        zone: reader.told.zone,
        grpc_address: reader.told.grpc,
        applied_index: reader.applied.get(),
        silent_ms: u64::try_from(reader.silent.as_millis()).unwrap_or(u64::MAX),
    };
    pb::ReadersResponse { readers: readers.into_iter().map(reader).collect() }
}
