//! Whether the cluster is well, read off the metadata and the leader's view. Pure.

use std::time::Duration;

use streamhouse_broker::metadata::{Liveness, Member, NodeEntry, State};
use streamhouse_cluster::{MemberView, View, is_near};
use streamhouse_proto::v1;
use streamhouse_types::NodeId;

/// Judges the cluster. `barred` is the node that is asked, when it has just found that it cannot write to the object store.
pub(crate) fn health(state: &State, view: &View, barred: Option<NodeId>) -> v1::GetHealthResponse {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let members: Vec<_> = state.members().filter(|member| !member.is_removed()).map(Member::id).collect();
    let serving = |id: NodeId| {
        let open = state.node(id).is_some_and(NodeEntry::is_open) && !is_silent(view, id);
        open && state.member(id).is_some_and(|member| member.liveness() == Liveness::Alive)
    };
    let away: Vec<NodeId> = members.iter().copied().filter(|id| !serving(*id)).collect();
    let alone: Vec<NodeId> = unable(view).map(|(id, _)| id).collect();
    let silent: Vec<NodeId> = away.iter().copied().filter(|id| !alone.contains(id)).collect();
    let voters: Vec<NodeId> =
        view.members.iter().filter(|member| member.voter).map(|member| member.node).collect();
    // One that alone cannot write votes all the same.
    let voters_alive = voters.iter().filter(|voter| serving(**voter) || alone.contains(voter)).count();
    let removed = voters.iter().filter(|voter| state.member(**voter).is_some_and(Member::is_removed));
    let removed: Vec<NodeId> = removed.copied().collect();
    let wanted = state.wanted_voters().get();
    let homes: Vec<NodeId> = state.eligible_homes().map(NodeEntry::id).collect();
    let homeless = state.partitions().filter(|partition| !homes.contains(&partition.home())).count();
    let is_led = led(view);
    let checks = if is_led {
        vec![
            leader(view),
            nodes(&silent, members.len()),
            store(view, barred),
            votes(&Votes { alive: voters_alive, voters: voters.len(), wanted, removed }, members.len()),
            homes_served(homeless),
            clocks(view),
        ]
    } else {
        let own = barred.map(|_| store(view, barred));
        let store = own.unwrap_or_else(|| unknown("store"));
        vec![leader(view), unknown("nodes"), store, unknown("voters"), unknown("homes"), clocks(view)]
    };
    v1::GetHealthResponse {
        healthy: checks.iter().all(|check| check.ok),
        checks,
        nodes: count(members.len()),
        nodes_serving: if is_led { count(members.len() - away.len()) } else { 0 },
        voters: count(voters.len()),
        wanted_voters: count(wanted),
        topics: state.topics().count() as u64,
        partitions: state.partitions().count() as u64,
        partitions_without_home: homeless as u64,
        feature_level: state.feature_level().get(),
        leader_id: view.leader.filter(|_| is_led).map_or(0, NodeId::get),
    }
}

/// A clock that is far off makes its node's own times wrong; cluster time goes by most of them.
fn clocks(view: &View) -> v1::HealthCheck {
    let ahead = view.members.iter().filter_map(|member| Some((member.node, member.clock_ahead_ms?)));
    let known = ahead.clone().count() > 0;
    let astray: Vec<String> = ahead
        .filter(|(_, ahead_ms)| !is_near(*ahead_ms))
        .map(|(node, ahead_ms)| {
            let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
            format!("node {node} is {} s {side} the time that is agreed on", ahead_ms.unsigned_abs() / 1_000)
        })
        .collect();
    let evidence = match (astray.is_empty(), known) {
        (true, true) => "all show about the same time".to_owned(),
        (true, false) => "not known: too few nodes have shown the leader theirs".to_owned(),
        (false, _) => astray.join(", "),
    };
    let fix = "set the clocks of those machines, such as by NTP";
    check("clocks", evidence, &Finding::unless(|| astray.is_empty(), fix))
}

/// How a check came out.
enum Finding<'a> {
    Well,
    /// With what to do about it.
    Fault(&'a str),
}

impl<'a> Finding<'a> {
    /// The fix when there is a fault.
    fn unless(well: impl FnOnce() -> bool, fix: &'a str) -> Self {
        if well() { Self::Well } else { Self::Fault(fix) }
    }
}

