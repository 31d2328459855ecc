//! What the hosts of a run share with the loop that drives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use streamhouse_env::Env;
use streamhouse_faults::{Faults, Objects};
use streamhouse_raft::RaftNode;
use streamhouse_types::NodeId;
use tokio::sync::{Notify, watch};

use crate::calendars::Calendars;
use crate::coverage::Coverage;
use crate::history::History;
use crate::machine::{Disk, Pace, SimClock, SimNet, SimThreads, Skew, Wire};
use crate::seed::Seed;
use crate::swarm::Plan;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The cluster comes up and the topic is made; nothing fails.
    Start,
    /// Load and faults.
    Faults,
    /// Everything is healed: clients finish what they have begun.
    Settle,
    /// Everything is read once more.
    Audit,
}

/// A run.
pub(crate) struct World {
    pub(crate) seed: Seed,
    pub(crate) plan: Plan,
    pub(crate) wire: Wire,
    /// The next one of a new node.
    next_id: AtomicU64,
    pub(crate) nodes: Vec<Site>,
    pub(crate) store: Mutex<Option<StoreHandle>>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) history: History,
    pub(crate) coverage: Coverage,
    /// What must not have happened, first one first.
    pub(crate) violations: Mutex<Vec<String>>,
    pub(crate) calendars: Calendars,
    /// Parts of the load and the audit that have ended.
    pub(crate) ended: AtomicU64,
}

/// The simulated S3, past every fault.
#[derive(Debug, Clone)]
pub(crate) struct StoreHandle {
    pub(crate) faults: Arc<Faults>,
    pub(crate) objects: Arc<Objects>,
}

/// A node's place: what outlives its processes.
pub(crate) struct Site {
    /// The number of the place, which no other gets.
    pub(crate) place: u64,
    tenant: Mutex<Tenant>,
    /// What an operator wants done with the machine, until that is done.
    pub(crate) order: Mutex<Option<Order>>,
    /// The name of its host.
    pub(crate) name: String,
    pub(crate) disk: Disk,
    pub(crate) skew: Skew,
    pub(crate) pace: Pace,
    pub(crate) boots: AtomicU64,
    /// The metadata log of the process that runs.
    pub(crate) raft: Mutex<Option<RaftNode>>,
    /// How the last process ended, until somebody has seen it.
    pub(crate) exit: Mutex<Option<Exit>>,
    /// Asks the process to stop in order.
    pub(crate) stop: Notify,
}

/// The node that a place has now.
#[derive(Debug, Clone, Copy)]
struct Tenant {
    id: NodeId,
    standing: Standing,
    /// What it had on its disk is lost, so it can never again be the node that it was.
    is_wiped: bool,
}

impl Tenant {
    fn new(id: NodeId) -> Self {
        Self { id, standing: Standing::Wanted, is_wiped: false }
    }
}

/// What an operator has said of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It belongs to the cluster.
    Wanted,
    /// Its removal was asked for, and may have happened.
    Leaving,
    /// It was removed.
    Removed,
}

/// What is done with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Its power goes, and stays away.
    Off,
    /// It starts again.
    On,
    /// Its disk is lost. It starts again on an empty one, as the node that it was.
    Wipe,
    /// Another one comes in its place: with an empty disk, and as a node that there never was.
    Replace,
}

/// How a node's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was asked to.
    Stopped,
    /// It did not start, or could not go on.
    Failed(String),
}

impl World {
    pub(crate) fn new(seed: u64, plan: Plan) -> Arc<Self> {
        let root = Seed::new(seed);
        let nodes = (1..=plan.nodes).map(|place| Site::new(place, &plan)).collect();
        let wire = Wire::default();
        Arc::new(Self {
            seed: root,
            next_id: AtomicU64::new(plan.nodes + 1),
            plan,
            wire,
            nodes,
            store: Mutex::default(),
            stage: watch::Sender::new(Stage::Start),
            history: History::new(format!("simulated, seed {seed}")),
            coverage: Coverage::of_process(),
            violations: Mutex::default(),
            calendars: Calendars::default(),
            ended: AtomicU64::new(0),
        })
    }

    /// The machine of a host. To be called on it.
    pub(crate) fn env(&self, host: &str, parts: HostParts) -> Env {
        let seed = self.seed.branch(host).branch(&parts.boot.to_string());
        Env {
            clock: Arc::new(SimClock::new(parts.skew)),
            rng: seed.branch("rng").rng().as_env(),
            fs: parts.disk.mounted(),
            net: Arc::new(SimNet::new(self.wire.clone(), parts.disk, seed.branch("net").rng())),
            threads: Arc::new(SimThreads::new(parts.pace, seed.branch("threads").rng())),
        }
    }

