//! Breadth-first search through all states that a configuration can reach.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use streamhouse_metadata::invariants;

use crate::protocol::{Action, Config, Violation, World};

/// What a search found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// The first violation found, with the shortest way there.
    pub(crate) violation: Option<(Violation, Vec<Action>)>,
    /// Whether every reachable state was seen.
    pub(crate) exhausted: bool,
}

#[allow(clippy::disallowed_types, reason = "looked up, never walked through, so its order does not matter")]
type Seen = std::collections::HashSet<(u64, u64)>;

/// Two digests from different starts; together they stand for the state.
fn digest(world: &World) -> (u64, u64) {
    let mut first = DefaultHasher::new();
    world.hash(&mut first);
    let mut second = DefaultHasher::new();
    0x5eed_u64.hash(&mut second);
    world.hash(&mut second);
    (first.finish(), second.finish())
}

/// Looks at states until a violation shows, all were seen, or `limit` were.
pub(crate) fn search(config: &Config, limit: usize) -> Report {
    let start = World::new(config);
    let mut seen = Seen::default();
    seen.insert(digest(&start));
    // How each state was reached, to tell the way to a violation.
    let mut origins: Vec<Option<(usize, Action)>> = vec![None];
    let mut queue = VecDeque::from([(0, start)]);
    let mut transitions = 0;
    while let Some((at, world)) = queue.pop_front() {
        for action in world.actions() {
            let Some(next) = world.step(action, config) else {
                continue;
            };
            transitions += 1;
            if !seen.insert(digest(&next)) {
                continue;
            }
            origins.push(Some((at, action)));
            let number = origins.len() - 1;
            if let Some(violation) = judge(&world, &next, config) {
                let violation = Some((violation, way(&origins, number)));
                return Report { states: seen.len(), transitions, violation, exhausted: false };
            }
            queue.push_back((number, next));
        }
        if seen.len() >= limit {
            return Report { states: seen.len(), transitions, violation: None, exhausted: false };
        }
    }
    Report { states: seen.len(), transitions, violation: None, exhausted: true }
}

fn judge(before: &World, after: &World, config: &Config) -> Option<Violation> {
    if let Some(violation) = after.violation() {
        return Some(violation);
    }
    if config.mutant.is_some() {
        // A mutant is to show harm that a client can see, not that the metadata disagree with themselves.
        return None;
    }
    if after.leaked().is_some() {
        return Some(Violation::Leak);
    }
    let (old, new) = (&before.meta.state, &after.meta.state);
    let changed = old.applied() != new.applied();
    let broken = changed && (invariants::check(new).is_err() || invariants::check_step(old, new).is_err());
    broken.then_some(Violation::Metadata)
}

fn way(origins: &[Option<(usize, Action)>], mut at: usize) -> Vec<Action> {
    let mut way = Vec::new();
    while let Some((before, action)) = origins[at] {
        way.push(action);
        at = before;
    }
    way.reverse();
    way
}
