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
    /// Whether there was one voter alone, whose calendar was far ahead: it has nobody to ask what time it is.
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
            seen.lone |= is_lone_voter(world, site);
            if !site.raft.lock().as_ref().is_some_and(RaftNode::is_leader) {
                continue;
            }
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

/// Whether it leads as the only voter, as it or whoever follows it sees that: one that starts leads before it shows itself.
fn is_lone_voter(world: &World, site: &Site) -> bool {
    world.nodes.iter().any(|other| {
        let raft = other.raft.lock();
        let Some(status) = raft.as_ref().map(RaftNode::status) else { return false };
        let voters = status.members.iter().filter(|member| member.is_voter);
        status.leader == Some(site.id()) && voters.map(|member| member.node).eq([site.id()])
    })
}
