//! Whose folder is this: the identity of the cluster in the store.

use std::time::Duration;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use streamhouse_types::ClusterId;

use crate::error::{GetError, ListError, PutError};
use crate::layout::{self, Key, Layout, Prefix};
use crate::payload::Payload;
use crate::store::{Purpose, PutOptions, Store};

/// The version of the marker that is written.
const FORMAT: u32 = 1;

/// How often a marker is read before it counts as damaged.
const MARKER_READS: u32 = 4;

/// What stands in the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    cluster: String,
}

impl Marker {
    fn of(layout: &Layout) -> Self {
        Self { format: FORMAT, cluster: layout.cluster().to_string() }
    }

    fn payload(&self) -> Payload {
        Payload::from(bytes::Bytes::from(serde_json::to_vec(self).expect("a marker is plain data")))
    }
}

/// Why a cluster must not write into a store.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The prefix belongs to another cluster, or to this one before its data directory was lost.
    #[error("the store belongs to cluster {found}")]
    OtherCluster {
        /// The cluster that was here first.
        found: ClusterId,
    },
    /// The store could not be asked.
    #[error("the store cannot be listed")]
    List(#[source] ListError),
    /// The marker could not be written.
    #[error("the marker of the cluster cannot be written")]
    Put(#[source] PutError),
    /// The marker could not be read.
    #[error("the marker of the cluster cannot be read")]
    Get(#[source] GetError),
    /// The marker is there, but says something else.
    #[error("the marker of the cluster is damaged or of a later version")]
    BadMarker,
}

/// Writes the identity of the cluster into the store, or checks that it stands there. To be called at every start,
/// before anything else is written.
///
/// # Errors
/// When another cluster's objects lie under the same prefix, or the store does not work.
pub async fn claim(store: &Store, layout: &Layout, options: PutOptions) -> Result<(), ClaimError> {
    if let Some(found) = other_cluster(store, layout).await? {
        return Err(ClaimError::OtherCluster { found });
    }
    let marker = Marker::of(layout);
    let key = layout.marker_key();
    // A node that starts again reads only: it comes up also while the store takes no writes.
    match read_marker(store, &key, &marker).await {
        Err(ClaimError::Get(GetError::NotFound { .. })) => {}
        read => return read,
    }
    match store.put(&key, &marker.payload(), options).await {
        Ok(()) => {}
        Err(PutError::Conflict { .. }) => return read_marker(store, &key, &marker).await,
        Err(error) => return Err(ClaimError::Put(error)),
    }
    // Two that found at once may both have seen an empty store. Whoever sees the other now gives way.
    let Some(found) = other_cluster(store, layout).await? else { return Ok(()) };
    if let Err(error) = store.delete(&key, Purpose::Meta).await {
        tracing::warn!(%error, "the marker of a cluster that gave way is still in the store");
    }
    Err(ClaimError::OtherCluster { found })
}

async fn other_cluster(store: &Store, layout: &Layout) -> Result<Option<ClusterId>, ClaimError> {
    let found = clusters_in(store).await.map_err(ClaimError::List)?;
    Ok(found.into_iter().find(|found| *found != layout.cluster()))
}

/// Shows whether the store takes writes of this node, by one that changes nothing: of the marker, which is there.
/// [`Store::writes`] tells how it went.
///
/// Cancel-safe.
pub async fn prove_writes(store: &Store, layout: &Layout, deadline: Duration) {
    let options = PutOptions { purpose: Purpose::Probe, deadline };
    store.put_again(&layout.marker_key(), &Marker::of(layout).payload(), options).await;
}

/// Reads the marker and compares it with ours. It has no checksum, so one that says something else is read again:
/// what the line or a proxy spoiled must not stop a node that has its data.
async fn read_marker(store: &Store, key: &Key, ours: &Marker) -> Result<(), ClaimError> {
    for _ in 0..MARKER_READS {
        let bytes = store.get(key, Purpose::Meta).await.map_err(ClaimError::Get)?;
        // Later versions may write more into it; what counts is whose it is.
        match serde_json::from_slice::<Marker>(&bytes) {
            Ok(found) if found.format >= FORMAT && found.cluster == ours.cluster => return Ok(()),
            _ => tracing::warn!(%key, "the marker of the cluster was read, but not understood"),
        }
    }
    Err(ClaimError::BadMarker)
}

/// The clusters that have objects in a store, by one request for each of them.
///
/// # Errors
/// When the store does not answer.
pub async fn clusters_in(store: &Store) -> Result<Vec<ClusterId>, ListError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let mut objects = store.list_after(&Prefix::root(), after, Purpose::Meta);
        let mut next = None;
        while let Some(object) = objects.next().await {
            if let Some(cluster) = layout::cluster_of(&object?.key) {
                next = Some(cluster);
                break;
            }
        }
        let Some(cluster) = next else { return Ok(found) };
        found.push(cluster);
        after = Some(layout::past_cluster(cluster));
    }
}
