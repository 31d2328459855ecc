//! One run: start, faults under load, heal, settle, audit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use streamhouse_metadata::State;
use streamhouse_metadata::invariants::{check, check_span};
use streamhouse_raft::RaftNode;
use streamhouse_storage::Layout;
use streamhouse_storage::layout::Named;
use streamhouse_types::{LogIndex, NodeId, ObjectId};
use turmoil::Sim;

use crate::nemesis::{Nemesis, usual};
use crate::swarm::{Kind, Plan};
use crate::world::{Site, Stage, World};
use crate::{clients, node, store, trace};

/// How long the cluster may take to come up while nothing fails.
const START: Duration = Duration::from_secs(60);
/// How long it may take to serve everybody again once everything is healed.
const CONVERGE: Duration = Duration::from_secs(60);
/// How long reading everything may take then: a node with room for one block in its cache, on a slow store, is slow and
/// not wrong.
const READ_ALL: Duration = Duration::from_secs(1_800);
/// How long what nobody refers to may stay in the store after that: late writes come first, then the grace and a sweep.
const CLEAN: Duration = Duration::from_secs(120);
/// How often every state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Decides everything.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u64,
    /// How long faults and load go on, in simulated time.
    pub faults_for: Duration,
    /// Where log lines go.
    pub trace: Option<PathBuf>,
    /// Which log lines.
    pub filter: String,
    /// Where the history goes, for `streamhouse check`.
    pub history: Option<PathBuf>,
}

/// What came of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Faults done, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Faults of single requests to the store, by kind.
    pub store_faults: BTreeMap<String, u64>,
    /// Requests to the store.
    pub store_requests: u64,
    /// Packets lost and sent again.
    pub packets_lost: u64,
    /// Records sent, acknowledged, uncertain, surely failed, read.
    pub records: [usize; 5],
    /// Seconds of simulated time.
    pub simulated: f64,
    /// Seconds from the end of the faults until everybody was served.
    pub converged: f64,
    /// Seconds of CPU time.
    pub cpu: f64,
    /// Everything that was counted.
    pub counted: BTreeMap<String, u64>,
}

/// Runs one seed. Only one in a process.
///
/// # Errors
/// When the trace cannot be written; whatever the cluster does is in the outcome.
pub fn run(options: &RunOptions) -> anyhow::Result<Outcome> {
    trace::start(options.trace.as_deref(), &options.filter)?;
    let plan = Plan::draw(options.seed, options.nodes, options.faults_for);
    tracing::info!(seed = options.seed, %plan, "run");
    let world = World::new(options.seed, plan);
    let mut driver = Driver::new(world.clone());
    driver.run();
    let mut violations = world.violations.lock().clone();
    violations.extend(world.history.judge());
    if let Some(path) = &options.history {
        world.history.save(path)?;
    }
    let counters = world.store().faults.counters();
    for (kind, count) in &driver.nemesis.done {
        world.coverage.add(&format!("fault: {kind:?}"), *count);
    }
    for (fault, count) in &counters.faults {
        world.coverage.add(&format!("store: {fault:?}"), *count);
    }
    Ok(Outcome {
        seed: options.seed,
        violations,
        faults: by_name(&driver.nemesis.done),
        store_faults: by_name(&counters.faults),
        store_requests: counters.requests.values().sum(),
        packets_lost: world.wire.lost.load(Ordering::Relaxed),
        records: world.history.counts(),
        simulated: driver.sim.elapsed().as_secs_f64(),
        converged: driver.converged.as_secs_f64(),
        cpu: cpu_seconds(),
        counted: world.coverage.all(),
    })
}

fn by_name<K: std::fmt::Debug>(counts: &BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(kind, count)| (format!("{kind:?}"), *count)).collect()
}

/// CPU time of this process.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

struct Driver<'a> {
    sim: Sim<'a>,
    world: Arc<World>,
    nemesis: Nemesis,
    watch: Watch,
    /// The run cannot go on.
    broken: bool,
    converged: Duration,
}

