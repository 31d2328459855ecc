//! A node's process: the real assembly on a simulated machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use streamhouse_cluster::LeaseSettings;
use streamhouse_env::Env;
use streamhouse_raft::RaftSettings;
use streamhouse_server::{Config, ConfigSources, StartError, Tuning, check_config, start_tuned};
use streamhouse_types::error_code::ErrorCode;

use crate::store;
use crate::swarm::Kind;
use crate::world::{Exit, Site, Stage, Standing, World};

/// Runs until the process ends; the loop of the run starts the next one.
pub(crate) async fn run(world: Arc<World>, place: usize) -> turmoil::Result {
    let site = &world.nodes[place];
    if site.boots.fetch_add(1, Ordering::Relaxed) == 0 && place + 1 == world.nodes.len() {
        come_late(&world).await;
    }
    let exit = process(&world, site).await;
    tracing::info!(node = %site.id(), ?exit, "process ended");
    *site.raft.lock() = None;
    *site.exit.lock() = Some(exit);
    Ok(())
}

/// A node that comes while there is load gets what it missed as a snapshot.
async fn come_late(world: &World) {
    if let Some(late) = world.plan.late_ms {
        world.passed(Stage::Start).await;
        plain_env(world, "late").clock.sleep(Duration::from_millis(late)).await;
    }
}

async fn process(world: &World, site: &Site) -> Exit {
    let env = world.env(&site.name, site.parts());
    let standing = site.standing();
    let running = match start_tuned(config(world, site), env, tuning(world)).await {
        Ok(running) => running,
        Err(error) if site.disk.is_without_power() => return Exit::Failed(chain(&error)),
        Err(error) => return refused(world, site, &error),
    };
    if standing == Standing::Removed || site.is_wiped() {
        world.violate(format!(
            "{} was removed or has lost its disk, and takes part again as node {}",
            site.name,
            site.id()
        ));
    }
    if is_replacement(world, site) {
        world.coverage.count("a new node took the place of one that was removed");
    }
    *site.raft.lock() = running.raft().cloned();
    tokio::select! {
        biased;
        failure = running.failed() => Exit::Failed(failure.to_string()),
        refusal = running.refused() => {
            if site.standing() == Standing::Wanted {
                world.violate(format!("{} is not wanted any more: {}", site.name, chain(&*refusal)));
            }
            world.coverage.count("a node heard that it was removed");
            *site.raft.lock() = None;
            running.shutdown().await;
            Exit::Failed(refusal.to_string())
        }
        () = site.stop.notified() => {
            *site.raft.lock() = None;
            running.shutdown().await;
            Exit::Stopped
        }
    }
}

/// A node that does not start is started again. Some reasons must not occur, whatever fails.
fn refused(world: &World, site: &Site, error: &StartError) -> Exit {
    let text = chain(error);
    let excused = match error.code() {
        ErrorCode::StoreUnavailable | ErrorCode::MetadataUnavailable | ErrorCode::DiskFull => true,
        // It may have asked just before all calendars were put right.
        ErrorCode::ClockSkew => world.stage() <= Stage::Settle && world.plan.kinds.contains(&Kind::ClockJump),
        // Nobody lets it in while an operator has another machine off, which may be for longer than it asks.
        ErrorCode::Unreachable if is_replacement(world, site) => true,
        // The first of the seeds sees by the store that there is a cluster; the others are told.
        ErrorCode::NodeRefused | ErrorCode::ClusterMismatch if site.is_wiped() => {
            world.coverage.count("a node without its disk was not let in");
            true
        }
        ErrorCode::NodeRefused if site.standing() != Standing::Wanted => {
            world.coverage.count("a node that was removed was not let in again");
            true
        }
        _ => false,
    };
    if !excused {
        world.violate(format!("{} does not start: {text}", site.name));
    }
    Exit::Failed(text)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Whether the node of a place is not the one that was there first.
fn is_replacement(world: &World, site: &Site) -> bool {
    site.id().get() > world.plan.nodes
}

fn config(world: &World, site: &Site) -> Config {
    let plan = &world.plan;
    let millis = |value: u64| format!("{value}ms");
    let flags = [
        ("node.id", site.id().to_string()),
        ("node.zone", zone(site)),
        // The first of the seeds would found another cluster, which the mark of this one in the store forbids.
        ("cluster.bootstrap", (!is_replacement(world, site)).to_string()),
        ("node.data_dir", "/data".to_owned()),
        ("listeners.grpc", "0.0.0.0:9094".to_owned()),
        ("listeners.internal", "0.0.0.0:9095".to_owned()),
        ("listeners.http", "0.0.0.0:8080".to_owned()),
        ("listeners.kafka", "0.0.0.0:9092".to_owned()),
        ("listeners.advertised_grpc", format!("{}:9094", site.name)),
        ("listeners.advertised_internal", format!("{}:9095", site.name)),
        ("listeners.advertised_kafka", format!("{}:9092", site.name)),
        ("store.url", format!("s3://{}", store::BUCKET)),
        ("store.endpoint", store::endpoint()),
        ("store.allow_http", "true".to_owned()),
        ("store.access_key_id", "any".to_owned()),
        ("store.secret_access_key", "secret".to_owned()),
        ("wal.flush_interval", millis(plan.flush_ms)),
        ("storage.delete_grace", millis(plan.delete_grace_ms)),
        ("storage.sweep_interval", millis(plan.sweep_ms)),
        ("limits.in_flight_bytes", (16 << 20).to_string()),
        ("limits.cache_bytes", plan.cache_bytes.to_string()),
        // It lies in real files, on threads of its own.
        ("limits.disk_cache_bytes", "0".to_owned()),
    ];
    let seeds: Vec<String> = world.nodes.iter().map(|site| format!("{}:9095", site.name)).collect();
    let seeds = (seeds.len() > 1).then(|| ("cluster.seeds", seeds.join(",")));
    let flags = flags.into_iter().chain(seeds).map(|(key, value)| (key.to_owned(), value)).collect();
    let sources = ConfigSources { flags, ..ConfigSources::default() };
    check_config(&sources).unwrap_or_else(|error| panic!("{error}"))
}

/// Where a node is. Each is alone there, so that a Kafka client that says where it is reads from that node.
pub(crate) fn zone(site: &Site) -> String {
    format!("zone-{}", site.place)
}

/// Small files, few entries and short spans, so that everything that happens to a log or a lease happens in a minute.
fn tuning(world: &World) -> Tuning {
    let plan = &world.plan;
    let raft = RaftSettings {
        snapshot_entries: plan.snapshot_entries,
        keep_entries: plan.keep_entries,
        segment_bytes: 64 << 10,
        cache_bytes: 64 << 10,
        ..RaftSettings::default()
    };
    let lease =
        LeaseSettings { close_after: Duration::from_millis(plan.close_after_ms), ..LeaseSettings::default() };
    Tuning { raft: Some(raft), lease }
}

/// How long a process that ended stays down.
pub(crate) const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The machine of a host that is no node.
pub(crate) fn plain_env(world: &World, host: &str) -> Env {
    world.env(host, crate::world::HostParts::default())
}
