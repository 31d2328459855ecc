//! When the open buffer is flushed. Pure: time and what is in flight are arguments.
//!
//! Three wishes pull at the decision. A lone batch on a quiet node wants to go at once, or nearly so. Many small objects cost
//! uploads, metadata and syncs. Bulk wants full objects and does not feel a few milliseconds. So a flush keeps its
//! distance from the one before it (the interval), waits a little longer for each upload that is still in flight, and
//! gathers the longer the more bytes per second arrive. See `docs/adr/0005-flush-gathering.md`.

use std::time::Duration;

use crate::BrokerSettings;

/// Why a buffer was flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// It reached its size limit.
    Size,
    /// It waited long enough.
    Age,
    /// No connection that waits for it can send more.
    Window,
    /// The node stops.
    Drain,
}

impl Trigger {
    pub(crate) const ALL: [Self; 4] = [Self::Size, Self::Age, Self::Window, Self::Drain];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Window => "window",
            Self::Drain => "drain",
        }
    }
}

/// What to do about the open buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// There is nothing to flush.
    Empty,
    /// Flush it now.
    Flush(Trigger),
    /// Look again at this time, or when something happens.
    At(Duration),
    /// All upload slots are taken: look again when one is free.
    WhenSlotFree,
}

/// Objects on their way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    /// Uploads in flight.
    pub(crate) uploading: usize,
    /// These, and what was uploaded and is not answered yet.
    pub(crate) undecided: usize,
}

/// Bytes per second, over about the last [`Rate::SPAN`].
#[derive(Debug, Default)]
struct Rate {
    decayed: f64,
    at: Duration,
}

impl Rate {
    const SPAN: Duration = Duration::from_millis(50);

    fn push(&mut self, now: Duration, bytes: u64) {
        self.decay(now);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let bytes = bytes as f64;
        self.decayed += bytes;
    }

    fn decay(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at);
        self.decayed *= (-elapsed.as_secs_f64() / Self::SPAN.as_secs_f64()).exp();
        self.at = now;
    }

    fn mib_per_second(&self) -> f64 {
        self.decayed / Self::SPAN.as_secs_f64() / f64::from(1 << 20)
    }
}

/// When the open buffer is flushed.
#[derive(Debug)]
pub(crate) struct GroupCommit {
    interval: Duration,
    limit: u64,
    slots: usize,
    last_flush: Option<Duration>,
    /// When the oldest batch of the buffer came; `None` when the buffer is empty.
    opened: Option<Duration>,
    bytes: u64,
    rate: Rate,
}

impl GroupCommit {
    /// Up to this rate nothing is gathered beyond the interval.
    const QUIET_MIB: f64 = 24.0;
    /// From this rate on, gathering takes as long as it may.
    const BULK_MIB: f64 = 96.0;
    /// How long bulk is gathered.
    const GATHER_MAX: Duration = Duration::from_millis(60);
    /// The share of the interval in which the rest of what comes at once is waited for; none where it is less than a tick.
    const SETTLING_SHARE: u32 = 16;
    const SETTLING_MAX: Duration = Duration::from_millis(4);
    /// The least that a timer can be set to.
    const TICK: Duration = Duration::from_millis(1);
    /// What each upload in flight adds to the wait, at most.
    const DAMPING: Duration = Duration::from_millis(2);

    pub(crate) fn new(settings: &BrokerSettings) -> Self {
        Self {
            interval: settings.flush_interval,
            limit: settings.flush_bytes,
            slots: settings.uploads_in_flight,
            last_flush: None,
            opened: None,
            bytes: 0,
            rate: Rate::default(),
        }
    }

    /// Counts a batch into the buffer.
    pub(crate) fn push(&mut self, now: Duration, bytes: u64) {
        self.opened.get_or_insert(now);
        self.bytes += bytes;
        self.rate.push(now, bytes);
    }

    /// Notes that the buffer was closed; `rest` is what stays in the next one, and when its oldest batch came.
    pub(crate) fn flushed(&mut self, now: Duration, rest: Option<(u64, Duration)>) {
        self.last_flush = Some(now);
        self.bytes = rest.map_or(0, |(bytes, _)| bytes);
        self.opened = rest.map(|(_, opened)| opened);
    }

