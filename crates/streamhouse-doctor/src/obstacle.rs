//! Why a request that ran out of time did so, as far as the cluster knows.

use std::time::Duration;

use streamhouse_client::StreamHouse;

/// Longest wait for the cluster's word: a node may try its store before it answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands in the way of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// In the words of the cluster's health.
    pub what: String,
    /// What to do about the first of it.
    pub fix: String,
}

/// Asks the cluster what is wrong with it. `None` when it does not answer, or all is well. Cancel-safe.
pub async fn obstacle(house: &StreamHouse) -> Option<Obstacle> {
    let admin = house.admin();
    let health = tokio::select! {
        health = admin.health() => health.ok()?,
        () = house.env().clock.sleep(PATIENCE) => return None,
    };
    let failed: Vec<_> = health.checks.into_iter().filter(|check| !check.ok).collect();
    let fix = failed.first()?.fix.clone();
    let what = failed.into_iter().map(|check| check.evidence).collect::<Vec<_>>().join("; ");
    Some(Obstacle { what, fix })
}
