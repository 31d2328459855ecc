//! A consumer group that keeps its promises: generations, commits that are lost, refused or late, zombies.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use streamhouse_check::{Anomaly, Commit, CommitOutcome, Committed, Event, Micros, Offset};

const PARTITION: &str = "t/1";

/// What its members say until `end`, each with its time.
pub(crate) fn lines(seed: u64, end: u64) -> Vec<(u64, Event<'static>)> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x67);
    let mut lines = Vec::new();
    let (mut now, mut generation, mut stored, mut position) = (1_000, 1, None, 0);
    while now < end {
        let (begin, answered) = (now, now + rng.random_range(2..60));
        match rng.random_range(0..10) {
            // The next generation asks where to go on.
            0 => {
                generation += 1;
                position = stored.unwrap_or(0);
                let (group, partition) = ("g".into(), PARTITION.into());
                let offset = stored.map(Offset::new);
                let (begin, end) = (Micros::new(begin), Micros::new(answered));
                let told = Committed { group, partition, generation, begin, end, offset };
                lines.push((answered, Event::Committed(told)));
            }
            // A zombie is refused.
            1 => {
                let offset = position / 2;
                lines.push((answered, commit(generation - 1, offset, (begin, answered), CommitOutcome::No)));
            }
            fate => {
                position += rng.random_range(0..5);
                let outcome = if fate < 9 { CommitOutcome::Done } else { CommitOutcome::Maybe };
                if outcome == CommitOutcome::Done || rng.random_range(0..2) == 0 {
                    stored = Some(position);
                }
                lines.push((answered, commit(generation, position, (begin, answered), outcome)));
            }
        }
        now = answered + rng.random_range(1..60);
    }
    lines
}

fn commit(generation: u64, offset: u64, (begin, end): (u64, u64), outcome: CommitOutcome) -> Event<'static> {
    let (group, partition, offset) = ("g".into(), PARTITION.into(), Offset::new(offset));
    let (begin, end) = (Micros::new(begin), Micros::new(end));
    Event::Commit(Commit { group, partition, generation, offset, begin, end, outcome })
}

/// Spoils what members were told.
pub(crate) fn spoil(anomaly: Anomaly, events: &mut [Event<'static>], rng: &mut StdRng) -> Option<()> {
    let (mut newest, mut committed, mut places) = (0, 0, Vec::new());
    // Nothing of the one group overlaps, so what was said before binds what comes after.
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::Committed(told) => {
                if committed > 0 && anomaly == Anomaly::CommitBack {
                    places.push((place, committed));
                }
                newest = told.generation;
            }
            Event::Commit(commit) if commit.outcome == CommitOutcome::Done => {
                if newest > 1 && anomaly == Anomaly::FencedCommit {
                    places.push((place, newest));
                }
                committed = committed.max(commit.offset.get());
            }
            _ => {}
        }
    }
    if places.is_empty() {
        return None;
    }
    let (place, value) = places[rng.random_range(0..places.len())];
    match &mut events[place] {
        Event::Committed(told) => told.offset = Some(Offset::new(value - 1)),
        Event::Commit(commit) => commit.generation = value - 1,
        _ => unreachable!("only these are chosen"),
    }
    Some(())
}
