//! Who there is to talk to, and who did not answer lately. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use streamhouse_proto::v1;
use streamhouse_types::NodeId;

/// Stands for whoever answers at the addresses that were given. Nodes count from 1.
pub(crate) const GIVEN: NodeId = NodeId::new(0);
/// Stands for the reader among the addresses that were given.
pub(crate) const READER: NodeId = NodeId::new(u64::MAX);
/// For so long a node that failed once comes after the others.
const DOUBT_FIRST: Duration = Duration::from_millis(500);
/// Longest. Doubt forbids nothing, so it may last: an address that leads nowhere costs a second each time it is tried.
const DOUBT_LAST: Duration = Duration::from_secs(10);

/// A node that failed.
#[derive(Debug)]
struct Doubt {
    failures: u32,
    until: Duration,
}

/// The nodes of a cluster, as far as this client knows.
#[derive(Debug)]
pub(crate) struct Nodes {
    given: Vec<String>,
    /// Which of the given addresses is in use.
    given_at: usize,
    /// The given address that a reader answered at. Readers are not told of, so only those that are given are known.
    reader: Option<String>,
    /// Where the nodes say that they are. Empty until there was more than one: a single node is talked to at the
    /// address that was given, which works whatever it takes its own address for.
    known: BTreeMap<NodeId, String>,
    doubts: BTreeMap<NodeId, Doubt>,
    /// Where single calls begin: another place in each client, the same in all calls of one.
    start: usize,
    /// How many streams were given a node.
    turn: usize,
}

impl Nodes {
    /// `start` is any number: clients with different ones prefer different nodes.
    pub(crate) fn new(given: Vec<String>, start: usize) -> Self {
        Self {
            given,
            given_at: 0,
            reader: None,
            known: BTreeMap::new(),
            doubts: BTreeMap::new(),
            start,
            turn: 0,
        }
    }

    /// Whether there is nobody else to turn to.
    pub(crate) fn is_alone(&self) -> bool {
        self.known.is_empty()
    }

    /// Where a node is reached; `None` when nobody said so.
    pub(crate) fn address(&self, node: NodeId) -> Option<&str> {
        if node == GIVEN {
            return self.given.get(self.given_at).map(String::as_str);
        }
        if node == READER {
            return self.reader.as_deref();
        }
        self.known.get(&node).map(String::as_str)
    }

    /// Whether anybody may be reached there.
    pub(crate) fn has(&self, address: &str) -> bool {
        self.given.iter().chain(self.known.values()).any(|known| known == address)
    }

    pub(crate) fn given(&self) -> &[String] {
        &self.given
    }

    /// Somebody answers at the given address of this place.
    pub(crate) fn answered_at(&mut self, place: usize, answer: &v1::GetRoutingResponse) {
        self.given_at = place;
        self.reader = self.given.get(place).filter(|_| answer.reader).cloned();
    }

    /// Takes the nodes that take requests now. True when there were no others before.
    pub(crate) fn learn(&mut self, nodes: &[v1::NodeAddress]) -> bool {
        let reachable = nodes.iter().filter(|node| !node.grpc.is_empty() && node.node_id != GIVEN.get());
        let told: BTreeMap<_, _> =
            reachable.map(|node| (NodeId::new(node.node_id), node.grpc.clone())).collect();
        let was_alone = self.is_alone();
        // Behind a reader there is always another.
        if told.is_empty() || (was_alone && told.len() == 1 && self.reader.is_none()) {
            return false;
        }
        self.known = told;
        self.doubts.retain(|node, _| [GIVEN, READER].contains(node) || self.known.contains_key(node));
        was_alone
    }

    /// All there is to try for a single call, the best first. Never empty.
    pub(crate) fn candidates(&self, now: Duration) -> Vec<NodeId> {
        self.candidates_from(self.start, now)
    }

    /// All there is to try for a stream of reads, the best first: a reader that was given, and streams take turns at the
    /// others. Never empty.
    pub(crate) fn next_read_candidates(&mut self, now: Duration) -> Vec<NodeId> {
        let mut nodes = self.next_candidates(now);
        if self.reader.is_some() {
            let doubted = self.doubts.get(&READER).is_some_and(|doubt| doubt.until > now);
            nodes.insert(if doubted { nodes.len() } else { 0 }, READER);
        }
        nodes
    }

    /// All there is to try for a stream, the best first: streams take turns. Never empty.
    pub(crate) fn next_candidates(&mut self, now: Duration) -> Vec<NodeId> {
        self.turn = self.turn.wrapping_add(1);
        self.candidates_from(self.start.wrapping_add(self.turn), now)
    }

