//! Cluster time moves by ticks alone; replicas agree.

use streamhouse_metadata::{Command, State, TICK_ADVANCE_MAX_MS};
use streamhouse_types::LogIndex;

use crate::world::{NOW, World, p, row, time};

#[track_caller]
fn check_tick(now: i64, expected: i64) {
    let mut world = World::new();
    world.done(Command::Tick { now: time(now) });
    assert_eq!(world.state.cluster_time(), time(expected));
}

#[test]
fn cluster_time_never_goes_back_and_moves_at_most_ten_minutes_a_tick() {
    check_tick(NOW + 1, NOW + 1);
    check_tick(NOW, NOW);
    check_tick(NOW - 1, NOW);
    check_tick(i64::MIN, NOW);
    check_tick(NOW + TICK_ADVANCE_MAX_MS, NOW + 600_000);
    check_tick(NOW + TICK_ADVANCE_MAX_MS + 1, NOW + 600_000);
    check_tick(i64::MAX, NOW + 600_000);
}

#[test]
#[should_panic(expected = "log index 9 applied after 9")]
fn a_log_index_is_applied_once() {
    let mut world = World::new();
    let index = world.state.applied();
    world.state.apply(index, &Command::Tick { now: time(NOW) });
}

#[test]
fn an_entry_without_a_command_moves_the_applied_index() {
    let mut state = State::new();
    state.skip_to(LogIndex::new(4));
    assert_eq!(state.applied(), LogIndex::new(4));
}

#[test]
fn the_hash_tells_states_apart() {
    let mut world = World::new();
    let before = world.state.hash();
    world.append(1, row(p(0), 1));
    assert_ne!(world.state.hash(), before);
}

#[test]
fn a_clone_is_not_touched_by_what_follows() {
    let mut world = World::new();
    world.append(1, row(p(0), 1));
    let snapshot = world.state.clone();
    let hash = snapshot.hash();
    for sequence in 2..20 {
        world.append(sequence, row(p(0), 1));
    }
    world.trim(0, 10);
    assert_eq!(snapshot.hash(), hash);
    assert_eq!(snapshot.partition(p(0)).unwrap().high_watermark().get(), 1);
}
