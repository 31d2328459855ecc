//! Does harm while the run is in its phase of faults, and undoes it at the end.

mod jumps;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use streamhouse_faults::{Delay, Fault, FaultPlan, Op, OpPlan, Unsynced};
use streamhouse_raft::RaftNode;
use turmoil::Sim;

use crate::clients;
use crate::node::RESTART_AFTER;
use crate::seed::Dice;
use crate::store;
use crate::swarm::{Kind, OPERATED};
use crate::world::{Order, World};
use jumps::Jumper;
use unanswered::Silence;

/// Something that is undone later.
enum Undo {
    /// What is over at once.
    Nothing,
    /// What has yet to begin, and ends in its own way.
    Later,
    Boot(usize),
    Network {
        kind: Kind,
        from: Vec<String>,
        to: Vec<String>,
    },
    Loss,
    Wedge,
    Store(Kind),
    DiskStall(usize),
    /// The power is not cut any more, if it has not been yet.
    Cut(usize),
}

pub(crate) struct Nemesis {
    world: Arc<World>,
    dice: Dice,
    kinds: Vec<Kind>,
    next: Duration,
    undo: Vec<(Duration, Undo)>,
    /// When nodes that are down start again.
    down: BTreeMap<usize, Duration>,
    /// Of these, machines that an operator keeps off.
    held: BTreeSet<usize>,
    silence: Silence,
    jumper: Jumper,
    /// Faults done, by kind.
    pub(crate) done: BTreeMap<Kind, u64>,
}