    pub(crate) fn violate(&self, what: String) {
        tracing::error!(violation = what, "violation");
        self.violations.lock().push(what);
    }

    /// A part of the load, or the audit, is done.
    pub(crate) fn finished(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits until the run is past `stage`.
    pub(crate) async fn passed(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        // The sender is the world's own.
        let _ = stages.wait_for(|now| *now > stage).await;
    }

    pub(crate) fn store(&self) -> StoreHandle {
        self.store.lock().clone().expect("the store starts first")
    }

    /// The metadata logs of the processes that run.
    pub(crate) fn rafts(&self) -> BTreeMap<NodeId, RaftNode> {
        let running = |site: &Site| Some((site.id(), site.raft.lock().clone()?));
        self.nodes.iter().filter_map(running).collect()
    }

    /// Whether a node that runs has ever heard of this one.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.rafts().values().any(|raft| raft.state().member(node).is_some())
    }

    /// Whether two others have a vote, as far as all nodes that run know.
    pub(crate) fn goes_on_without(&self, node: NodeId) -> bool {
        let votes = |raft: &RaftNode| {
            raft.members().iter().filter(|member| member.is_voter && member.node != node).count() >= 2
        };
        self.rafts().values().all(votes)
    }

    /// Whether so many nodes have a vote, as far as the one that leads knows.
    pub(crate) fn has_voters(&self, least: usize) -> bool {
        let votes = |raft: &RaftNode| raft.members().iter().filter(|member| member.is_voter).count();
        self.rafts().values().any(|raft| raft.is_leader() && votes(raft) >= least)
    }

    /// Whether a cluster bears the loss of any one disk now: all nodes vote, run, and know of no other voters. With fewer
    /// voters, or while they change, a single disk may have the only copy of what was acknowledged.
    pub(crate) fn bears_a_lost_disk(&self) -> bool {
        let rafts = self.rafts();
        let nodes: Vec<NodeId> = self.nodes.iter().map(Site::id).collect();
        let all_vote = |raft: &RaftNode| {
            let members = raft.members();
            members.len() == nodes.len()
                && members.iter().all(|member| member.is_voter && nodes.contains(&member.node))
                && raft.unfinished_voters().is_none()
        };
        nodes.len() >= 3 && rafts.len() == nodes.len() && rafts.values().all(all_vote)
    }

    /// The id of a node that there never was.
    pub(crate) fn fresh_id(&self) -> NodeId {
        NodeId::new(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Where clients find the nodes.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|site| format!("{}:9094", site.name)).collect()
    }

    /// Where Kafka clients find them.
    pub(crate) fn kafka_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|site| format!("{}:9092", site.name)).collect()
    }
}

/// What differs between the machines of two hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostParts {
    pub(crate) boot: u64,
    pub(crate) disk: Disk,
    pub(crate) skew: Skew,
    pub(crate) pace: Pace,
}

impl Site {
    fn new(place: u64, plan: &Plan) -> Self {
        let skew = Skew { rate_ppm: plan.rate_ppm(place), ..Skew::default() };
        let pace = Pace::default();
        pace.usual_us.store(plan.disk_us, Ordering::Relaxed);
        Self {
            place,
            tenant: Mutex::new(Tenant::new(NodeId::new(place))),
            order: Mutex::default(),
            name: format!("node-{place}"),
            disk: Disk::default(),
            skew,
            pace,
            boots: AtomicU64::new(0),
            raft: Mutex::default(),
            exit: Mutex::default(),
            stop: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.tenant.lock().id
    }

    pub(crate) fn standing(&self) -> Standing {
        self.tenant.lock().standing
    }

    pub(crate) fn stands(&self, standing: Standing) {
        self.tenant.lock().standing = standing;
    }

    /// From now on the place has this node, which has nothing yet.
    pub(crate) fn let_to(&self, id: NodeId) {
        self.disk.renew();
        *self.tenant.lock() = Tenant::new(id);
    }

    /// Loses everything that the node had.
    pub(crate) fn wipe(&self) {
        self.disk.renew();
        self.tenant.lock().is_wiped = true;
    }

    pub(crate) fn is_wiped(&self) -> bool {
        self.tenant.lock().is_wiped
    }

    pub(crate) fn parts(&self) -> HostParts {
        HostParts {
            boot: self.boots.load(Ordering::Relaxed),
            disk: self.disk.clone(),
            skew: self.skew.clone(),
            pace: self.pace.clone(),
        }
    }
}
