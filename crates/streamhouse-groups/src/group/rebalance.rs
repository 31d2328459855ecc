//! From one generation to the next.

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;

use super::member::Member;
use super::{Answer, Group, Out, Phase, Window};
use crate::GroupError;

/// How long a group of static members that are all away is left alone at least.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Group {
    /// The members are to join again, or for the first time.
    pub(super) fn prepare(&mut self, now: Duration, out: &mut Out) {
        let window = match self.phase {
            Phase::Preparing { .. } => return,
            Phase::Empty => Window::First { began: now },
            Phase::Completing | Phase::Stable => Window::Members,
        };
        for member in self.members.values_mut() {
            if let Some(waiting) = member.syncing.take() {
                member.renew(now);
                out.answer(waiting, Answer::Sync(Err(GroupError::RebalanceInProgress)));
            }
        }
        self.sync_ends = None;
        self.phase = Phase::Preparing { window, ends: now + self.rebalance_timeout() };
    }

    /// A member has come: while the group was empty, others may follow.
    pub(super) fn wait_for_more(&mut self, now: Duration) {
        if let Phase::Preparing { window: Window::First { began }, .. } = self.phase {
            let last = began + self.rebalance_timeout();
            let ends = last.min(now + self.settings.initial_rebalance_delay);
            self.phase = Phase::Preparing { window: Window::First { began }, ends };
        }
    }

    /// The longest that any member may take.
    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// Takes a member out; the others are to join again.
    pub(super) fn remove(&mut self, now: Duration, id: &str, out: &mut Out) {
        let Some(member) = self.forget_member(id) else { return };
        if let Some(waiting) = member.joining {
            out.answer(waiting, Answer::Join(Err(GroupError::UnknownMember)));
        }
        if let Some(waiting) = member.syncing {
            out.answer(waiting, Answer::Sync(Err(GroupError::UnknownMember)));
        }
        self.prepare(now, out);
    }

    /// Takes a member out that waits for nothing.
    pub(super) fn forget_member(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        Some(member)
    }

    /// Ends the wait for members when it is over.
    pub(super) fn settle(&mut self, now: Duration, out: &mut Out) {
        let Phase::Preparing { window, ends } = self.phase else { return };
        let over = match window {
            _ if self.members.is_empty() || ends <= now => true,
            Window::First { .. } => false,
            Window::Members => {
                self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
            }
        };
        if over {
            self.complete(now, window, out);
        }
    }

    /// Begins the next generation with those who have joined, and with the static ones that are still to come back.
    fn complete(&mut self, now: Duration, window: Window, out: &mut Out) {
        for id in self.ids(|member| member.joining.is_none() && member.instance.is_none()) {
            self.forget_member(&id);
        }
        if self.members.is_empty() {
            return self.empty(out);
        }
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        let leader = self.leader.take().filter(joined).or_else(|| self.first_joined());
        let Some(leader) = leader else {
            // Nobody could lead. Those who do not come back in their session go one by one.
            let ends = now + self.rebalance_timeout().max(LOOK_AGAIN);
            self.phase = Phase::Preparing { window, ends };
            return;
        };
        self.protocol = self.vote(&leader);
        self.leader = Some(leader);
        self.generation += 1;
        self.phase = Phase::Completing;
        self.sync_ends = Some(now + self.rebalance_timeout());
        out.store = true;
        for member in self.members.values_mut() {
            member.synced = false;
            member.assignment = Bytes::new();
            member.renew(now);
        }
        for id in self.ids(|member| member.joining.is_some()) {
            let joined = self.joined(&id);
            let member = self.member_mut(&id);
            member.told = true;
            let ticket = member.joining.take().expect("it has joined");
            out.answer(ticket, Answer::Join(Ok(joined)));
        }
    }

    /// Nobody is left.
    fn empty(&mut self, out: &mut Out) {
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        self.sync_ends = None;
        // Those who went before a generation began have changed nothing.
        if self.stored_members {
            self.generation += 1;
            out.store = true;
        }
    }

    /// Who has joined and was there before the others.
    fn first_joined(&self) -> Option<String> {
        let joined = self.members.iter().filter(|(_, member)| member.joining.is_some());
        joined.min_by_key(|(_, member)| member.arrival).map(|(id, _)| id.clone())
    }

    /// The protocol that most members want among those that all know; between equals the leader's choice.
    pub(super) fn vote(&self, leader: &str) -> Option<String> {
        let known = |name: &str| self.members.values().all(|member| member.knows(name));
        let choice =
            |member: &Member| member.protocols.iter().map(|(name, _)| name).find(|name| known(name)).cloned();
        let votes: Vec<String> = self.members.values().filter_map(choice).collect();
        let candidates = self.members[leader].protocols.iter().map(|(name, _)| name).enumerate();
        let count = |name: &String| votes.iter().filter(|vote| *vote == name).count();
        let best = candidates
            .filter(|(_, name)| known(name))
            .max_by_key(|(place, name)| (count(name), Reverse(*place)));
        best.map(|(_, name)| name.clone())
    }
}
