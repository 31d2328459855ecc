use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use streamhouse_broker::local_log::LocalLog;
use streamhouse_broker::{HighWatermarks, WritesSeen};
use streamhouse_metadata::{Command, DirectoryId, Drain, FeatureRange, RegisterNode};
use streamhouse_types::{ClusterId, Timestamp};

use super::*;
use crate::membership::{Leadership, RaftMember};

/// Two voters, of which the first leads for ever: whoever is asked to lead does not come to it.
#[derive(Default)]
struct Deaf {
    asked: AtomicUsize,
}

#[async_trait]
impl Membership for Deaf {
    fn leadership(&self) -> Leadership {
        Leadership { leads: true, term: 1 }
    }

    fn members(&self) -> Vec<RaftMember> {
        let voter = |node| RaftMember { node: NodeId::new(node), voter: true, caught_up: true };
        vec![voter(1), voter(2)]
    }

    fn unfinished(&self) -> Option<BTreeSet<NodeId>> {
        None
    }

    async fn set_voters(&self, _voters: BTreeSet<NodeId>) -> Result<(), MembershipFault> {
        Ok(())
    }

    async fn remove(&self, _node: NodeId) -> Result<(), MembershipFault> {
        Ok(())
    }

    async fn pass_on(&self, _to: NodeId) -> Result<(), MembershipFault> {
        // An end for a loop that would have none, as paused time stands still in it.
        assert!(self.asked.fetch_add(1, Ordering::Relaxed) < 100, "asked without end");
        Ok(())
    }
}

/// A cluster of two nodes, of which the first gives its work away.
fn drained() -> LocalLog {
    let log = LocalLog::new(HighWatermarks::new());
    log.apply(&Command::Bootstrap {
        cluster: ClusterId::from_bytes([1; 16]),
        now: Timestamp::from_millis(1_790_000_000_000),
    });
    for number in 1..=2 {
        let (node, request) = (NodeId::new(number), [u8::try_from(number).expect("small"); 16]);
        let directory = DirectoryId::from_bytes(request);
        let (features, version) = (FeatureRange::FIRST, "0.1.0".to_owned());
        log.apply(&Command::AdmitNode { node, directory, features, version });
        log.apply(&Command::RegisterNode(RegisterNode {
            request,
            node,
            zone: String::new(),
            addresses: Vec::new(),
        }));
    }
    log.apply(&Command::SetDrain { request: [9; 16], node: NodeId::new(1), drain: Drain::Operator });
    log
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_relieves_asks_again_but_not_without_a_pause() {
    let membership = Arc::new(Deaf::default());
    let env = Env::system();
    let clock = Arc::clone(&env.clock);
    let controller = Controller::start(ControllerOptions {
        node: NodeId::new(1),
        env,
        log: Arc::new(drained()),
        membership: Arc::clone(&membership) as Arc<_>,
        settings: LeaseSettings::default(),
        offset_retention: PAUSE,
        time: AgreedTime::default(),
        version: Arc::default(),
    })
    .await
    .expect("it starts");
    // Not so long that the other node, which does not beat here, counts as dead.
    clock.sleep(PAUSE + PAUSE / 2).await;
    controller.stop();
    assert_eq!(membership.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_learns_the_time_from_most_clocks_once_a_majority_has_shown_theirs() {
    let env = Env::system();
    let (clock, time) = (Arc::clone(&env.clock), AgreedTime::default());
    let log = drained();
    let incarnation = log.state().node(NodeId::new(2)).expect("registered").incarnation();
    let controller = Controller::start(ControllerOptions {
        node: NodeId::new(1),
        env,
        log: Arc::new(log),
        membership: Arc::new(Deaf::default()),
        settings: LeaseSettings::default(),
        offset_retention: PAUSE,
        time: time.clone(),
        version: Arc::default(),
    })
    .await
    .expect("it starts");
    clock.sleep(PAUSE / 2).await;
    assert_eq!(time.now(&*clock), None, "the other voter has said nothing");
    let hour = 3_600_000;
    let calendar = Some(Calendar::of(clock.wall().plus_millis(-hour), clock.now()));
    let (node, applied, pinned) = (NodeId::new(2), LogIndex::ZERO, LogIndex::ZERO);
    let beat = Beat { node, incarnation, applied, pinned, calendar, writes: WritesSeen::default() };
    controller.beat(beat).await.expect("it leads");
    clock.sleep(PAUSE / 2).await;
    let now = time.now(&*clock).expect("both have shown theirs");
    // Of two the one behind counts; the machine's own calendar goes on while the test's time stands.
    let behind = clock.wall().as_millis() - now.as_millis();
    assert!((hour - 60_000..hour + 60_000).contains(&behind), "{behind}");
    controller.stop();
}