    /// Notes that `bytes` left the buffer without a flush; `opened` is when the oldest batch that stays came.
    pub(crate) fn removed(&mut self, bytes: u64, opened: Option<Duration>) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.opened = opened;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Decides. `windows_full` tells whether no connection that waits for the buffer can send more, and is asked only when
    /// it matters.
    pub(crate) fn decide(
        &self,
        now: Duration,
        Slots { uploading, undecided }: Slots,
        windows_full: impl FnOnce() -> bool,
    ) -> Decision {
        let Some(opened) = self.opened else { return Decision::Empty };
        if uploading >= self.slots {
            return Decision::WhenSlotFree;
        }
        if self.bytes >= self.limit {
            return Decision::Flush(Trigger::Size);
        }
        let due = self.due(opened, uploading);
        if now >= due {
            return Decision::Flush(Trigger::Age);
        }
        if self.bytes < self.share_of_limit(undecided) {
            return Decision::At(due);
        }
        let quarter = self.last_flush.map_or(Duration::ZERO, |last| last + self.interval / 4);
        if now < quarter {
            return Decision::At(quarter.min(due));
        }
        if windows_full() { Decision::Flush(Trigger::Window) } else { Decision::At(due) }
    }

    /// When the buffer has waited long enough, with `uploading` uploads in flight.
    fn due(&self, opened: Duration, uploading: usize) -> Duration {
        let distance = self.last_flush.map_or(Duration::ZERO, |last| last + self.interval);
        let ramp = (self.rate.mib_per_second() - Self::QUIET_MIB) / (Self::BULK_MIB - Self::QUIET_MIB);
        let gathered = opened + Self::GATHER_MAX.mul_f64(ramp.clamp(0.0, 1.0));
        let damping = self.interval.min(Self::DAMPING) * u32::try_from(uploading).unwrap_or(u32::MAX);
        distance.max(gathered).max(opened + self.settling()) + damping
    }

    /// How long what comes at once takes to come: a client that was answered sends its requests one after the other.
    fn settling(&self) -> Duration {
        let span = (self.interval / Self::SETTLING_SHARE).min(Self::SETTLING_MAX);
        if span < Self::TICK { Duration::ZERO } else { span }
    }

