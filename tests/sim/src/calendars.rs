//! Which calendars are wrong, and whether the cluster may be wrong about the time because of them.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use streamhouse_metadata::State;
use streamhouse_raft::RaftNode;

use crate::machine::EPOCH_MS;
use crate::world::{Site, World};

/// A calendar that is further ahead than this is not believed.
const AHEAD_MAX_MS: i64 = 300_000;

/// What has been seen of the calendars of a run.
#[derive(Debug, Default)]
pub(crate) struct Calendars(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Places whose calendar was ever far ahead. Also of one that is right again others may have heard late.
    ahead: BTreeSet<u64>,
    /// Whether one voter alone led whose calendar was far ahead: it has nobody to ask what time it is.
    lone: bool,
    /// Places that led while their calendar was far ahead.
    led: BTreeSet<u64>,
}

impl Calendars {
    /// Asked at every step: a voter may be alone for a moment only, as when the others leave.
    pub(crate) fn look(&self, world: &World) {
        let mut seen = self.0.lock();
        for site in world.nodes.iter().filter(|site| is_far_ahead(site)) {
            seen.ahead.insert(site.place);
            let raft = site.raft.lock();
            let Some(leader) = raft.as_ref().filter(|raft| raft.is_leader()) else { continue };
            seen.lone |= is_alone(leader);
            if !seen.excuses(world) && seen.led.insert(site.place) {
                world.coverage.count("clock: one led whose calendar alone was far ahead");
            }
        }
    }

    /// Cluster time must not run ahead of the world's, as deletion and expiry go by it, unless so many calendars did that
    /// nobody could tell.
    pub(crate) fn judge(&self, world: &World, state: &State, now: Duration) -> Result<(), String> {
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let ahead_ms = state.cluster_time().as_millis() - EPOCH_MS - now_ms;
        // A calendar so far ahead is borne, and one that far ahead of it while a new leader has yet to ask. Clocks run up
        // to a fifth too fast.
        if ahead_ms <= 2 * AHEAD_MAX_MS + now_ms / 5 || self.0.lock().excuses(world) {
            return Ok(());
        }
        Err(format!("cluster time is {} s ahead", ahead_ms / 1_000))
    }
}

impl Seen {
    fn excuses(&self, world: &World) -> bool {
        // Of a bare majority the lower of the middle ones counts.
        let borne = (world.nodes.len() / 2).div_ceil(2);
        self.lone || self.ahead.len() > borne
    }
}

fn is_far_ahead(site: &Site) -> bool {
    site.skew.offset_ms.load(Ordering::Relaxed) > AHEAD_MAX_MS
}

fn is_alone(leader: &RaftNode) -> bool {
    leader.members().iter().filter(|member| member.is_voter).count() == 1
}