impl Driver<'_> {
    fn new(world: Arc<World>) -> Self {
        let plan = &world.plan;
        let mut sim = turmoil::Builder::new()
            .rng_seed(world.seed.branch("turmoil").number())
            .epoch(UNIX_EPOCH)
            .tick_duration(Duration::from_millis(plan.tick_ms))
            .simulation_duration(Duration::from_secs(86_400))
            .min_message_latency(Duration::from_millis(plan.latency_ms.0))
            .max_message_latency(Duration::from_millis(plan.latency_ms.1))
            .tcp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let shared = world.clone();
        sim.host(store::HOST, move || store::run(shared.clone()));
        for (place, site) in world.nodes.iter().enumerate() {
            let shared = world.clone();
            sim.host(site.name.as_str(), move || node::run(shared.clone(), place));
        }
        for (place, host) in clients::HOSTS.iter().enumerate() {
            sim.client(*host, clients::run(world.clone(), place));
        }
        let nemesis = Nemesis::new(world.clone());
        Self { sim, world, nemesis, watch: Watch::default(), broken: false, converged: Duration::ZERO }
    }

    fn run(&mut self) {
        self.until("the cluster comes up", START, |world| world.stage() >= Stage::Faults);
        if self.broken {
            return;
        }
        self.world.store().faults.set_plan(usual(self.world.plan.store_ms));
        self.nemesis.begin(self.sim.elapsed());
        let end = self.sim.elapsed() + self.world.plan.faults_for;
        while self.sim.elapsed() < end && !self.broken {
            self.nemesis.harm(&mut self.sim);
            self.step();
        }
        self.nemesis.heal(&mut self.sim);
        let healed = self.sim.elapsed();
        self.world.stage.send_replace(Stage::Settle);
        let clients = clients::HOSTS.len() as u64;
        self.until("clients finish", CONVERGE, move |world| world.ended.load(Ordering::Relaxed) == clients);
        self.until("one leads and all have applied the same", CONVERGE, agreed);
        self.converged = self.sim.elapsed() - healed;
        if self.converged > CONVERGE {
            self.world.violate(format!("it took {:?} to serve everybody again", self.converged));
        }
        self.world.stage.send_replace(Stage::Audit);
        self.until("everything is read once more", READ_ALL, move |world| {
            world.ended.load(Ordering::Relaxed) == clients + 1
        });
        let mut last = Ok(());
        let mut next = Duration::ZERO;
        let end = self.sim.elapsed() + CLEAN;
        while !self.broken && self.sim.elapsed() < end {
            if self.sim.elapsed() >= next {
                next = self.sim.elapsed() + LOOK_EVERY;
                last = audit(&self.world);
                if last.is_ok() {
                    break;
                }
            }
            self.step();
        }
        if let Err(fault) = last {
            self.world.violate(format!("after {CLEAN:?}: {fault}"));
        }
        self.watch.look(&self.world, self.sim.elapsed());
    }

    fn step(&mut self) {
        self.nemesis.supervise(&mut self.sim);
        match self.sim.step() {
            Ok(_) => {}
            Err(error) => {
                self.world.violate(format!("the simulation stopped: {error}"));
                self.broken = true;
            }
        }
        self.world.calendars.look(&self.world);
        if self.sim.elapsed() >= self.watch.next {
            self.watch.next = self.sim.elapsed() + LOOK_EVERY;
            self.watch.look(&self.world, self.sim.elapsed());
        }
        if !self.world.violations.lock().is_empty() {
            self.broken = true;
        }
    }

    fn until(&mut self, what: &str, patience: Duration, done: impl Fn(&World) -> bool) {
        let deadline = self.sim.elapsed() + patience;
        while !self.broken && !done(&self.world) {
            if self.sim.elapsed() >= deadline {
                self.world.violate(format!("not within {patience:?}: {what}"));
                self.broken = true;
            }
            self.step();
        }
    }
}

