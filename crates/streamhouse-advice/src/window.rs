//! What is learned of one connection's way to produce: how many requests it leaves unanswered before it holds still,
//! how large they are, and how long an answer takes. Pure.
//!
//! Kafka's protocol does not tell a client's limits. They show when the client runs into them: it takes an answer, and
//! at once a request follows that fills the place that became free.

use std::time::Duration;

/// How often in a row a limit must be seen before it is believed.
const SEEN_ENOUGH: u32 = 3;
/// How long a client must have been waiting for answers before it is said to be held back.
const HELD_BACK_AFTER: Duration = Duration::from_secs(10);
/// A client is taken to be waiting from the first share on of requests that were waiting for an answer, down to the second.
const WAITING: (f64, f64) = (0.75, 0.5);
/// A request that comes after an answer within a quarter of the time that answers take was waiting for it; this much is
/// granted in any case.
const PROMPT_MIN: Duration = Duration::from_millis(2);

/// When a client sends its next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Perhaps before it is answered.
    AnyTime,
    /// Not before it is answered.
    WhenAnswered,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Window {
    in_flight: u32,
    /// Most that were in flight since none was.
    peak: u32,
    /// Answers have left, and the places that became free are not all filled again: when the last one left, and how
    /// many requests were in flight before the first.
    freed: Option<(Duration, u32)>,
    /// How many requests the client leaves unanswered, as it looks.
    limit: u32,
    /// How often in a row it was seen to fill the window up to the limit as soon as it could.
    seen: u32,
    /// The share of fillings of the window that came as soon as they could: 1 or 0 for each.
    prompt: Mean,
    /// Since when the client has been waiting most of the time.
    since: Option<Duration>,
    request_bytes: Mean,
    batch_bytes: Mean,
    answer_seconds: Mean,
}

impl Window {
    /// A request with `batches` batches of together `bytes` bytes has come.
    pub(crate) fn arrived(&mut self, now: Duration, bytes: usize, batches: usize) {
        if self.in_flight == 0 {
            self.peak = 0;
        }
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
        #[expect(clippy::cast_precision_loss, reason = "sizes of requests are far below 2^52")]
        let (bytes, batches) = (bytes as f64, batches.max(1) as f64);
        self.request_bytes.note(bytes);
        self.batch_bytes.note(bytes / batches);
        match self.freed {
            Some((at, before)) if self.in_flight >= before => {
                self.freed = None;
                self.filled(now, now.saturating_sub(at), before);
            }
            Some(_) => {}
            None if self.in_flight > self.limit => (self.limit, self.seen) = (self.in_flight, 0),
            None => {}
        }
    }

    /// The answer to the oldest request has left, `took` after the request had come.
    pub(crate) fn answered(&mut self, now: Duration, took: Duration) {
        let earlier = self.freed.map_or(0, |(_, before)| before);
        // When nothing is left in flight, what counts is what was since nothing was the last time.
        let before = if self.in_flight <= 1 { self.peak } else { earlier.max(self.in_flight) };
        self.freed = Some((now, before));
        self.in_flight = self.in_flight.saturating_sub(1);
        self.answer_seconds.note(took.as_secs_f64());
    }

    /// The window was filled up to `before` requests again, `gap` after the last answer.
    fn filled(&mut self, now: Duration, gap: Duration, before: u32) {
        let prompt = Duration::from_secs_f64(self.answer_seconds.get() / 4.0).max(PROMPT_MIN);
        let is_prompt = gap <= prompt;
        self.seen = match (is_prompt, before == self.limit) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => self.seen.saturating_add(1),
        };
        self.limit = before;
        self.prompt.note(f64::from(u8::from(is_prompt)));
        let (from, down_to) = WAITING;
        let share = if self.since.is_some() { down_to } else { from };
        self.since = self.since.or(Some(now)).filter(|_| self.prompt.get() >= share);
    }

    /// When the client sends its next request, as it looks.
    pub(crate) fn next(&self) -> Next {
        if self.seen >= SEEN_ENOUGH && self.in_flight >= self.limit {
            Next::WhenAnswered
        } else {
            Next::AnyTime
        }
    }

    /// What holds the client back; `None` unless it has been waiting for answers for a while.
    pub(crate) fn ceiling(&self, now: Duration) -> Option<Ceiling> {
        let since = self.since?;
        (now.saturating_sub(since) >= HELD_BACK_AFTER).then_some(Ceiling {
            requests: self.limit,
            request_bytes: self.request_bytes.get(),
            batch_bytes: self.batch_bytes.get(),
            answer_seconds: self.answer_seconds.get(),
        })
    }
}

