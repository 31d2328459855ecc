//! Do data directory, store and configuration belong together?

use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use streamhouse_broker::MetadataLog as _;
use streamhouse_broker::metadata::{Command, Outcome};
use streamhouse_env::{Clock, Env};
use streamhouse_storage::{
    ClaimError, Layout, ListError, Prefix, Purpose, PutOptions, Store, claim, clusters_in,
};
use streamhouse_types::ClusterId;
use streamhouse_types::error_code::ErrorCode;

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::health::Health;
use crate::metadata_log::RaftLog;

/// How long a store may be silent before the log says so, and how often it does then.
const SILENT_FOR: Duration = Duration::from_secs(3);
const TOLD_EVERY: Duration = Duration::from_secs(10);
const REACH: &str = "see that store.url is right, that the store runs and that this node reaches it";
/// How long the marker of a cluster may take to be written.
pub(super) const CLAIM_DEADLINE: Duration = Duration::from_secs(30);

/// Why they do not belong together. Every text names the way out.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// An empty directory in front of a store that is in use.
    #[error(
        "the data directory {} is empty, but the store {url} holds cluster {found}. If the directory was lost, restore \
         it, or join the other nodes of the cluster under a node.id that nobody had, with cluster.bootstrap = false; to \
         begin anew, name another prefix in store.url",
        path.display()
    )]
    Wiped {
        /// The directory.
        path: PathBuf,
        /// The store.
        url: String,
        /// Whose it is.
        found: ClusterId,
    },
    /// An empty directory may not found a cluster.
    #[error(
        "the data directory {} is empty and cluster.bootstrap is false. Set it to true to found a new cluster, or name \
         the right directory in node.data_dir",
        path.display()
    )]
    NotFounding {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is of one cluster, the store of another.
    #[error(
        "the data directory belongs to cluster {own}, the store to cluster {found}. Check node.data_dir and store.url: \
         one of them is of another cluster"
    )]
    OtherCluster {
        /// The directory's cluster.
        own: ClusterId,
        /// The store's.
        found: ClusterId,
    },
    /// Another cluster was founded in the same place while this one was.
    #[error(
        "cluster {found} was founded in the store {url} at the same time and has it. For a cluster of its own name another \
         prefix in store.url; to be a node of that one start with an empty node.data_dir, and with cluster.seeds set to the \
         listeners.internal address of one of its nodes"
    )]
    Outrun {
        /// The store.
        url: String,
        /// The cluster that was faster.
        found: ClusterId,
    },
    /// The metadata knows objects, the store has none.
    #[error(
        "cluster {own} has {objects} objects, but the store {url} is empty. Check store.url: it names another place, or \
         the objects were deleted (a memory:// store loses them at every stop)"
    )]
    Emptied {
        /// The directory's cluster.
        own: ClusterId,
        /// How many objects are missing.
        objects: usize,
        /// The store.
        url: String,
    },
    /// The store does not answer.
    #[error("the store {url} does not answer; see that store.url is right and that this node reaches it")]
    Silent {
        /// The store.
        url: String,
        /// Why.
        #[source]
        source: ListError,
    },
    /// The store does not let this node in.
    #[error(
        "the store {url} refuses this node; see that its credentials are right, that they may list, read and write, and \
         that the bucket exists"
    )]
    NotLetIn {
        /// The store.
        url: String,
        /// What it said.
        #[source]
        source: ListError,
    },
    /// The marker of the cluster.
    #[error("the store cannot be marked as this cluster's")]
    Claim(#[source] ClaimError),
    /// The cluster could not be given its identity.
    #[error("which cluster this is could not be agreed on: {reason}")]
    Founding {
        /// Why.
        reason: String,
    },
}

impl IdentityError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Wiped { .. }
            | Self::NotFounding { .. }
            | Self::OtherCluster { .. }
            | Self::Outrun { .. }
            | Self::Emptied { .. }
            | Self::Claim(ClaimError::BadMarker) => ErrorCode::ClusterMismatch,
            Self::Silent { .. } | Self::NotLetIn { .. } | Self::Claim(_) => ErrorCode::StoreUnavailable,
            Self::Founding { .. } => ErrorCode::MetadataUnavailable,
        }
    }
}

/// What was found in the store at start.
pub(super) struct Found {
    url: String,
    clusters: Vec<ClusterId>,
}

impl Found {
    /// A cluster whose objects are there.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.clusters.first().copied()
    }
}

/// Whether a data directory was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It has never held a metadata log.
    None,
    /// There is a metadata log in it.
    Used,
}

impl Past {
    pub(super) fn of(data_dir: &DataDir) -> Self {
        if data_dir.is_unused() { Self::None } else { Self::Used }
    }
}

/// As [`look`]; while the store does not answer, the log and the health page say why.
pub(super) async fn first_look(
    store: &Store,
    url: &str,
    clock: &dyn Clock,
    health: &Health,
) -> Result<Found, IdentityError> {
    let found = tokio::select! {
        found = look(store, url) => found,
        never = tell_silence(store, url, clock, health) => match never {},
    };
    health.waits(None);
    found
}

/// Looks whose objects lie in the store. Also shows that it answers.
async fn look(store: &Store, url: &str) -> Result<Found, IdentityError> {
    let url = url.to_owned();
    match clusters_in(store).await {
        Ok(clusters) => Ok(Found { url, clusters }),
        Err(source) if source.is_refusal() => Err(IdentityError::NotLetIn { url, source }),
        Err(source) => Err(IdentityError::Silent { url, source }),
    }
}

