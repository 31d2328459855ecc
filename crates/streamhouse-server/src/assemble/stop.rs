//! Taking a node apart, so that nobody is left without an answer.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::metadata::{Command, Drain, Liveness, NodeEntry};
use streamhouse_cluster::Cluster;
use streamhouse_env::Clock;
use streamhouse_groups::Groups;
use streamhouse_grpc::Seat;
use tonic_health::ServingStatus;

use super::Parts;
use super::entry::until;
use crate::health::Health;
use crate::telemetry::DRAIN_STAGE_SECONDS;

/// How long clients have to end their sessions after they were told that the node goes away.
const SESSION_GRACE: Duration = Duration::from_secs(2);
/// How long others have to become the homes of what was at home here.
const HOMES_GRACE: Duration = Duration::from_secs(5);
/// How long it may take to store what members of consumer groups have committed.
const GROUPS_GRACE: Duration = Duration::from_secs(2);
/// How long calls under way may take to end once everything is answered.
const LISTENER_GRACE: Duration = Duration::from_secs(3);

/// How long it may take to have it agreed that the node has stopped; longer than an election takes.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// The same when no other node is there to agree: then it only works where no other has a vote.
const CLOSE_GRACE_ALONE: Duration = Duration::from_millis(500);

/// Stops a node in order.
pub(super) async fn stop(health: Arc<Health>, parts: Parts) {
    let Parts { clock, listeners, services, broker, seat, raft, data_dir, background } = parts;
    let member = if let Seat::Member(cluster) = &seat { Some(cluster) } else { None };
    let stages = Stages { clock: Arc::clone(&clock), begun: clock.now() };
    health.drain();
    if let Some(data_dir) = &data_dir {
        data_dir.remove_endpoints();
    }
    listeners.report(ServingStatus::NotServing).await;

    if let Some(cluster) = member {
        stages.run("homes", give_homes_away(cluster, &clock)).await;
    }
    if let Some(groups) = &services.groups {
        stages.run("groups", give_groups_away(groups, &clock)).await;
    }
    services.drain.cancel();
    services.sessions.close();
    stages
        .run("sessions", async {
            tokio::select! {
                () = services.sessions.wait() => {}
                () = clock.sleep(SESSION_GRACE) => {}
            }
        })
        .await;
    stages.run("flush", broker.flush()).await;
    // The last node of a cluster that is stopped finds no majority any more.
    let is_last = member.is_some_and(|cluster| cluster.has_other_voters() && !has_others_alive(cluster));
    if let Some(cluster) = member.filter(|_| !is_last) {
        stages.run("leadership", pass_leadership_on(cluster)).await;
    }
    // Before the incarnation is closed: a heart that still beats would take that for a loss and register anew.
    background.cancel();
    stages.run("registration", broker.shutdown(closed_in_vain(member, &clock))).await;
    services.stop.cancel();
    stages.run("listeners", listeners.close(&*clock, LISTENER_GRACE)).await;
    if let Some(cluster) = member {
        cluster.controller().stop();
    }
    if let Some(raft) = raft {
        stages.run("metadata log", raft.shutdown()).await;
    }
    drop(data_dir);
    tracing::info!(took = ?clock.now().saturating_sub(stages.begun), "node has stopped");
}

/// Says that the node leaves, and waits until others are the homes of what was at home here. Alone it has nobody to give
/// them to, also when the others come to leave meanwhile.
async fn give_homes_away(cluster: &Cluster, clock: &Arc<dyn Clock>) {
    let node = cluster.node();
    let is_alone = || !cluster.state().eligible_homes().any(|home| home.id() != node);
    if is_alone() {
        return;
    }
    let mut request = [0; 16];
    cluster.fill_random(&mut request);
    let leaving = cluster.propose(Command::SetDrain { request, node, drain: Drain::Leaving });
    tokio::select! {
        told = leaving => if let Err(error) = told {
            tracing::warn!(%error, "the cluster was not told that this node leaves; it finds out by its silence");
            return;
        },
        _ = until(clock, HOMES_GRACE, is_alone) => return,
    }
    let at_home = || cluster.state().partitions().any(|partition| partition.home() == node);
    if !until(clock, HOMES_GRACE, || !at_home() || is_alone()).await {
        tracing::warn!("homes are still on this node; they move once it is gone");
    }
}

/// Sends the members of consumer groups to other nodes, once what they have committed is stored.
async fn give_groups_away(groups: &Groups, clock: &Arc<dyn Clock>) {
    tokio::select! {
        () = groups.drain() => {}
        () = clock.sleep(GROUPS_GRACE) => {
            tracing::warn!("offsets were still to be stored; those who commit them commit again elsewhere");
        }
    }
}

/// Whether another node runs and stays, as far as this one knows.
fn has_others_alive(cluster: &Cluster) -> bool {
    let state = cluster.state();
    let mut others = state.members().filter(|member| member.id() != cluster.node() && !member.is_removed());
    others.any(|member| {
        let open = state.node(member.id()).is_some_and(NodeEntry::is_open);
        open && member.liveness() == Liveness::Alive && member.drain() != Drain::Leaving
    })
}

/// Returns once the end of this node's incarnation has been waited for long enough: soon, where the others that could agree
/// have stopped, also when they do so meanwhile.
async fn closed_in_vain(member: Option<&Cluster>, clock: &Arc<dyn Clock>) {
    let alone = || member.is_some_and(|cluster| cluster.has_other_voters() && !has_others_alive(cluster));
    until(clock, CLOSE_GRACE - CLOSE_GRACE_ALONE, alone).await;
    clock.sleep(CLOSE_GRACE_ALONE).await;
}

/// The others elect nobody as fast as a leader can name its successor.
async fn pass_leadership_on(cluster: &Cluster) {
    if !cluster.leads() || !cluster.has_other_voters() {
        return;
    }
    match cluster.transfer_leader(None).await {
        Ok(leader) => tracing::info!(%leader, "leadership was passed on"),
        Err(error) => tracing::warn!(%error, "leadership was not passed on"),
    }
}

struct Stages {
    clock: Arc<dyn Clock>,
    begun: Duration,
}

impl Stages {
    async fn run(&self, stage: &'static str, work: impl Future<Output = ()>) {
        let begun = self.clock.now();
        work.await;
        let took = self.clock.now().saturating_sub(begun);
        metrics::gauge!(DRAIN_STAGE_SECONDS, "stage" => stage).set(took.as_secs_f64());
        tracing::info!(stage, ?took, "drain stage done");
    }
}
