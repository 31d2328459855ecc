//! Which requests fail, how, and when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use streamhouse_env::{Clock, Rng as _, SeededRng, SystemClock};
use tokio::sync::watch;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Writing an object.
    Put,
    /// Reading an object or a range of it.
    Get,
    /// Asking for the length of an object.
    Head,
    /// Deleting objects.
    Delete,
    /// Listing.
    List,
}

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Answers 500 and does nothing.
    FailBefore,
    /// Does it, then answers 500.
    FailAfter,
    /// Does nothing and cuts the connection.
    CutBefore,
    /// Does it, then cuts the connection.
    CutAfter,
    /// Answers 503 SlowDown and does nothing.
    SlowDown,
    /// Answers 403 and does nothing.
    Deny,
    /// Reads only: fewer bytes than asked for, in a reply that looks whole.
    Truncate,
    /// Reads only: the connection is cut in the middle of the bytes.
    CutBody,
    /// Reads only: one byte is wrong.
    Garble,
    /// Takes the request and never answers; it is not done.
    Hang,
    /// Answers 500 and, where it is a write, does it up to [`LATE_MAX`] later.
    Late,
}

/// Longest time between the answer to a [`Fault::Late`] request and its effect.
pub const LATE_MAX: Duration = Duration::from_secs(30);

/// How long requests take besides the work itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// The median in milliseconds.
    pub median_ms: f64,
    /// The 99th percentile in milliseconds; delays are then log-normal. Without it all delays are equal.
    #[serde(default)]
    pub p99_ms: Option<f64>,
}

impl Delay {
    /// The delay at `normal`, a draw from the standard normal distribution.
    fn at(&self, normal: f64) -> Duration {
        /// How many standard deviations the 99th percentile lies above the median.
        const P99: f64 = 2.326_347_874;
        let sigma = self.p99_ms.map_or(0.0, |p99| (p99.max(self.median_ms) / self.median_ms).ln() / P99);
        let millis = self.median_ms * (sigma * normal).exp();
        Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or_default()
    }
}

/// What may happen to requests of one kind: a delay, and the probability of each fault.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpPlan {
    /// How long a request takes besides the work itself.
    pub delay: Option<Delay>,
    /// Probabilities from 0 to 1; they add up to at most 1.
    pub faults: BTreeMap<Fault, f64>,
}

/// What may happen to requests, by kind.
pub type FaultPlan = BTreeMap<Op, OpPlan>;

/// What was asked and what went wrong on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests by kind.
    pub requests: BTreeMap<Op, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    next: BTreeMap<Op, VecDeque<Fault>>,
    counters: Counters,
}

/// Decides over each request. The same seed, plan and order of requests give the same faults.
#[derive(Debug)]
pub struct Faults {
    rng: SeededRng,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    stopped: watch::Sender<bool>,
    refusing: watch::Sender<bool>,
}