fn check(name: &str, evidence: String, finding: &Finding<'_>) -> v1::HealthCheck {
    let (ok, fix) = match finding {
        Finding::Well => (true, ""),
        Finding::Fault(fix) => (false, *fix),
    };
    v1::HealthCheck { name: name.to_owned(), ok, evidence, fix: fix.to_owned() }
}

/// What only the leader can tell: what the node that is asked heard last may long be over.
fn unknown(name: &str) -> v1::HealthCheck {
    let evidence = "not known: this node finds nobody who leads a majority".to_owned();
    check(
        name,
        evidence,
        &Finding::Fault("first see to it that somebody leads, and that this node reaches the leader"),
    )
}

/// A voter that the leader has not heard of for so long does not count: leases last a third of it.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Whether the leader has not heard of a node for so long that it does not count, or not yet since it leads, whatever the
/// metadata says: without a majority that can say nothing new.
pub(crate) fn is_silent(view: &View, node: NodeId) -> bool {
    let of = |member: &&MemberView| member.node == node && view.leader != Some(node);
    view.members.iter().find(of).is_some_and(|member| match member.last_contact {
        Some(silent) => silent > SILENCE_MAX,
        // A node that cannot ask the leader knows of nobody else's contacts.
        None => led(view),
    })
}

/// Writes may fail for so long without it being a fault: a store that stumbles is tried again.
const FAILING_MAX: Duration = Duration::from_secs(5);

/// The nodes that answer the leader, but have not been able to write to the object store for long, and for how long.
pub(crate) fn unable(view: &View) -> impl Iterator<Item = (NodeId, Duration)> {
    let members = view.members.iter().filter(|member| !is_silent(view, member.node));
    let failing = members.filter_map(|member| Some((member.node, member.writes_failing?)));
    failing.filter(|(_, span)| *span > FAILING_MAX)
}

fn store(view: &View, barred: Option<NodeId>) -> v1::HealthCheck {
    let mut fails: Vec<String> = unable(view)
        .map(|(node, span)| format!("node {node} has not been able to write for {} s", span.as_secs()))
        .collect();
    if let Some(barred) = barred.filter(|barred| unable(view).all(|(node, _)| node != *barred)) {
        fails.push(format!("node {barred} could not write when it tried just now"));
    }
    let evidence = if fails.is_empty() { "no node fails to write".to_owned() } else { fails.join(", ") };
    let fix =
        "look at the way from there to the object store: network, credentials, quota, room on a local disk";
    check("store", evidence, &Finding::unless(|| fails.is_empty(), fix))
}

/// How many voters there are, and how many of them the leader reaches.
fn reach(view: &View) -> (usize, usize) {
    let voters = view.members.iter().filter(|member| member.voter);
    let near = |member: &&MemberView| {
        view.leader == Some(member.node) || member.last_contact.is_some_and(|silent| silent <= SILENCE_MAX)
    };
    (voters.clone().count(), voters.filter(near).count())
}

/// Whether somebody leads a majority.
pub(crate) fn led(view: &View) -> bool {
    let (all, reached) = reach(view);
    view.leader.is_some() && reached * 2 > all
}

/// Who leads must be heard of by a majority. Only the leader knows that: a node that cannot ask it has nothing but the name.
fn leader(view: &View) -> v1::HealthCheck {
    let (all, reached) = reach(view);
    let evidence = match view.leader {
        Some(leader) if !led(view) => {
            format!("node {leader} led last, and is known to reach {reached} of {all} voters")
        }
        Some(leader) => format!("node {leader} leads in term {}", view.term),
        None => "no leader is known".to_owned(),
    };
    let fix = "bring back a majority of the voters";
    check("leader", evidence, &Finding::unless(|| led(view), fix))
}

fn nodes(away: &[NodeId], all: usize) -> v1::HealthCheck {
    let names: Vec<String> = away.iter().map(NodeId::to_string).collect();
    let evidence = if away.is_empty() {
        format!("all {all} answer")
    } else {
        format!("{} of {all} do not answer: node {}", away.len(), names.join(", node "))
    };
    let fix = "start the missing nodes, or take them out with `streamhouse node remove`";
    check("nodes", evidence, &Finding::unless(|| away.is_empty(), fix))
}

