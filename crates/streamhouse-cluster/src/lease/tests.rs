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
        };
        self.leases.beat(beat, at, &self.state)
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
