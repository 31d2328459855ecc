//! Calendars that jump.

use std::sync::atomic::Ordering;

use super::Nemesis;
use crate::swarm::{Jumps, Kind};

/// The furthest that a calendar jumps.
const HOUR_MS: u64 = 3_600_000;

/// Which calendar jumps, and whether one is to.
#[derive(Default)]
pub(super) struct Jumper {
    /// The place whose calendar has jumped last.
    place: Option<usize>,
    is_wanted: bool,
}

impl Nemesis {
    /// Some calendars are wrong from the beginning.
    pub(super) fn begin_jumps(&mut self) {
        let jumps = self.kinds.contains(&Kind::ClockJump) && self.world.plan.jumps == Jumps::OfOne;
        self.jumper.is_wanted = jumps && self.dice.one_in(2);
    }

    pub(super) fn want_jump(&mut self) {
        self.jumper.is_wanted = true;
    }

    /// A calendar jumps that is to, most often that of the node that leads or is asked to. Where the others are to know what
    /// time it is, somebody else must have a vote.
    pub(super) fn jump_when_wanted(&mut self) {
        if !self.jumper.is_wanted {
            return;
        }
        let of_one = self.world.plan.jumps == Jumps::OfOne;
        if of_one && self.world.nodes.len() > 1 && !self.world.has_voters(2) {
            return;
        }
        self.jumper.is_wanted = false;
        self.count(Kind::ClockJump);
        let place = self.jumper.place.filter(|_| of_one).unwrap_or_else(|| self.victim());
        self.jumper.place = Some(place);
        if self.dice.one_in(2) {
            let _ = self.transfer_to(place);
        }
        let offset = i64::try_from(self.dice.below(2 * HOUR_MS)).expect("small") - HOUR_MS.cast_signed();
        let site = &self.world.nodes[place];
        tracing::info!(node = site.name, offset_ms = offset, "its calendar jumps");
        site.skew.offset_ms.store(offset, Ordering::Relaxed);
    }
}