/// How the votes lie.
struct Votes {
    alive: usize,
    voters: usize,
    wanted: usize,
    /// Voters that were removed, whose vote nobody could take over yet.
    removed: Vec<NodeId>,
}

fn votes(votes: &Votes, nodes: usize) -> v1::HealthCheck {
    let Votes { alive, voters, wanted, removed } = votes;
    let mut evidence = format!("{alive} of {voters} voters answer, {wanted} are wanted");
    for node in removed {
        evidence.push_str(&format!("; node {node} was removed and still has a vote"));
    }
    // Fewer nodes than wanted voters is what the operator runs, not a fault: a laptop has one.
    let enough = voters == wanted || nodes < *wanted;
    let well = alive == voters && enough && removed.is_empty();
    let fix = match (removed.is_empty(), alive + removed.len() == *voters) {
        (true, _) => "start the missing voters, or add nodes until there are as many as wanted",
        (false, true) => "start another node to take it over",
        (false, false) => {
            "start the missing voters, and another node to take over the vote of what was removed"
        }
    };
    check("voters", evidence, &Finding::unless(|| well, fix))
}

fn homes_served(homeless: usize) -> v1::HealthCheck {
    let evidence = match homeless {
        0 => "every partition is at home on a node that takes requests".to_owned(),
        some => format!("{some} partitions are at home on nodes that take no requests"),
    };
    let fix =
        "wait: homes move within seconds while there is a leader; clients write to other nodes meanwhile";
    check("homes", evidence, &Finding::unless(|| homeless == 0, fix))
}

#[cfg(test)]
mod tests {
    use streamhouse_broker::metadata::{Command, RegisterNode};
    use streamhouse_types::{ClusterId, Incarnation, LogIndex, Timestamp};

    use super::*;

    const NODES: u64 = 3;

    /// Three nodes that serve.
    fn state() -> State {
        let mut state = State::new();
        let cluster = ClusterId::from_bytes([1; 16]);
        state.apply(LogIndex::new(1), &Command::Bootstrap { cluster, now: Timestamp::from_millis(1) });
        for id in 1..=NODES {
            let (node, request) = (NodeId::new(id), [u8::try_from(id).expect("few nodes"); 16]);
            let register = RegisterNode { request, node, zone: String::new(), addresses: Vec::new() };
            state.apply(LogIndex::new(1 + id), &Command::RegisterNode(register));
        }
        state
    }

    /// What the first of them sees, which leads; all is well.
    fn view() -> View {
        let member = |id| MemberView {
            node: NodeId::new(id),
            address: String::new(),
            voter: true,
            matched: None,
            last_contact: Some(Duration::ZERO),
            last_beat: Some(Duration::ZERO),
            applied: LogIndex::ZERO,
            clock_ahead_ms: Some(0),
            writes_failing: None,
        };
        View {
            leader: Some(NodeId::new(1)),
            term: 1,
            last_log: LogIndex::ZERO,
            committed: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            snapshot: LogIndex::ZERO,
            members: (1..=NODES).map(member).collect(),
        }
    }

    /// Has exactly the check of this name fail for what happens to the last node, and returns what it says.
    #[track_caller]
    fn fails(name: &str, befalls: impl FnOnce(&mut MemberView)) -> String {
        let (state, mut view) = (state(), view());
        let well = health(&state, &view, None);
        assert!(well.healthy, "{well:?}");
        befalls(view.members.last_mut().expect("three members"));
        let found = health(&state, &view, None);
        let failed: Vec<_> = found.checks.iter().filter(|check| !check.ok).collect();
        assert!(matches!(&failed[..], [check] if check.name == name && !check.fix.is_empty()), "{failed:?}");
        assert!(!found.healthy);
        failed[0].evidence.clone()
    }

    #[test]
    fn a_clock_that_is_astray_is_named() {
        let behind = fails("clocks", |node| node.clock_ahead_ms = Some(-3_600_000));
        assert_eq!(behind, "node 3 is 3600 s behind the time that is agreed on");
        let ahead = fails("clocks", |node| node.clock_ahead_ms = Some(3_600_000));
        assert_eq!(ahead, "node 3 is 3600 s ahead of the time that is agreed on");
    }

