//! When a second request beside a slow one is worth its price. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests of up to so many bytes are alike; larger ones are a class of their own.
const CLASS_BYTES: [u64; 4] = [64 << 10, 512 << 10, 4 << 20, 16 << 20];
/// How many of the newest requests of a class are remembered.
const SAMPLES_MAX: usize = 256;
/// With fewer than these nobody knows what slow is.
const SAMPLES_MIN: usize = 50;
/// What is older tells nothing about the store of today.
const SAMPLE_AGE: Duration = Duration::from_secs(600);
/// The percentile is taken anew after so many requests.
const REFRESH_EVERY: usize = 8;
/// Of 100 requests, so many are not slow.
const USUAL_PERCENT: usize = 95;
/// No answer that comes earlier is slow, whatever the others do.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// Most second requests that may follow one another closely.
const BURST: u32 = 10;
/// A store that asks for fewer requests gets no second ones for so long.
const QUIET: Duration = Duration::from_secs(30);
/// What a second request costs: the budget is counted in hundredths of a request.
const PRICE: u32 = 100;

/// Decides how long to wait for an answer before a second request is sent, and whether the budget has one.
///
/// A request is slow when it takes longer than 95 of 100 of its size did lately, and longer than twice the median: where
/// all requests take about the same, a second one would be no faster.
#[derive(Debug)]
pub(crate) struct Hedge {
    /// What each request adds to the budget, in hundredths: the most second requests there are for 100 first ones.
    percent: u32,
    budget: u32,
    quiet_until: Duration,
    latencies: [Latencies; CLASS_BYTES.len() + 1],
}

impl Hedge {
    /// At most `percent` second requests for 100 first ones.
    pub(crate) fn new(percent: u32) -> Self {
        Self { percent, budget: 0, quiet_until: Duration::ZERO, latencies: Default::default() }
    }

    /// A request of `bytes` begins. Returns how long its answer may take before it is slow; `None` when too little is
    /// known.
    pub(crate) fn begin(&mut self, bytes: u64, now: Duration) -> Option<Duration> {
        self.budget = (self.budget + self.percent).min(BURST * PRICE);
        self.latencies[class(bytes)].wait(now)
    }

    /// Whether a second request may be sent now; if so, it is paid for.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.budget < PRICE || now < self.quiet_until {
            return false;
        }
        self.budget -= PRICE;
        true
    }

    /// A first request of `bytes` took so long, or was waited for so long in vain. Second requests are not told: they
    /// are only seen to the end when they are fast.
    pub(crate) fn record(&mut self, bytes: u64, took: Duration, now: Duration) {
        self.latencies[class(bytes)].record(took, now);
    }

    /// The store asked for fewer requests.
    pub(crate) fn throttled(&mut self, now: Duration) {
        self.quiet_until = now + QUIET;
    }
}

fn class(bytes: u64) -> usize {
    CLASS_BYTES.partition_point(|most| *most < bytes)
}

/// The newest latencies of one class.
#[derive(Debug, Default)]
struct Latencies {
    /// When they were taken, and how long they are.
    newest: VecDeque<(Duration, Duration)>,
    /// How many came since the percentile was taken.
    fresh: usize,
    wait: Option<Duration>,
}

impl Latencies {
    fn wait(&self, now: Duration) -> Option<Duration> {
        let (taken, _) = self.newest.back()?;
        self.wait.filter(|_| now.saturating_sub(*taken) <= SAMPLE_AGE)
    }