/// What a connection can produce at most, the way it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ceiling {
    /// Requests that it leaves unanswered.
    pub(crate) requests: u32,
    /// Mean bytes of batches in a request.
    pub(crate) request_bytes: f64,
    /// Mean bytes of a batch.
    pub(crate) batch_bytes: f64,
    /// Mean time from a request to its answer.
    pub(crate) answer_seconds: f64,
}

impl Ceiling {
    /// By Little's law.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        f64::from(self.requests) * self.request_bytes / self.answer_seconds.max(1e-6)
    }
}

/// A mean in which what was sixteen values ago counts for a third; the first value is the mean, and without any it is 0.
#[derive(Debug, Default, Clone, Copy)]
struct Mean(Option<f64>);

impl Mean {
    fn note(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + (value - mean) / 16.0));
    }

    fn get(self) -> f64 {
        self.0.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Duration = Duration::from_millis(200);

    /// A client that keeps `limit` requests in flight and is answered all at once, for so many rounds; `think` is how
    /// long it takes for the next ones.
    fn rounds(window: &mut Window, from: Duration, limit: u32, count: u32, think: Duration) -> Duration {
        let mut now = from;
        for _ in 0..count {
            (0..limit).for_each(|_| window.arrived(now, 16 << 10, 2));
            now += ANSWER;
            (0..limit).for_each(|_| window.answered(now, ANSWER));
            now += think;
        }
        now
    }

    #[test]
    fn a_client_that_fills_its_window_at_once_is_known_by_its_limit() {
        for limit in [1, 5] {
            let mut window = Window::default();
            let now = rounds(&mut window, Duration::ZERO, limit, 6, Duration::from_micros(300));
            assert_eq!(window.next(), Next::AnyTime, "nothing is in flight");
            (1..limit).for_each(|_| window.arrived(now, 16 << 10, 2));
            assert_eq!(window.next(), Next::AnyTime, "one more will come");
            window.arrived(now, 16 << 10, 2);
            assert_eq!(window.next(), Next::WhenAnswered, "limit {limit}");
        }
    }

    #[test]
    fn answers_that_leave_one_by_one_tell_the_limit_too() {
        let mut window = Window::default();
        (0..5).for_each(|_| window.arrived(Duration::ZERO, 1_000, 1));
        for step in 1..10 {
            let now = ANSWER * step;
            window.answered(now, ANSWER);
            assert_eq!(window.next(), Next::AnyTime);
            window.arrived(now + Duration::from_millis(1), 1_000, 1);
        }
        assert_eq!(window.next(), Next::WhenAnswered);
    }

    #[test]
    fn a_client_that_takes_its_time_is_not_waiting() {
        let mut window = Window::default();
        let now = rounds(&mut window, Duration::ZERO, 1, 100, Duration::from_millis(100));
        let now = rounds(&mut window, now, 1, 1, Duration::ZERO);
        window.arrived(now, 16 << 10, 1);
        assert_eq!(window.next(), Next::AnyTime);
        assert_eq!(window.ceiling(now + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_limit_is_learned_anew_when_the_client_changes() {
        let mut window = Window::default();
        let now = rounds(&mut window, Duration::ZERO, 5, 6, Duration::ZERO);
        let now = rounds(&mut window, now, 1, 6, Duration::ZERO);
        window.arrived(now, 1, 1);
        assert_eq!(window.next(), Next::WhenAnswered, "down to one");
        window.arrived(now, 1, 1);
        assert_eq!(window.next(), Next::AnyTime, "it can do more");
    }

    #[test]
    fn the_ceiling_is_told_once_the_client_has_waited_for_a_while() {
        let mut window = Window::default();
        let now = rounds(&mut window, Duration::ZERO, 5, 10, Duration::ZERO);
        assert_eq!(window.ceiling(now), None);
        let now = rounds(&mut window, now, 5, 30, Duration::ZERO);
        // A pause now and then does not say that it does not wait.
        let now = rounds(&mut window, now, 5, 1, Duration::from_secs(1));
        let now = rounds(&mut window, now, 5, 30, Duration::ZERO);
        let ceiling = window.ceiling(now).expect("it has waited for 12 s");
        assert_eq!(ceiling.requests, 5);
        assert!((ceiling.batch_bytes - 8192.0).abs() < 1.0, "{ceiling:?}");
        let expected = 5.0 * 16_384.0 / ANSWER.as_secs_f64();
        assert!((ceiling.bytes_per_second() - expected).abs() < 1.0, "{ceiling:?}");
    }
}