impl Nemesis {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let dice = world.seed.branch("nemesis").rng();
        let kinds = world.plan.kinds.iter().copied().filter(|kind| !OPERATED.contains(kind)).collect();
        Self {
            world,
            dice,
            kinds,
            next: Duration::MAX,
            undo: Vec::new(),
            down: BTreeMap::new(),
            held: BTreeSet::new(),
            silence: Silence::default(),
            jumper: Jumper::default(),
            done: BTreeMap::new(),
        }
    }

    /// From now on.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.next = now;
        self.begin_jumps();
        // While the cluster is well, a node that is left unanswered is the only one that has a hard time.
        if self.kinds.contains(&Kind::Unanswered) && !self.dice.one_in(3) {
            self.silence.want(now);
        }
    }

    /// Processes that ended are started again, as their machine's supervisor would, and operators get what they want.
    pub(crate) fn supervise(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for (place, site) in self.world.nodes.iter().enumerate() {
            if site.exit.lock().take().is_some() {
                self.down.entry(place).or_insert(now + RESTART_AFTER);
            }
        }
        self.black_out(sim);
        self.obey(sim);
        let is_due = |(place, at): &(&usize, &Duration)| **at <= now && !self.held.contains(*place);
        let due: Vec<usize> = self.down.iter().filter(is_due).map(|(place, _)| *place).collect();
        for place in due {
            self.down.remove(&place);
            let site = &self.world.nodes[place];
            tracing::info!(node = site.name, "starts again");
            sim.bounce(site.name.as_str());
        }
    }

    /// Ends the nodes whose power has gone while they wrote.
    fn black_out(&mut self, sim: &mut Sim<'_>) {
        let world = self.world.clone();
        for (place, site) in world.nodes.iter().enumerate().filter(|(_, site)| site.disk.is_without_power()) {
            let unsynced = site.disk.unsynced();
            tracing::info!(node = site.name, ?unsynced, "the power has gone");
            world.coverage.count("power: gone while something was written");
            if unsynced.iter().any(|file| file.starts_with("/data/raft/log")) {
                world.coverage.count("power: gone between a write to the log and its sync");
            }
            let unsynced = self.unsynced();
            self.power_off(sim, place, unsynced);
            let lasts = Duration::from_millis(self.dice.magnitude(100, 15_000));
            self.undo.push((sim.elapsed() + lasts, Undo::Boot(place)));
        }
    }

    /// All is lost, or some of it.
    fn unsynced(&self) -> Unsynced {
        let mixed = Unsynced::Mixed(self.dice.below(u64::MAX));
        if self.dice.one_in(3) { Unsynced::Lost } else { mixed }
    }

    fn obey(&mut self, sim: &mut Sim<'_>) {
        let world = self.world.clone();
        for (place, site) in world.nodes.iter().enumerate() {
            let Some(order) = site.order.lock().take() else { continue };
            tracing::info!(node = site.name, ?order, "an operator has its way");
            if order != Order::On && !self.down.contains_key(&place) {
                self.power_off(sim, place, Unsynced::Lost);
            }
            match order {
                Order::Replace => site.let_to(world.fresh_id()),
                Order::Wipe => site.wipe(),
                Order::Off | Order::On => {}
            }
            if order == Order::Off {
                self.held.insert(place);
            } else {
                self.held.remove(&place);
                self.down.insert(place, sim.elapsed());
            }
        }
    }

    /// Harm that is due.
    pub(crate) fn harm(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.undo_due(sim, now);
        self.jump_when_wanted();
        if self.silence.begin_when_wanted(sim, &self.world, &self.dice) {
            self.count(Kind::Unanswered);
        }
        self.silence.end_when_over(sim, &self.world);
        if now < self.next || self.kinds.is_empty() {
            return;
        }
        let mean = u64::try_from(self.world.plan.every.as_millis()).expect("short");
        self.next = now + Duration::from_millis(self.dice.between(1, mean * 2));
        let kind = *self.dice.pick(&self.kinds);
        if let Some(undo) = self.act(sim, kind) {
            // Now and then longer than a write may wait.
            let long = kind == Kind::StoreDown && self.dice.one_in(3);
            let lasts =
                if long { self.dice.between(31_000, 45_000) } else { self.dice.magnitude(100, 15_000) };
            let lasts = Duration::from_millis(lasts);
            if !matches!(undo, Undo::Later) {
                tracing::info!(?kind, ?lasts, "harm");
                self.count(kind);
            }
            self.undo.push((now + lasts, undo));
        }
    }

    fn count(&mut self, kind: Kind) {
        *self.done.entry(kind).or_default() += 1;
    }

    fn undo_due(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let all = std::mem::take(&mut self.undo).into_iter();
        let (due, later): (Vec<_>, Vec<_>) = all.partition(|(at, _)| *at <= now);
        self.undo = later;
        for (_, undo) in due {
            self.undo(sim, undo);
        }
    }

    /// Ends all harm.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        self.black_out(sim);
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.undo(sim, undo);
        }
        self.silence.end(sim);
        for site in &self.world.nodes {
            site.disk.keep_power();
            site.disk.leave_room(None);
            site.skew.offset_ms.store(0, Ordering::Relaxed);
        }
    }

    fn site(&self) -> usize {
        usize::try_from(self.dice.below(self.world.nodes.len() as u64)).expect("an index")
    }

    fn running(&self) -> Option<usize> {
        let place = self.site();
        self.world.nodes[place].raft.lock().is_some().then_some(place)
    }

    fn act(&mut self, sim: &mut Sim<'_>, kind: Kind) -> Option<Undo> {
        match kind {
            Kind::Kill => self.crash(sim, Unsynced::Kept),
            Kind::Power => {
                let unsynced = self.unsynced();
                self.crash(sim, unsynced)
            }
            Kind::Torn => {
                let place = self.site();
                // Whoever is to lead writes its vote.
                if self.dice.one_in(2) {
                    let _ = self.transfer_to(place);
                }
                self.world.nodes[place].disk.cut_power_after(self.dice.magnitude(1, 40));
                Some(Undo::Cut(place))
            }
            Kind::Stop => {
                let place = self.running()?;
                self.world.nodes[place].stop.notify_one();
                Some(Undo::Boot(place))
            }
            Kind::Pause | Kind::Partition | Kind::OneWay | Kind::ClientCut | Kind::StoreCut => {
                self.cut(sim, kind)
            }
            Kind::Loss => {
                self.world.wire.loss_ppm.store(self.dice.magnitude(1_000, 20_000), Ordering::Relaxed);
                Some(Undo::Loss)
            }
            Kind::Wedge => {
                // Each message takes the chance, so this is some connections in a second.
                sim.set_fail_rate(
                    1.0 / f64::from(u32::try_from(self.dice.magnitude(500, 50_000)).expect("small")),
                );
                Some(Undo::Wedge)
            }
            Kind::Latency => {
                sim.set_max_message_latency(Duration::from_millis(self.dice.magnitude(50, 500)));
                Some(Undo::Network { kind, from: Vec::new(), to: Vec::new() })
            }
            Kind::StoreSlow | Kind::StoreFails | Kind::StoreBusy | Kind::StoreLies | Kind::StoreDown => {
                self.spoil_store(kind);
                Some(Undo::Store(kind))
            }
            Kind::DiskStall => {
                let place = self.site();
                let stall = self.dice.magnitude(20_000, 1_500_000);
                self.world.nodes[place].pace.stall_us.store(stall, Ordering::Relaxed);
                Some(Undo::DiskStall(place))
            }
            Kind::ClockJump => {
                self.want_jump();
                Some(Undo::Later)
            }
            Kind::Unanswered => {
                // Whoever leads is not chosen, and may be the only one that has homes.
                let _ = self.transfer_to(self.site());
                self.silence.want(sim.elapsed());
                Some(Undo::Later)
            }
            Kind::Transfer | Kind::Snapshot => self.ask(kind),
            Kind::Drain | Kind::Voters | Kind::Replace | Kind::Wipe => None,
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, unsynced: Unsynced) -> Option<Undo> {
        let place = self.site();
        if self.down.contains_key(&place) {
            return None;
        }
        self.power_off(sim, place, unsynced);
        Some(Undo::Boot(place))
    }

    fn power_off(&mut self, sim: &mut Sim<'_>, place: usize, unsynced: Unsynced) {
        let site = &self.world.nodes[place];
        if unsynced != Unsynced::Kept {
            // A machine without power says nothing; a killed process has its connections closed by the system.
            for other in self.hosts().filter(|other| *other != site.name) {
                sim.partition(site.name.as_str(), other.as_str());
            }
        }
        *site.raft.lock() = None;
        sim.crash(site.name.as_str());
        if unsynced != Unsynced::Kept {
            for other in self.hosts().filter(|other| *other != site.name) {
                sim.repair(site.name.as_str(), other.as_str());
            }
        }
        site.disk.crash(unsynced);
        *site.exit.lock() = None;
        self.down.insert(place, Duration::MAX);
    }

    fn hosts(&self) -> impl Iterator<Item = String> {
        let nodes = self.world.nodes.iter().map(|site| site.name.clone());
        let others = clients::HOSTS.into_iter().chain([store::HOST]).map(str::to_owned);
        nodes.chain(others).collect::<Vec<_>>().into_iter()
    }

    fn cut(&mut self, sim: &mut Sim<'_>, kind: Kind) -> Option<Undo> {
        let names: Vec<String> = self.world.nodes.iter().map(|site| site.name.clone()).collect();
        let victim = self.world.nodes[self.victim()].name.clone();
        let rest: Vec<String> = names.iter().filter(|name| **name != victim).cloned().collect();
        let (from, to): (Vec<String>, Vec<String>) = match kind {
            Kind::Pause => (vec![victim.clone()], self.hosts().filter(|name| *name != victim).collect()),
            Kind::ClientCut => (vec![victim], clients::HOSTS.map(str::to_owned).to_vec()),
            Kind::StoreCut => (vec![victim], vec![store::HOST.to_owned()]),
            Kind::OneWay if self.dice.one_in(2) => (rest, vec![victim]),
            _ => (vec![victim], rest),
        };
        let act: fn(&Sim<'_>, &str, &str) = match kind {
            Kind::Pause => |sim, a, b| sim.hold(a, b),
            Kind::OneWay => |sim, a, b| sim.partition_oneway(a, b),
            _ => |sim, a, b| sim.partition(a, b),
        };
        each_pair(sim, &from, &to, act);
        Some(Undo::Network { kind, from, to })
    }

    /// Half of the time the leader: its harm is the interesting one.
    fn victim(&self) -> usize {
        let leader = self.world.nodes.iter().position(|site| {
            let raft = site.raft.lock();
            raft.as_ref().is_some_and(RaftNode::is_leader)
        });
        leader.filter(|_| self.dice.one_in(2)).unwrap_or_else(|| self.site())
    }

    fn ask(&mut self, kind: Kind) -> Option<Undo> {
        if kind == Kind::Snapshot {
            let rafts = self.world.rafts();
            let raft = rafts.values().next()?;
            // Only sends a message to the node's core.
            raft.take_snapshot().now_or_never()?.ok()?;
        } else {
            self.transfer_to(self.site())?;
        }
        Some(Undo::Nothing)
    }

    /// Asks the leader to let the node of a place lead.
    fn transfer_to(&self, place: usize) -> Option<()> {
        let rafts = self.world.rafts();
        let (_, raft) = rafts.iter().find(|(_, raft)| raft.is_leader())?;
        // Only sends a message to the node's core.
        raft.transfer_leader(self.world.nodes[place].id()).now_or_never()?.ok()
    }

    fn spoil_store(&self, kind: Kind) {
        let faults = self.world.store().faults;
        if kind == Kind::StoreDown {
            return if self.dice.one_in(2) { faults.stop() } else { faults.refuse() };
        }
        let mut plan = usual(self.world.plan.store_ms);
        let ppm = |low, high| f64::from(u32::try_from(self.dice.magnitude(low, high)).expect("small")) / 1e6;
        for (op, what) in &mut plan {
            match kind {
                Kind::StoreSlow => {
                    let median = f64::from(u32::try_from(self.dice.magnitude(5, 500)).expect("small"));
                    let p99 = f64::from(u32::try_from(self.dice.magnitude(500, 30_000)).expect("small"));
                    what.delay = Some(Delay { median_ms: median, p99_ms: Some(p99) });
                }
                Kind::StoreFails => {
                    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::CutBefore, Fault::CutAfter] {
                        what.faults.insert(fault, ppm(1_000, 150_000));
                    }
                    what.faults.insert(Fault::Late, ppm(1_000, 100_000));
                }
                Kind::StoreBusy => drop(what.faults.insert(Fault::SlowDown, ppm(100_000, 1_000_000))),
                _ if *op == Op::Get => {
                    what.faults.insert(Fault::CutBody, ppm(1_000, 200_000));
                    // So often that the same bytes are wrong each time they are read again, they are called damaged.
                    for fault in [Fault::Truncate, Fault::Garble] {
                        what.faults.insert(fault, ppm(1_000, 20_000));
                    }
                }
                _ => {}
            }
        }
        faults.set_plan(plan);
    }

    fn undo(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        match undo {
            Undo::Boot(place) => {
                // An ordered stop may still be under way; its end is seen by the supervisor.
                if self.down.contains_key(&place) {
                    self.down.insert(place, sim.elapsed());
                }
            }
            Undo::Nothing | Undo::Later => {}
            Undo::Network { kind, from, to } => self.mend(sim, kind, &from, &to),
            Undo::Loss => self.world.wire.loss_ppm.store(0, Ordering::Relaxed),
            Undo::Wedge => sim.set_fail_rate(0.0),
            Undo::Store(Kind::StoreDown) => {
                self.world.store().faults.resume();
                self.world.store().faults.accept();
            }
            Undo::Store(_) => self.world.store().faults.set_plan(usual(self.world.plan.store_ms)),
            Undo::Cut(place) => self.world.nodes[place].disk.keep_power(),
            Undo::DiskStall(place) => self.world.nodes[place].pace.stall_us.store(0, Ordering::Relaxed),
        }
    }

    fn mend(&self, sim: &mut Sim<'_>, kind: Kind, from: &[String], to: &[String]) {
        match kind {
            Kind::Pause => each_pair(sim, from, to, |sim, a, b| sim.release(a, b)),
            Kind::OneWay => each_pair(sim, from, to, |sim, a, b| sim.repair_oneway(a, b)),
            Kind::Latency => sim.set_max_message_latency(Duration::from_millis(self.world.plan.latency_ms.1)),
            _ => each_pair(sim, from, to, |sim, a, b| sim.repair(a, b)),
        }
    }
}

fn each_pair(sim: &Sim<'_>, from: &[String], to: &[String], act: impl Fn(&Sim<'_>, &str, &str)) {
    for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (a, b))) {
        act(sim, a, b);
    }
}

/// The store on a good day.
pub(crate) fn usual(median_ms: u64) -> FaultPlan {
    let median = f64::from(u32::try_from(median_ms).expect("small"));
    let delay = Some(Delay { median_ms: median, p99_ms: Some(median * 8.0) });
    let ops = [Op::Put, Op::Get, Op::Head, Op::Delete, Op::List];
    ops.into_iter().map(|op| (op, OpPlan { delay, faults: BTreeMap::new() })).collect()
}