    fn record(&mut self, took: Duration, now: Duration) {
        self.newest.push_back((now, took));
        while self.newest.len() > SAMPLES_MAX
            || self.newest.front().is_some_and(|(taken, _)| now.saturating_sub(*taken) > SAMPLE_AGE)
        {
            self.newest.pop_front();
        }
        self.fresh += 1;
        if self.newest.len() < SAMPLES_MIN {
            self.wait = None;
        } else if self.wait.is_none() || self.fresh >= REFRESH_EVERY {
            self.fresh = 0;
            let mut sorted: Vec<Duration> = self.newest.iter().map(|(_, took)| *took).collect();
            sorted.sort_unstable();
            let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
            self.wait = Some(at(USUAL_PERCENT).max(at(50) * 2).max(WAIT_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SIZE: u64 = 1 << 20;

    /// As after requests that took so long, one a second.
    fn after(latencies: impl IntoIterator<Item = u32>) -> (Hedge, Duration) {
        let (mut hedge, mut now) = (Hedge::new(10), Duration::ZERO);
        for latency in latencies {
            now += MS * 1_000;
            hedge.record(SIZE, MS * latency, now);
        }
        (hedge, now)
    }

    #[test]
    fn slow_is_what_takes_longer_than_95_of_100() {
        let (mut hedge, now) = after((0..200).map(|n| if n % 20 == 0 { 400 } else { 30 + n % 3 }));
        let wait = hedge.begin(SIZE, now).expect("enough is known");
        assert!((MS * 60..=MS * 400).contains(&wait), "{wait:?}");
        let (mut hedge, now) = after((0..200).map(|n| if n % 10 == 0 { 400 } else { 30 }));
        assert_eq!(hedge.begin(SIZE, now), Some(MS * 400));
    }

    #[test]
    fn where_all_take_about_the_same_nobody_is_slow_before_twice_that() {
        let (mut hedge, now) = after((0..200).map(|n| 100 + n % 5));
        assert_eq!(hedge.begin(SIZE, now), Some(MS * 204));
        let (mut hedge, now) = after([1; 100]);
        assert_eq!(hedge.begin(SIZE, now), Some(WAIT_MIN));
    }

    #[test]
    fn nothing_is_known_of_few_of_old_and_of_other_sizes() {
        let (mut hedge, now) = after([30; SAMPLES_MIN - 1]);
        assert_eq!(hedge.begin(SIZE, now), None);
        let (mut hedge, now) = after([30; SAMPLES_MIN]);
        assert!(hedge.begin(SIZE, now).is_some());
        assert_eq!(hedge.begin(SIZE * 16 + 1, now), None);
        assert_eq!(hedge.begin(1, now), None);
        assert_eq!(hedge.begin(SIZE, now + SAMPLE_AGE + MS), None);
        hedge.record(SIZE, MS, now + SAMPLE_AGE * 2);
        assert_eq!(hedge.begin(SIZE, now + SAMPLE_AGE * 2), None);
    }

    #[test]
    fn the_newest_requests_count() {
        let (mut hedge, now) = after([500; SAMPLES_MAX].into_iter().chain([10; SAMPLES_MAX]));
        assert_eq!(hedge.begin(SIZE, now), Some(MS * 20));
    }

    #[test]
    fn no_more_second_requests_are_paid_for_than_their_share() {
        let (mut hedge, now) = after([30; 100]);
        assert!(!hedge.take(now), "nothing was earned yet");
        let mut taken = 0;
        for _ in 0..1_000 {
            hedge.begin(SIZE, now);
            taken += u32::from(hedge.take(now));
        }
        assert_eq!(taken, 100);
    }

    #[test]
    fn a_long_calm_does_not_pay_for_a_storm() {
        let (mut hedge, now) = after([30; 100]);
        for _ in 0..10_000 {
            hedge.begin(SIZE, now);
        }
        assert_eq!((0..100).filter(|_| hedge.take(now)).count(), BURST as usize);
    }

    #[test]
    fn a_store_that_asks_for_fewer_requests_gets_no_second_ones() {
        let (mut hedge, now) = after([30; 100]);
        for _ in 0..100 {
            hedge.begin(SIZE, now);
        }
        hedge.throttled(now);
        assert!(!hedge.take(now + QUIET - MS));
        assert!(hedge.take(now + QUIET));
    }
}