impl Faults {
    /// Without a plan nothing fails. Runs on the machine's clock.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::on(seed, Arc::new(SystemClock))
    }

    /// As [`new`](Self::new), on `clock`.
    #[must_use]
    pub fn on(seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            rng: SeededRng::new(seed),
            clock,
            state: Mutex::default(),
            stopped: watch::Sender::new(false),
            refusing: watch::Sender::new(false),
        }
    }

    /// Replaces the plan.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state.lock().plan = plan;
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> FaultPlan {
        self.state.lock().plan.clone()
    }

    /// The next `count` requests of this kind fail so, whatever the plan says; after those that were named before.
    pub fn push_next(&self, op: Op, fault: Fault, count: usize) {
        self.state.lock().next.entry(op).or_default().extend(std::iter::repeat_n(fault, count));
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state.lock().counters.clone()
    }

    /// From now on requests are taken and not answered. Those that still wait at [`resume`](Self::resume) are done
    /// then, however late that is.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Ends [`stop`](Self::stop).
    pub fn resume(&self) {
        self.stopped.send_replace(false);
    }

    /// From now on connections are refused; those that are open are cut.
    pub fn refuse(&self) {
        self.refusing.send_replace(true);
    }

    /// Ends [`refuse`](Self::refuse).
    pub fn accept(&self) {
        self.refusing.send_replace(false);
    }

    pub(crate) fn refusing(&self) -> watch::Receiver<bool> {
        self.refusing.subscribe()
    }

    /// Counts a request, lets it wait as the plan says, and decides how it fails, if it does.
    pub(crate) async fn begin(&self, op: Op) -> Option<Fault> {
        let (fault, delay) = self.draw(op);
        self.pass().await;
        if let Some(delay) = delay {
            self.clock.sleep(delay).await;
            self.pass().await;
        }
        if fault == Some(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        fault
    }

    /// The clock of the server.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Lets the time of a late request pass.
    pub(crate) async fn be_late(&self) {
        let millis = self.rng.below(u64::try_from(LATE_MAX.as_millis()).unwrap_or(u64::MAX));
        self.clock.sleep(Duration::from_millis(millis)).await;
    }

    /// Waits while the server is stopped.
    async fn pass(&self) {
        let mut stopped = self.stopped.subscribe();
        // The sender is ours, so it is there.
        let _ = stopped.wait_for(|stopped| !stopped).await;
    }

    fn draw(&self, op: Op) -> (Option<Fault>, Option<Duration>) {
        let mut state = self.state.lock();
        *state.counters.requests.entry(op).or_default() += 1;
        let named = state.next.get_mut(&op).and_then(VecDeque::pop_front);
        let plan = state.plan.get(&op);
        let fault = named.or_else(|| plan.and_then(|plan| pick(&plan.faults, self.uniform())));
        let delay = plan.and_then(|plan| plan.delay).map(|delay| delay.at(self.normal()));
        if let Some(fault) = fault {
            *state.counters.faults.entry(fault).or_default() += 1;
        }
        (fault, delay)
    }

    /// From [0, 1).
    fn uniform(&self) -> f64 {
        let bits = u32::try_from(self.rng.next_u64() >> 32).expect("32 bits");
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }

    /// From the standard normal distribution (Box and Muller).
    fn normal(&self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// The fault whose share of [0, 1) holds `point`.
fn pick(faults: &BTreeMap<Fault, f64>, point: f64) -> Option<Fault> {
    let mut end = 0.0;
    faults.iter().find_map(|(fault, probability)| {
        end += probability;
        (point < end).then_some(*fault)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_plan(faults: &[(Fault, f64)], delay: Option<Delay>) -> FaultPlan {
        BTreeMap::from([(Op::Put, OpPlan { delay, faults: faults.iter().copied().collect() })])
    }

    fn draws(seed: u64, count: usize) -> Vec<Option<Fault>> {
        let faults = Faults::new(seed);
        faults.set_plan(put_plan(&[(Fault::FailBefore, 0.2), (Fault::FailAfter, 0.3)], None));
        (0..count).map(|_| faults.draw(Op::Put).0).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_again() {
        assert_eq!(draws(1, 100), draws(1, 100));
        assert_ne!(draws(1, 100), draws(2, 100));
    }

    #[test]
    fn faults_come_as_often_as_the_plan_says() {
        let drawn = draws(3, 10_000);
        let count = |fault| drawn.iter().filter(|drawn| **drawn == fault).count();
        assert!((1_800..2_200).contains(&count(Some(Fault::FailBefore))));
        assert!((2_800..3_200).contains(&count(Some(Fault::FailAfter))));
        assert!((4_800..5_200).contains(&count(None)));
    }

    #[test]
    fn named_faults_come_first_and_are_counted() {
        let faults = Faults::new(1);
        faults.push_next(Op::Put, Fault::CutAfter, 2);
        assert_eq!(faults.draw(Op::Get).0, None);
        let drawn: Vec<_> = (0..3).map(|_| faults.draw(Op::Put).0).collect();
        assert_eq!(drawn, [Some(Fault::CutAfter), Some(Fault::CutAfter), None]);
        assert_eq!(faults.counters().faults, BTreeMap::from([(Fault::CutAfter, 2)]));
        assert_eq!(faults.counters().requests, BTreeMap::from([(Op::Put, 3), (Op::Get, 1)]));
    }

    #[test]
    fn delays_have_the_median_and_the_percentile_of_the_plan() {
        let faults = Faults::new(1);
        faults.set_plan(put_plan(&[], Some(Delay { median_ms: 30.0, p99_ms: Some(100.0) })));
        let mut delays: Vec<f64> =
            (0..10_000).map(|_| faults.draw(Op::Put).1.expect("planned").as_secs_f64() * 1_000.0).collect();
        delays.sort_by(f64::total_cmp);
        assert!((28.0..32.0).contains(&delays[5_000]), "{}", delays[5_000]);
        assert!((85.0..118.0).contains(&delays[9_900]), "{}", delays[9_900]);
    }

    #[test]
    fn a_delay_without_a_percentile_is_always_the_same() {
        let delay = Delay { median_ms: 30.0, p99_ms: None };
        assert_eq!(delay.at(-3.0), Duration::from_millis(30));
        assert_eq!(delay.at(3.0), Duration::from_millis(30));
    }

    #[test]
    fn a_plan_is_read_from_json_and_typing_errors_are_refused() {
        let text = r#"{"put": {"delay": {"median_ms": 30, "p99_ms": 100}, "faults": {"fail_after": 0.1}}}"#;
        let plan: FaultPlan = serde_json::from_str(text).unwrap();
        assert_eq!(
            plan,
            put_plan(&[(Fault::FailAfter, 0.1)], Some(Delay { median_ms: 30.0, p99_ms: Some(100.0) }))
        );
        assert!(serde_json::from_str::<FaultPlan>(r#"{"put": {"fautls": {}}}"#).is_err());
    }
}