/// Says why a store does not answer, for as long as it is waited for.
async fn tell_silence(store: &Store, url: &str, clock: &dyn Clock, health: &Health) -> Infallible {
    let mut pause = SILENT_FOR;
    loop {
        clock.sleep(pause).await;
        pause = TOLD_EVERY;
        if let Err(error) = store.probe(&Prefix::root()).await {
            let why = with_causes(&error.source);
            health.waits(Some(format!("waits for the object store {url}: {why}")));
            tracing::warn!(
                url,
                error = why,
                fix = REACH,
                "the node is not ready: the object store does not answer"
            );
        }
    }
}

/// An error and what led to it, in one line. Some libraries tell the cause in their own text as well.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (**cause).source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether an empty directory may found a cluster here; a used one may always go on.
pub(super) fn may_found(past: Past, found: &Found, config: &Config) -> Result<(), IdentityError> {
    if past == Past::Used {
        return Ok(());
    }
    let path = config.node.data_dir.clone();
    if let Some(cluster) = found.clusters.first() {
        return Err(IdentityError::Wiped { path, url: found.url.clone(), found: *cluster });
    }
    if !config.cluster.bootstrap {
        return Err(IdentityError::NotFounding { path });
    }
    Ok(())
}

/// Whether the store holds nothing of another cluster than the one that this node was let into.
pub(super) fn of_cluster(own: ClusterId, found: &Found) -> Result<(), IdentityError> {
    match found.clusters.iter().find(|cluster| **cluster != own) {
        Some(other) => Err(IdentityError::OtherCluster { own, found: *other }),
        None => Ok(()),
    }
}

/// Gives a new cluster its identity, or checks that the store is of the cluster of the directory.
pub(super) async fn agree(
    log: &RaftLog,
    store: &Store,
    found: &Found,
    env: &Env,
) -> Result<ClusterId, IdentityError> {
    let own = match log.state().cluster() {
        Some(own) => own,
        None => learn_or_found(log, found, env).await?,
    };
    check_store(own, log.state().objects().count(), store, found).await?;
    let options = PutOptions { purpose: Purpose::Meta, deadline: CLAIM_DEADLINE };
    match claim(store, &Layout::new(own), options).await {
        Ok(()) => Ok(own),
        // It was not there when this node looked.
        Err(ClaimError::OtherCluster { found: faster }) => {
            Err(IdentityError::Outrun { url: found.url.clone(), found: faster })
        }
        Err(error) => Err(IdentityError::Claim(error)),
    }
}

/// Whether the store is of this cluster, whose state knows of so many objects.
pub(super) async fn check_store(
    own: ClusterId,
    objects: usize,
    store: &Store,
    found: &Found,
) -> Result<(), IdentityError> {
    of_cluster(own, found)?;
    if !found.clusters.is_empty() || objects == 0 {
        return Ok(());
    }
    // Since this node looked, others may have written the first objects of which it then learned.
    let now = look(store, &found.url).await?;
    of_cluster(own, &now)?;
    if now.clusters.is_empty() {
        return Err(IdentityError::Emptied { own, objects, url: now.url });
    }
    Ok(())
}

/// A member that has applied nothing yet does not know its cluster: only a metadata log that is empty up to its end has
/// none.
async fn learn_or_found(log: &RaftLog, found: &Found, env: &Env) -> Result<ClusterId, IdentityError> {
    log.read_index().await.map_err(|error| IdentityError::Founding { reason: error.to_string() })?;
    match log.state().cluster() {
        Some(own) => Ok(own),
        None => found_cluster(log, found, env).await,
    }
}

async fn found_cluster(log: &RaftLog, found: &Found, env: &Env) -> Result<ClusterId, IdentityError> {
    let mut random = [0; 16];
    env.rng.fill(&mut random);
    let cluster = ClusterId::from_random_bytes(random);
    if let Some(other) = found.clusters.first() {
        return Err(IdentityError::OtherCluster { own: cluster, found: *other });
    }
    let now = env.clock.wall();
    let outcome = log.propose(vec![Command::Bootstrap { cluster, now }]).await.pop();
    match outcome {
        Some(Ok(Outcome::Done)) => Ok(cluster),
        Some(Ok(other)) => {
            Err(IdentityError::Founding { reason: format!("the metadata answered {other:?}") })
        }
        Some(Err(error)) => Err(IdentityError::Founding { reason: error.to_string() }),
        None => Err(IdentityError::Founding { reason: "the metadata log gave no answer".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_storage::StoreSettings;

    use super::*;

    #[tokio::test]
    async fn a_store_is_called_emptied_only_after_a_second_look() {
        let env = Env::system();
        let settings = StoreSettings { url: "memory:///".to_owned(), ..StoreSettings::default() };
        let store = streamhouse_storage::open(&settings, &env).await.expect("a store");
        let [own, other] = [1, 2].map(|byte| ClusterId::from_random_bytes([byte; 16]));
        let early = look(&store, &settings.url).await.expect("it answers");
        check_store(own, 0, &store, &early).await.expect("nobody has written anything");
        let emptied = check_store(own, 3, &store, &early).await.expect_err("three objects are gone");
        assert!(matches!(emptied, IdentityError::Emptied { objects: 3, .. }), "{emptied}");
        let options = PutOptions { purpose: Purpose::Meta, deadline: Duration::MAX };
        claim(&store, &Layout::new(own), options).await.expect("the marker of the cluster");
        check_store(own, 3, &store, &early).await.expect("others have written since");
        let stray = check_store(other, 3, &store, &early).await.expect_err("of another cluster");
        assert!(matches!(stray, IdentityError::OtherCluster { .. }), "{stray}");
    }
}
