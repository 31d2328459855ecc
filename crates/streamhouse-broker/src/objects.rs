//! What lies in the store: sums, and one object in detail.

use futures::TryStreamExt as _;
use streamhouse_metadata::{Extent, State};
use streamhouse_storage::layout::Named;
use streamhouse_storage::object::{ExtentEntry, ObjectHeader, ReadObjectError, read_footer, read_header};
use streamhouse_storage::{GetError, Key, Layout, Purpose, Store};
use streamhouse_types::{ClusterId, ObjectId, Offset};
use streamhouse_verify::{Depth, VerifyProgress, verify};
use tokio::sync::mpsc;

use crate::Broker;
use crate::error::StorageError;
use crate::sweep::SweepReport;

/// Sums over the objects of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageSummary {
    /// The cluster.
    pub cluster: ClusterId,
    /// WAL objects that metadata refer to.
    pub wal_objects: u64,
    /// Their bytes.
    pub wal_bytes: u64,
    /// Metadata snapshots in the store.
    pub snapshot_objects: u64,
    /// Their bytes.
    pub snapshot_bytes: u64,
    /// Objects that nothing refers to any more and that are not deleted yet.
    pub garbage_objects: u64,
    /// Their bytes.
    pub garbage_bytes: u64,
}

/// How an object stands with the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// Extents refer to it.
    Referenced,
    /// Nothing refers to it any more; it goes after the grace.
    Garbage,
    /// It was never committed and never can be.
    Orphan,
    /// Its slot is not decided yet.
    Undecided,
}

impl ObjectState {
    /// Reads it off a state.
    #[must_use]
    pub fn of(state: &State, object: &ObjectId) -> Self {
        if state.object(object).is_some() {
            Self::Referenced
        } else if state.garbage().any(|(garbage, _)| garbage == *object) {
            Self::Garbage
        } else if state.is_orphan(object) {
            Self::Orphan
        } else {
            Self::Undecided
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Referenced => "referenced",
            Self::Garbage => "garbage",
            Self::Orphan => "orphan",
            Self::Undecided => "in flight",
        }
    }
}

/// One object in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectReport {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub length: u64,
    /// What it says of itself.
    pub header: ObjectHeader,
    /// How it stands with the metadata.
    pub state: ObjectState,
    /// Its extents, each with the runs of it that were committed.
    pub extents: Vec<(ExtentEntry, Vec<Extent>)>,
}

impl Broker {
    /// Checks the store against the metadata as they are now. The check ends when the receiver is dropped.
    #[must_use]
    pub fn verify(&self, depth: Depth) -> mpsc::Receiver<Result<VerifyProgress, StorageError>> {
        let (port, progress) = mpsc::channel(16);
        let broker = self.clone();
        tokio::spawn(async move {
            let shared = &broker.0;
            if let Err(error) = shared.log.read_index().await {
                drop(port.send(Err(error.into())).await);
                return;
            }
            let look = |state: &State| (state.clone(), shared.pins.pin(state));
            let (state, _pin) = crate::log::read(&*shared.log, look);
            let store = shared.source.store().clone();
            if let Err(error) = verify(&state, &store, shared.layout, depth, &port).await {
                // Whoever no longer listens has dropped its end.
                drop(port.send(Err(error.into())).await);
            }
        });
        progress
    }

    /// Deletes orphans and ripe garbage now. When a sweep runs already, another one follows it.
    ///
    /// # Errors
    /// When the store cannot be listed, or the metadata cannot be shown to be current.
    pub async fn sweep_now(&self) -> Result<SweepReport, StorageError> {
        self.0.sweep.sweep().await
    }

    /// Sums over what lies in the store.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn summary(&self) -> Result<StorageSummary, StorageError> {
        summary(&self.state(), self.0.source.store(), self.0.layout).await
    }

    /// One object in detail, by its key or its id.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] and [`StorageError::Damaged`] among others.
    pub async fn inspect(&self, name: &str) -> Result<ObjectReport, StorageError> {
        inspect(&self.state(), self.0.source.store(), self.0.layout, name).await
    }
}

/// Sums over what lies in a store, also for a stopped cluster.
///
/// # Errors
/// When the store cannot be listed.
pub async fn summary(state: &State, store: &Store, layout: Layout) -> Result<StorageSummary, StorageError> {
    let mut summary = StorageSummary {
        cluster: layout.cluster(),
        wal_objects: 0,
        wal_bytes: 0,
        snapshot_objects: 0,
        snapshot_bytes: 0,
        garbage_objects: 0,
        garbage_bytes: 0,
    };
    for (_, object) in state.objects() {
        summary.wal_objects += 1;
        summary.wal_bytes += object.length;
    }
    for (_, object) in state.garbage() {
        summary.garbage_objects += 1;
        summary.garbage_bytes += object.length;
    }
    let mut snapshots = store.list(&layout.snapshots_prefix(), Purpose::Meta);
    while let Some(snapshot) = snapshots.try_next().await? {
        summary.snapshot_objects += 1;
        summary.snapshot_bytes += snapshot.length;
    }
    Ok(summary)
}

/// One object in detail, by its key or its id, also for a stopped cluster.
///
/// # Errors
/// [`StorageError::NotFound`] and [`StorageError::Damaged`] among others.
pub async fn inspect(
    state: &State,
    store: &Store,
    layout: Layout,
    name: &str,
) -> Result<ObjectReport, StorageError> {
    let not_found = || StorageError::NotFound { name: name.to_owned() };
    let by_key = name.parse::<Key>().ok().and_then(|key| layout.parse(&key));
    let id = match (by_key, name.parse::<ObjectId>()) {
        (Some(Named::Wal(object)), _) | (_, Ok(object)) => object,
        _ => return Err(not_found()),
    };
    let key = layout.wal_key(&id);
    let read = async {
        let length = store.head(&key, Purpose::Verify).await?.length;
        let header = read_header(store, &key, Purpose::Verify).await?;
        Ok::<_, ReadObjectError>((length, header, read_footer(store, &key, length, Purpose::Verify).await?))
    };
    let (length, header, footer) = read.await.map_err(|error| match error {
        ReadObjectError::Get(GetError::NotFound { .. }) => not_found(),
        ReadObjectError::Get(error) => StorageError::Read(error),
        ReadObjectError::Damaged { source, .. } => {
            StorageError::Damaged { name: name.to_owned(), what: source.to_string() }
        }
    })?;
    let with_runs = |extent: ExtentEntry| {
        let runs = state.partition(extent.partition).into_iter();
        let runs = runs.flat_map(|partition| partition.extents_from(Offset::ZERO));
        let inside =
            |run: &Extent| run.object == id && (extent.position..extent.end()).contains(&run.position);
        let runs = runs.filter(inside).collect();
        (extent, runs)
    };
    let extents = footer.index.extents.into_iter().map(with_runs).collect();
    Ok(ObjectReport { key, length, header, state: ObjectState::of(state, &id), extents })
}