    #[test]
    fn a_node_that_cannot_write_is_named_once_it_has_failed_for_long() {
        let seconds = Duration::from_secs;
        let evidence = fails("store", |node| node.writes_failing = Some(seconds(12)));
        assert_eq!(evidence, "node 3 has not been able to write for 12 s");
        // That is why it counts as dead, and all that is said of it.
        let (mut dead, mut alone) = (state(), view());
        let (node, incarnation, liveness) = (NodeId::new(3), Incarnation::new(1), Liveness::Dead);
        dead.apply(LogIndex::new(9), &Command::JudgeNode { node, incarnation, liveness });
        alone.members[2].writes_failing = Some(seconds(12));
        let found = health(&dead, &alone, None);
        let failed: Vec<_> =
            found.checks.iter().filter(|check| !check.ok).map(|check| &*check.name).collect();
        assert_eq!((failed, found.nodes_serving), (vec!["store"], 2));
        let mut stumbles = view();
        stumbles.members[2].writes_failing = Some(seconds(2));
        assert!(health(&state(), &stumbles, None).healthy, "a store that stumbles is tried again");
    }

    #[test]
    fn a_node_that_is_silent_is_missed_and_nothing_else_is_said_of_it() {
        let (state, mut view) = (state(), view());
        // For long, or ever since this leader leads.
        for last_contact in [Some(Duration::from_secs(9)), None] {
            let lost = &mut view.members[2];
            (lost.last_contact, lost.writes_failing) = (last_contact, Some(Duration::from_secs(12)));
            let found = health(&state, &view, None);
            let failed: Vec<_> =
                found.checks.iter().filter(|check| !check.ok).map(|check| &*check.name).collect();
            assert_eq!((failed, found.nodes_serving), (vec!["nodes", "voters"], 2));
        }
    }

    #[test]
    fn without_somebody_who_leads_a_majority_nothing_is_known_of_the_others() {
        let state = state();
        // Known by its name alone, as on a node that cannot ask it; not known; known to have lost the others.
        for (leader, last_contact) in [(Some(1), None), (None, None), (Some(3), Some(Duration::from_secs(9)))]
        {
            let mut view = view();
            view.leader = leader.map(NodeId::new);
            view.members.iter_mut().for_each(|member| member.last_contact = last_contact);
            let found = health(&state, &view, None);
            let failed: Vec<_> = found.checks.iter().filter(|check| !check.ok).collect();
            let names: Vec<_> = failed.iter().map(|check| &*check.name).collect();
            assert_eq!(names, ["leader", "nodes", "store", "voters", "homes"]);
            let mut others = failed[1..].iter();
            assert!(
                others
                    .all(|check| check.evidence == "not known: this node finds nobody who leads a majority"
                        && !check.fix.is_empty())
            );
            assert_eq!(found.nodes_serving, 0);
            let barred = health(&state, &view, Some(NodeId::new(2)));
            let store = barred.checks.iter().find(|check| check.name == "store").expect("the check");
            assert_eq!(store.evidence, "node 2 could not write when it tried just now");
        }
    }

    #[test]
    fn a_removed_node_that_still_has_a_vote_is_named_as_such() {
        let (mut state, mut view) = (state(), view());
        state.apply(LogIndex::new(9), &Command::RemoveNode { request: [9; 16], node: NodeId::new(3) });
        view.members[2].last_contact = Some(Duration::from_secs(9));
        let voters = |view: &View| {
            let found = health(&state, view, None);
            let failed: Vec<_> = found.checks.into_iter().filter(|check| !check.ok).collect();
            let [check] = &failed[..] else { panic!("{failed:?}") };
            (check.name.clone(), check.evidence.clone(), check.fix.clone())
        };
        let (name, evidence, fix) = voters(&view);
        assert_eq!(name, "voters");
        let vote = "node 3 was removed and still has a vote";
        assert_eq!(evidence, format!("2 of 3 voters answer, 3 are wanted; {vote}"));
        assert_eq!(fix, "start another node to take it over");
        view.members.pop();
        assert!(health(&state, &view, None).healthy, "two nodes are what the operator runs");
    }
}
