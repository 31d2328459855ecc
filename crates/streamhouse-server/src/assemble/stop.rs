//! Taking a node apart, so that nobody is left without an answer.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_env::Clock;
use tonic_health::ServingStatus;

use super::Parts;
use crate::health::Health;

/// How long clients have to end their sessions after they were told that the node goes away.
const SESSION_GRACE: Duration = Duration::from_secs(2);
/// How long calls under way may take to end once everything is answered.
const LISTENER_GRACE: Duration = Duration::from_secs(3);

/// Stops a node in order.
pub(super) async fn stop(health: Arc<Health>, parts: Parts) {
    let Parts { clock, listeners, services, broker, raft, data_dir, background } = parts;
    let stages = Stages { clock: Arc::clone(&clock), begun: clock.now() };
    health.drain();
    data_dir.remove_endpoints();
    listeners.report(ServingStatus::NotServing).await;

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
    stages.run("flush", broker.shutdown()).await;
    services.stop.cancel();
    stages.run("listeners", listeners.close(&*clock, LISTENER_GRACE)).await;
    background.cancel();
    stages.run("metadata log", raft.shutdown()).await;
    drop(data_dir);
    tracing::info!(took = ?clock.now().saturating_sub(stages.begun), "node has stopped");
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
        tracing::info!(stage, ?took, "drain stage done");
    }
}
