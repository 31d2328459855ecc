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
    let what = once_each(failed.into_iter().map(|check| check.evidence).collect());
    Some(Obstacle { what, fix })
}

/// While nobody leads, several checks have nothing but that to say.
fn once_each(mut evidence: Vec<String>) -> String {
    evidence.dedup();
    evidence.join("; ")
}

#[cfg(test)]
mod tests {
    use super::once_each;

    #[test]
    fn what_several_checks_say_alike_is_told_once() {
        let evidence = [
            "no leader is known",
            "not known: this node finds nobody who leads a majority",
            "not known: this node finds nobody who leads a majority",
        ];
        let told = once_each(evidence.map(str::to_owned).to_vec());
        assert_eq!(told, "no leader is known; not known: this node finds nobody who leads a majority");
    }
}