    /// How many bytes make it worth while to start another upload early when `undecided` objects are on their way: whoever
    /// is answered for one of them sends more soon, and one upload takes it all.
    fn share_of_limit(&self, undecided: usize) -> u64 {
        self.limit.saturating_mul(undecided as u64) / (self.slots.max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    impl Slots {
        /// So many uploads, and nothing that was uploaded before.
        fn busy(uploading: usize) -> Self {
            Self { uploading, undecided: uploading }
        }
    }

    fn commit(interval: u64) -> GroupCommit {
        let flush_interval = ms(interval);
        GroupCommit::new(&BrokerSettings { flush_interval, ..BrokerSettings::default() })
    }

    fn never() -> bool {
        false
    }

    #[test]
    fn a_lone_batch_on_a_quiet_node_goes_at_once() {
        let mut quick = commit(2);
        assert_eq!(quick.decide(ms(0), Slots::busy(0), never), Decision::Empty);
        quick.push(ms(1_000), 4);
        assert_eq!(quick.decide(ms(1_000), Slots::busy(0), never), Decision::Flush(Trigger::Age));
    }

    #[test]
    fn where_uploads_are_dear_a_lone_batch_waits_a_moment_for_others_that_may_come() {
        let mut slow = commit(200);
        slow.push(ms(1_000), 4);
        assert_eq!(slow.decide(ms(1_000), Slots::busy(0), || true), Decision::Flush(Trigger::Window));
        assert_eq!(slow.decide(ms(1_000), Slots::busy(0), never), Decision::At(ms(1_004)));
        assert_eq!(slow.decide(ms(1_004), Slots::busy(0), never), Decision::Flush(Trigger::Age));
    }

    #[test]
    fn a_second_batch_waits_out_the_interval_since_the_last_flush() {
        let mut commit = commit(250);
        commit.flushed(ms(1_000), None);
        commit.push(ms(1_010), 4);
        assert!(
            matches!(commit.decide(ms(1_010), Slots::busy(0), never), Decision::At(time) if time <= ms(1_250))
        );
        assert_eq!(commit.decide(ms(1_249), Slots::busy(0), never), Decision::At(ms(1_250)));
        assert_eq!(commit.decide(ms(1_250), Slots::busy(0), never), Decision::Flush(Trigger::Age));
    }

    #[test]
    fn a_full_buffer_goes_before_its_time() {
        let mut commit = commit(250);
        commit.flushed(ms(1_000), None);
        commit.push(ms(1_001), 8 * MIB);
        assert_eq!(commit.decide(ms(1_001), Slots::busy(3), never), Decision::Flush(Trigger::Size));
    }

    #[test]
    fn nothing_goes_while_all_slots_are_taken() {
        let mut commit = commit(250);
        commit.push(ms(1_000), 80 * MIB);
        assert_eq!(commit.decide(ms(9_000), Slots::busy(8), || true), Decision::WhenSlotFree);
        assert_eq!(commit.decide(ms(9_000), Slots::busy(7), never), Decision::Flush(Trigger::Size));
    }

    #[test]
    fn when_nobody_can_send_more_a_quarter_of_the_interval_is_enough() {
        let mut commit = commit(200);
        commit.flushed(ms(1_000), None);
        commit.push(ms(1_010), 4);
        assert_eq!(commit.decide(ms(1_049), Slots::busy(0), || true), Decision::At(ms(1_050)));
        assert_eq!(commit.decide(ms(1_050), Slots::busy(0), || true), Decision::Flush(Trigger::Window));
        assert_eq!(commit.decide(ms(1_050), Slots::busy(0), never), Decision::At(ms(1_200)));
    }

    #[test]
    fn full_windows_start_no_small_upload_beside_others() {
        let mut commit = commit(200);
        commit.flushed(ms(1_000), None);
        commit.push(ms(1_010), MIB);
        assert_eq!(commit.decide(ms(1_100), Slots::busy(2), || true), Decision::At(ms(1_204)));
        commit.push(ms(1_100), MIB);
        assert_eq!(commit.decide(ms(1_100), Slots::busy(2), || true), Decision::Flush(Trigger::Window));
    }

    #[test]
    fn what_is_about_to_be_answered_is_waited_for_before_full_windows_start_a_small_upload() {
        let mut commit = commit(200);
        commit.flushed(ms(1_000), None);
        commit.push(ms(1_010), 4);
        let about = Slots { uploading: 0, undecided: 1 };
        assert_eq!(commit.decide(ms(1_100), about, || true), Decision::At(ms(1_200)));
        assert_eq!(commit.decide(ms(1_101), Slots::busy(0), || true), Decision::Flush(Trigger::Window));
    }

    #[test]
    fn bulk_is_gathered_into_large_objects() {
        // 300 MB/s in batches of 1 MiB, each upload done within 15 ms.
        let mut commit = commit(2);
        let (mut objects, mut bytes, mut busy_until) = (0_u64, 0_u64, Vec::new());
        for tick in 0..4_000_u64 {
            let now = ms(tick);
            if tick % 7 == 0 || tick % 7 == 3 {
                commit.push(now, MIB);
            }
            busy_until.retain(|until| *until > now);
            if let Decision::Flush(_) = commit.decide(now, Slots::busy(busy_until.len()), never) {
                objects += 1;
                bytes += commit.bytes();
                busy_until.push(now + ms(15));
                commit.flushed(now, None);
            }
        }
        assert!(bytes / objects > 5 * MIB, "{} bytes an object", bytes / objects);
    }

    #[test]
    fn a_steady_trickle_waits_for_a_few_milliseconds_only() {
        // 10 MiB/s in batches of 64 KiB, uploads of 3 ms.
        let mut commit = commit(2);
        let (mut busy_until, mut waits) = (Vec::new(), Vec::new());
        for tick in 0..4_000_u64 {
            let now = ms(tick);
            if tick % 6 == 0 {
                commit.push(now, 64 << 10);
            }
            busy_until.retain(|until| *until > now);
            let opened = commit.opened;
            if let Decision::Flush(_) = commit.decide(now, Slots::busy(busy_until.len()), never) {
                waits.push(now - opened.expect("a flush is of something"));
                busy_until.push(now + ms(3));
                commit.flushed(now, None);
            }
        }
        assert!(waits.iter().all(|wait| *wait <= ms(4)), "{:?}", waits.iter().max());
    }

    #[test]
    fn an_interval_of_50_ms_gives_at_most_20_uploads_a_second() {
        let mut commit = commit(50);
        let mut flushes = 0;
        for tick in 0..10_000 {
            commit.push(ms(tick), 10_000);
            if let Decision::Flush(_) = commit.decide(ms(tick), Slots::busy(1), never) {
                flushes += 1;
                commit.flushed(ms(tick), None);
            }
        }
        assert!(flushes <= 200, "{flushes} uploads in 10 s");
    }

    #[test]
    fn what_stays_behind_a_flush_keeps_its_age() {
        let mut commit = commit(50);
        commit.push(ms(100), 10 * MIB);
        commit.flushed(ms(200), Some((2 * MIB, ms(110))));
        assert_eq!((commit.bytes(), commit.opened), (2 * MIB, Some(ms(110))));
        commit.removed(2 * MIB, None);
        assert_eq!(commit.decide(ms(999), Slots::busy(0), never), Decision::Empty);
    }
}