    fn candidates_from(&self, start: usize, now: Duration) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.known.keys().copied().collect();
        if !nodes.is_empty() {
            let start = start % nodes.len();
            nodes.rotate_left(start);
        }
        let in_doubt = |node: &NodeId| {
            let doubt = self.doubts.get(node).filter(|doubt| doubt.until > now);
            doubt.map_or(Duration::ZERO, |doubt| doubt.until)
        };
        // The given addresses may lead to nodes that nobody told of, once those that are known fail.
        if nodes.iter().all(|node| !in_doubt(node).is_zero()) {
            nodes.push(GIVEN);
        }
        nodes.sort_by_key(in_doubt);
        nodes
    }

    /// A node failed: for a while it comes last.
    pub(crate) fn failed(&mut self, node: NodeId, now: Duration) {
        if node == GIVEN {
            self.given_at = (self.given_at + 1) % self.given.len().max(1);
        }
        let doubt = self.doubts.entry(node).or_insert(Doubt { failures: 0, until: now });
        // Those that fail together count as one.
        if doubt.until <= now {
            doubt.failures = doubt.failures.saturating_add(1);
        }
        let factor = 2_u32.saturating_pow(doubt.failures - 1);
        doubt.until = now.saturating_add(DOUBT_FIRST.saturating_mul(factor).min(DOUBT_LAST));
    }

    /// A node works.
    pub(crate) fn works(&mut self, node: NodeId) {
        self.doubts.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ids: &[u64]) -> Vec<v1::NodeAddress> {
        ids.iter().map(|id| v1::NodeAddress { node_id: *id, grpc: format!("n{id}:9094") }).collect()
    }

    fn ids(nodes: &[u64]) -> Vec<NodeId> {
        nodes.iter().copied().map(NodeId::new).collect()
    }

    fn nodes(told_ids: &[u64]) -> Nodes {
        let mut nodes = Nodes::new(vec!["a:1".to_owned(), "b:2".to_owned()], 0);
        nodes.learn(&told(told_ids));
        nodes
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_single_node_is_talked_to_at_the_address_that_was_given() {
        let mut nodes = nodes(&[1]);
        assert!(nodes.is_alone());
        assert_eq!(nodes.candidates(NOW), [GIVEN]);
        assert_eq!(nodes.address(GIVEN), Some("a:1"));
        nodes.failed(GIVEN, NOW);
        assert_eq!(nodes.address(GIVEN), Some("b:2"), "the next that was given");
        assert_eq!(nodes.candidates(NOW), [GIVEN]);
    }

    #[test]
    fn the_last_node_of_a_cluster_is_talked_to_at_its_own_address() {
        let mut nodes = nodes(&[1, 2, 3]);
        nodes.learn(&told(&[3]));
        assert_eq!(nodes.candidates(NOW), ids(&[3]));
        nodes.learn(&[]);
        assert_eq!(nodes.candidates(NOW), ids(&[3]), "that nobody takes requests helps nobody");
    }

    #[test]
    fn a_node_that_failed_comes_last_for_a_while() {
        let mut nodes = nodes(&[1, 2, 3]);
        nodes.failed(NodeId::new(1), NOW);
        assert_eq!(nodes.candidates(NOW), ids(&[2, 3, 1]));
        nodes.failed(NodeId::new(2), NOW + Duration::from_millis(1));
        assert_eq!(nodes.candidates(NOW), ids(&[3, 1, 2]));
        assert_eq!(nodes.candidates(NOW + DOUBT_FIRST), ids(&[1, 3, 2]));
        nodes.failed(NodeId::new(2), NOW + DOUBT_FIRST);
        assert_eq!(
            nodes.candidates(NOW + DOUBT_FIRST * 2),
            ids(&[1, 2, 3]),
            "two that failed together are one"
        );
        nodes.works(NodeId::new(2));
        assert_eq!(nodes.candidates(NOW + DOUBT_FIRST), ids(&[1, 2, 3]));
    }

    #[test]
    fn when_all_fail_the_given_addresses_are_next() {
        let mut nodes = nodes(&[1, 2]);
        nodes.failed(NodeId::new(1), NOW);
        nodes.failed(NodeId::new(2), NOW);
        assert_eq!(nodes.candidates(NOW)[0], GIVEN);
        nodes.failed(GIVEN, NOW + Duration::from_millis(1));
        assert_eq!(nodes.candidates(NOW + Duration::from_millis(1)), ids(&[1, 2, 0]));
    }

    #[test]
    fn reads_stay_with_a_reader_that_was_given_as_long_as_it_works() {
        let mut nodes = Nodes::new(vec!["a:1".to_owned(), "reader:2".to_owned()], 0);
        nodes.answered_at(1, &v1::GetRoutingResponse { reader: true, ..Default::default() });
        assert!(nodes.learn(&told(&[7])), "one node behind a reader is not the reader");
        assert_eq!(nodes.address(READER), Some("reader:2"));
        assert_eq!(nodes.candidates(NOW), ids(&[7]), "calls go to a node that takes them all");
        assert_eq!(nodes.next_read_candidates(NOW), [READER, NodeId::new(7)]);
        nodes.failed(READER, NOW);
        assert_eq!(nodes.next_read_candidates(NOW), [NodeId::new(7), READER]);
        nodes.learn(&told(&[7, 8]));
        assert_eq!(nodes.next_read_candidates(NOW).last(), Some(&READER), "it is still in doubt");
        assert_eq!(nodes.next_read_candidates(NOW + DOUBT_FIRST)[0], READER);
        nodes.answered_at(0, &v1::GetRoutingResponse::default());
        assert!(!nodes.next_read_candidates(NOW + DOUBT_FIRST).contains(&READER));
    }

    #[test]
    fn streams_take_turns_and_calls_do_not() {
        let mut nodes = nodes(&[1, 2, 3]);
        let firsts: Vec<_> = (0..4).map(|_| nodes.next_candidates(NOW)[0].get()).collect();
        assert_eq!(firsts, [2, 3, 1, 2]);
        assert_eq!(nodes.candidates(NOW), nodes.candidates(NOW));
    }
}
