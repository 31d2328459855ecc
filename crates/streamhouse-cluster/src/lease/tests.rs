use streamhouse_metadata::{Command, Liveness, RegisterNode, State};
use streamhouse_types::{ClusterId, Incarnation, LogIndex, NodeId, Timestamp};

use super::*;

const LEADER: NodeId = NodeId::new(1);
const OTHER: NodeId = NodeId::new(2);

/// A cluster of two, and its leader's leases.
struct World {
    state: State,
    leases: Leases,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: State::new(), leases: Leases::new(LeaseSettings::default()) };
        world.apply(&Command::Bootstrap {
            cluster: ClusterId::from_bytes([1; 16]),
            now: Timestamp::from_millis(1),
        });
        world.register(LEADER);
        world.register(OTHER);
        world.leases.begin(ms(0));
        world
    }

    fn apply(&mut self, command: &Command) {
        let index = LogIndex::new(self.state.applied().get() + 1);
        self.state.apply(index, command);
    }

    fn register(&mut self, node: NodeId) {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&(self.state.applied().get() + 1).to_le_bytes());
        let register = RegisterNode { request, node, zone: String::new(), addresses: Vec::new() };
        self.apply(&Command::RegisterNode(register));
    }

    fn beat(&mut self, at: Duration, incarnation: u64, pinned: u64) -> BeatVerdict {
        let beat = Beat {
            node: OTHER,
            incarnation: Incarnation::new(incarnation),
            applied: self.state.applied(),
            pinned: LogIndex::new(pinned),
            calendar: None,
            writes: WritesSeen::default(),
        };
        self.leases.beat(beat, at, &self.state).verdict
    }

    /// A beat of the first incarnation of a node that tells of its writes; returns whether it is to make one.
    fn show_writes(&mut self, node: NodeId, at: Duration, writes: WritesSeen) -> bool {
        let (applied, pinned) = (self.state.applied(), LogIndex::ZERO);
        let beat = Beat { node, incarnation: Incarnation::new(1), applied, pinned, calendar: None, writes };
        self.leases.beat(beat, at, &self.state).prove_writes
    }

    /// The writes of the other node fail since second 0, those of the leader go as given; for `seconds` from there on.
    fn the_other_fails(&mut self, seconds: u64, leaders: impl Fn(u64) -> WritesSeen) -> Vec<(u64, Command)> {
        let mut asked = Vec::new();
        for at in (0..=seconds * 1_000).step_by(100) {
            self.show_writes(LEADER, ms(at), leaders(at));
            self.show_writes(OTHER, ms(at), fails_since(0)(at));
            asked.extend(self.judge_until(at, at));
        }
        asked
    }

    /// Judges every 100 ms up to `at`, as the leader does, and applies what is asked for.
    fn judge_until(&mut self, from: u64, to: u64) -> Vec<(u64, Command)> {
        let mut asked = Vec::new();
        for at in (from..=to).step_by(100) {
            for command in self.leases.judge(ms(at), &self.state, LEADER) {
                self.apply(&command);
                asked.push((at, command));
            }
        }
        asked
    }

    fn liveness(&self) -> Liveness {
        self.state.member(OTHER).expect("a member").liveness()
    }
}

#[test]
fn a_node_that_is_silent_for_longer_than_its_lease_is_dead_and_alive_with_its_next_beat() {
    let mut world = World::new();
    world.beat(ms(100), 1, 0);
    assert_eq!(world.judge_until(200, 1_100), []);
    let asked = world.judge_until(1_200, 1_300);
    assert!(
        matches!(&asked[..], [(1_200, Command::JudgeNode { node: OTHER, liveness: Liveness::Dead, .. })]),
        "{asked:?}"
    );
    assert_eq!(world.liveness(), Liveness::Dead);
    assert_eq!(world.beat(ms(1_350), 1, 0), BeatVerdict::Open);
    let asked = world.judge_until(1_400, 1_400);
    assert!(matches!(&asked[..], [(_, Command::JudgeNode { liveness: Liveness::Alive, .. })]), "{asked:?}");
    assert_eq!(world.liveness(), Liveness::Alive);
}

fn fails_since(start: u64) -> impl Fn(u64) -> WritesSeen {
    move |at| WritesSeen { failing: Some(ms(at.saturating_sub(start))), succeeded: None }
}

fn works() -> WritesSeen {
    WritesSeen { failing: None, succeeded: Some(ms(500)) }
}