/// Whether all nodes and no others belong to the cluster and run, one of them leads, and all states are equal.
fn agreed(world: &World) -> bool {
    let rafts = world.rafts();
    let leaders = rafts.values().filter(|raft| raft.is_leader()).count();
    let applied: Vec<LogIndex> = rafts.values().map(|raft| raft.state().applied()).collect();
    let nodes: BTreeSet<NodeId> = world.nodes.iter().map(Site::id).collect();
    // Whoever was removed neither votes nor follows any more.
    let among_themselves = |raft: &RaftNode| {
        raft.members().into_iter().map(|member| member.node).collect::<BTreeSet<_>>() == nodes
    };
    rafts.len() == nodes.len()
        && leaders == 1
        && applied.iter().all(|index| *index == applied[0])
        && rafts.values().all(among_themselves)
}

/// Looks at all states.
#[derive(Default)]
struct Watch {
    next: Duration,
    /// The last state seen of each node, and of which of its processes.
    last: BTreeMap<NodeId, (u64, State)>,
    /// What a state that has applied so much looks like.
    hashes: BTreeMap<LogIndex, u64>,
}

impl Watch {
    fn look(&mut self, world: &World, now: Duration) {
        for (node, raft) in world.rafts() {
            let state = raft.snapshot();
            let site = world.nodes.iter().find(|site| site.id() == node).expect("a node of the run");
            let boot = site.boots.load(Ordering::Relaxed);
            if let Err(violation) = check(&state) {
                world.violate(format!("node {node}: {violation}"));
            }
            if let Err(fault) = world.calendars.judge(world, &state, now) {
                world.violate(format!("node {node}: {fault}"));
            }
            let before = self.last.get(&node).filter(|(seen, _)| *seen == boot);
            let Some((_, before)) = before else {
                self.compare(world, node, &state);
                self.last.insert(node, (boot, state));
                continue;
            };
            if before.applied() == state.applied() {
                continue;
            }
            if let Err(violation) = check_span(before, &state) {
                world.violate(format!("node {node}: {violation}"));
            }
            self.compare(world, node, &state);
            self.last.insert(node, (boot, state));
        }
    }

    fn compare(&mut self, world: &World, node: NodeId, state: &State) {
        let hash = state.hash();
        if *self.hashes.entry(state.applied()).or_insert(hash) != hash {
            world.violate(format!("node {node} differs from another at index {}", state.applied()));
        }
    }
}

/// Holds the bucket against the metadata: what is referred to is there, and nothing else. After a calendar was ahead,
/// cluster time stands still until it is caught up with, and garbage stays as long: late is safe.
fn audit(world: &World) -> Result<(), String> {
    let rafts = world.rafts();
    let raft = rafts.values().find(|raft| raft.is_leader()).ok_or("nobody leads")?;
    let state = raft.snapshot();
    let layout = Layout::new(state.cluster().ok_or("there is no cluster")?);
    let jumped = world.plan.kinds.contains(&Kind::ClockJump);
    let late: BTreeSet<ObjectId> = state.garbage().map(|(id, _)| id).filter(|_| jumped).collect();
    let objects = world.store().objects;
    for (id, entry) in state.objects() {
        let found = objects.get(store::BUCKET, layout.wal_key(&id).as_str()).flatten();
        match found {
            Some(object) if object.length == entry.length => {}
            Some(object) => {
                return Err(format!("{id} has {} bytes instead of {}", object.length, entry.length));
            }
            None => return Err(format!("{id} is referred to and missing")),
        }
    }
    let listed = objects.list(store::BUCKET, "", None, usize::MAX).ok_or("there is no bucket")?;
    for entry in listed {
        let named = entry.key.parse().ok().and_then(|key| layout.parse(&key));
        match named {
            Some(Named::Wal(id)) if state.object(&id).is_none() && !late.contains(&id) => {
                return Err(format!("{id} is in the store and nobody refers to it"));
            }
            Some(_) => {}
            None => return Err(format!("{} has no meaning", entry.key)),
        }
    }
    Ok(())
}
