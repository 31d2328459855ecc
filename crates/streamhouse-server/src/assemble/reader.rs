//! A node that only reads: no member, no log, no disk. It follows one of the brokers.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::{Broker, BrokerOptions, BrokerSettings, HighWatermarks, MetadataLog as _, Role};
use streamhouse_cluster::{JoinError, JoinRefusal, ReaderLog, ReaderTold};
use streamhouse_grpc::{Routing, Seat};
use streamhouse_storage::Store;
use streamhouse_types::LogIndex;
use streamhouse_types::error_code::ErrorCode;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{BegunAs, EntryError, Place, StartError, identity};
use crate::data_dir::DataDir;

/// How long a reader looks for a node to follow before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Follows one of the seeds until it has the metadata, and starts a broker that reads.
pub(super) async fn begin(
    place: &Place<'_>,
    store: Store,
    found: &identity::Found,
    data_dir: Option<&DataDir>,
    background: &CancellationToken,
) -> Result<BegunAs, StartError> {
    let Place { config, env, .. } = *place;
    let watermarks = HighWatermarks::new();
    let told = ReaderTold {
        node: config.node.id,
        version: crate::VERSION.to_owned(),
        zone: config.node.zone.clone(),
        grpc: place.told.grpc.clone(),
    };
    let log = ReaderLog::new(told, env, config.cluster.seeds.clone(), watermarks.clone());
    // Until there is a broker nothing is read, and nothing may be deleted.
    let broker: Arc<OnceCell<Broker>> = Arc::default();
    let reads = Arc::clone(&broker);
    let pinned = move || reads.get().map_or(LogIndex::ZERO, Broker::pinned);
    tokio::spawn(background.clone().run_until_cancelled_owned(log.clone().run(pinned)));
    tokio::select! {
        () = log.ready() => {}
        problem = log.outdated() => {
            background.cancel();
            let refusal = JoinRefusal { code: ErrorCode::FeatureLevel, text: problem };
            return Err(StartError::Entry(EntryError::Join(JoinError::Refused(refusal))));
        }
        () = env.clock.sleep(PATIENCE) => {
            background.cancel();
            let last = log.trouble().unwrap_or_else(|| "no node sends its metadata".to_owned());
            let error = JoinError::Unreachable { asked: config.cluster.seeds.clone(), last };
            return Err(StartError::Entry(EntryError::Join(error)));
        }
    }
    let state = log.state();
    let cluster_id = state.cluster().expect("a node sends no snapshot before it has a cluster");
    identity::check_store(cluster_id, state.objects().count(), &store, found).await?;
    let node = config.node.id;
    if state.member(node).is_some_and(|member| !member.is_removed()) {
        background.cancel();
        let text = format!("node {node} is a broker of this cluster; a reader wants a `node.id` of its own");
        let refusal = JoinRefusal { code: ErrorCode::NodeRefused, text };
        return Err(StartError::Entry(EntryError::Join(JoinError::Refused(refusal))));
    }
    let options = BrokerOptions {
        role: Role::Reader,
        node,
        zone: config.node.zone.clone(),
        addresses: Vec::new(),
        env: env.clone(),
        log: Arc::new(log.clone()),
        store,
        watermarks,
        sweep_gate: Arc::new(()),
        settings: BrokerSettings {
            disk_cache: config.broker().disk_cache.filter(|_| data_dir.is_some()),
            ..config.broker()
        },
    };
    let started = Broker::start(options).await.map_err(StartError::Broker)?;
    // It is set here alone.
    drop(broker.set(started.clone()));
    let routing = Routing::new(log.moved());
    Ok(BegunAs { broker: started, cluster_id, seat: Seat::Reader(log), raft: None, routing })
}