#[test]
fn a_node_that_alone_cannot_write_loses_its_homes_until_it_can_again() {
    let mut world = World::new();
    let asked = world.the_other_fails(6, |_| works());
    assert!(
        matches!(&asked[..], [(5_100, Command::JudgeNode { node: OTHER, liveness: Liveness::Dead, .. })]),
        "{asked:?}"
    );
    world.show_writes(LEADER, ms(6_100), works());
    world.show_writes(OTHER, ms(6_100), works());
    let asked = world.judge_until(6_100, 6_100);
    assert!(matches!(&asked[..], [(_, Command::JudgeNode { liveness: Liveness::Alive, .. })]), "{asked:?}");
}

#[test]
fn a_store_that_answers_nobody_moves_no_homes() {
    let mut world = World::new();
    assert_eq!(world.the_other_fails(60, fails_since(100)), []);
    let mut world = World::new();
    let idle = |at| WritesSeen { failing: None, succeeded: Some(ms(at)) };
    assert_eq!(world.the_other_fails(60, idle), [], "a write of before says nothing about the store of now");
    assert!(world.show_writes(LEADER, ms(60_000), idle(60_000)), "it is asked whether it can write");
}

#[test]
fn the_leader_gives_its_homes_up_when_it_alone_cannot_write() {
    let mut world = World::new();
    let mut asked = Vec::new();
    for at in (0..=6_000).step_by(100) {
        assert!(!world.show_writes(OTHER, ms(at), works()) || at > 2_500, "nobody is asked for nothing");
        world.show_writes(LEADER, ms(at), fails_since(0)(at));
        asked.extend(world.judge_until(at, at));
    }
    assert!(
        matches!(&asked[..], [(5_100, Command::JudgeNode { node: LEADER, liveness: Liveness::Dead, .. })]),
        "{asked:?}"
    );
    // It was paused, and has heard nobody since, itself neither.
    assert_eq!(world.judge_until(6_700, 6_700), [], "nothing has shown that it can write");
    world.show_writes(LEADER, ms(6_750), fails_since(0)(6_750));
    assert_eq!(world.judge_until(6_800, 6_800), [], "it cannot, and whether others can is not known yet");
}

#[test]
fn a_node_that_was_silent_lives_again_although_the_store_answers_nobody() {
    let mut world = World::new();
    for at in (0..=1_200).step_by(100) {
        world.show_writes(LEADER, ms(at), fails_since(0)(at));
        world.judge_until(at, at);
    }
    assert_eq!(world.liveness(), Liveness::Dead, "it was silent for longer than its lease");
    world.show_writes(OTHER, ms(1_300), fails_since(0)(1_300));
    let asked = world.judge_until(1_300, 1_300);
    assert!(matches!(&asked[..], [(_, Command::JudgeNode { liveness: Liveness::Alive, .. })]), "{asked:?}");
}

#[test]
fn a_new_leader_grants_everybody_a_full_lease() {
    let mut world = World::new();
    world.leases.begin(ms(10_000));
    assert_eq!(world.judge_until(10_000, 11_000), []);
    assert_eq!(world.judge_until(11_100, 11_100).len(), 1);
}

#[test]
fn a_leader_that_was_paused_judges_nobody_by_its_own_silence() {
    let mut world = World::new();
    world.beat(ms(100), 1, 0);
    assert_eq!(world.judge_until(200, 300), []);
    assert_eq!(world.judge_until(9_000, 9_900), [], "nobody was heard while it was paused");
}

#[test]
fn an_incarnation_is_closed_after_a_minute_of_silence_and_its_node_told() {
    let mut world = World::new();
    world.beat(ms(0), 1, 0);
    let asked = world.judge_until(100, 60_100);
    let closed = asked.iter().find(|(_, command)| matches!(command, Command::CloseIncarnation { .. }));
    assert_eq!(closed.map(|(at, _)| *at), Some(60_100), "{asked:?}");
    assert_eq!(world.beat(ms(60_200), 1, 0), BeatVerdict::Closed);
    assert_eq!(world.beat(ms(60_200), 2, 0), BeatVerdict::Open, "one that is not heard of yet is not closed");
    world.register(OTHER);
    assert_eq!(world.beat(ms(60_300), 2, 0), BeatVerdict::Open);
}

#[test]
fn the_pin_floor_is_known_once_every_open_incarnation_has_told_what_it_reads() {
    let mut world = World::new();
    assert_eq!(world.leases.pin_floor(&world.state, LEADER), None);
    world.beat(ms(0), 1, 2);
    assert_eq!(world.leases.pin_floor(&world.state, LEADER), Some(LogIndex::new(2)));
    // A new incarnation has not said what it reads.
    world.register(OTHER);
    assert_eq!(world.leases.pin_floor(&world.state, LEADER), None);
    let closing = Command::CloseIncarnation { node: OTHER, incarnation: Incarnation::new(2) };
    world.apply(&closing);
    assert_eq!(
        world.leases.pin_floor(&world.state, LEADER),
        Some(world.state.applied()),
        "nobody else reads"
    );
}
