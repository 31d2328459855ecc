//! Second requests beside slow ones.

use super::*;
use crate::metrics::testing::Counted;
use crate::metrics::{HEDGES, REQUESTS};

/// A store whose requests were quick so far, so that 20 ms are slow; it has earned some second requests.
async fn warm() -> Bench {
    warmed(Scripted::default()).await
}

async fn warmed(blob: Scripted) -> Bench {
    let mut bench = over(blob);
    bench.store = bench.store.hedged();
    bench.put_slot("warm").await.unwrap();
    for round in 0..100 {
        bench.put_slot(&format!("warm{round}")).await.unwrap();
        bench.read("warm-0").await.unwrap();
    }
    bench.blob.puts.lock().clear();
    bench.blob.gets.lock().clear();
    bench
}

const TEXT: &[u8] = b"0123456789";
const SLOW: Duration = Duration::from_millis(20);

impl Bench {
    /// Puts an object whose attempts have names of their own.
    async fn put_slot(&self, slot: &str) -> Result<u32, PutError> {
        let name =
            |attempt: u32| (key(&format!("{slot}-{attempt}")), Payload::from(Bytes::from_static(TEXT)));
        self.store.put_named(self.options(30), name).await
    }

    async fn read(&self, name: &str) -> Result<Bytes, GetError> {
        self.store.get_range(&key(name), 2..6, Purpose::Fetch).await
    }

    fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.blob.steps.lock().extend(steps);
    }

    fn puts(&self) -> Vec<String> {
        self.blob.puts.lock().iter().map(ToString::to_string).collect()
    }

    /// How long some work takes.
    async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, Duration) {
        let start = self.env.clock.now();
        let value = work.await;
        (value, self.env.clock.now() - start)
    }
}

fn late(millis: u64, step: Step) -> Step {
    Step::Late(millis, Box::new(step))
}

#[tokio::test(start_paused = true)]
async fn a_slow_put_is_overtaken_by_the_next_attempt_at_its_slot() {
    let bench = warm().await;
    bench.script([Step::Hang, late(5, Step::Work)]);
    let (attempt, took) = bench.timed(bench.put_slot("slot")).await;
    assert_eq!(attempt.unwrap(), 1);
    assert_eq!(bench.puts(), ["slot-0", "slot-1"]);
    assert_eq!(bench.blob.find(&key("slot-1")).unwrap(), TEXT);
    assert!((SLOW..SLOW + Duration::from_millis(10)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_put_that_is_still_the_first_to_be_durable_is_the_one() {
    let bench = warm().await;
    bench.script([late(30, Step::Work), Step::Hang]);
    assert_eq!(bench.put_slot("slot").await.unwrap(), 0);
    assert_eq!(bench.puts(), ["slot-0", "slot-1"]);
    assert!(bench.blob.find(&key("slot-0")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_slot_gets_one_second_request_and_its_attempts_go_on_counting() {
    let bench = warm().await;
    bench.script([Step::Hang, Step::Hang, Step::Hang, late(1_000, Step::Work)]);
    let (attempt, took) = bench.timed(bench.put_slot("slot")).await;
    assert_eq!(attempt.unwrap(), 3);
    assert_eq!(bench.puts(), ["slot-0", "slot-1", "slot-2", "slot-3"]);
    assert_eq!(took.as_secs(), 5, "two time out together, then one more does");
}

#[tokio::test(start_paused = true)]
async fn when_one_of_two_fails_the_other_is_waited_for() {
    for (first, second, expected) in [
        (late(30, Step::Fail(unreachable())), late(50, Step::Work), 1),
        (late(60, Step::Work), late(5, Step::Fail(lost())), 0),
        (late(60, Step::Work), Step::Fail(BlobError::Refused("403".into())), 0),
    ] {
        let bench = warm().await;
        bench.script([first, second]);
        assert_eq!(bench.put_slot("slot").await.unwrap(), expected);
        assert_eq!(bench.puts().len(), 2);
    }
}

/// Two attempts that fail, and after them the door is shut: whether an object may exist.
async fn may_exist_after(first: BlobError, second: BlobError) -> bool {
    let bench = warm().await;
    let shut = Step::Fail(BlobError::Refused("403".into()));
    bench.script([late(30, Step::Fail(first)), late(20, Step::Fail(second)), shut]);
    let error = bench.put_slot("slot").await.unwrap_err();
    assert_eq!(bench.puts().len(), 3);
    error.may_have_happened()
}

#[tokio::test(start_paused = true)]
async fn a_put_did_not_happen_only_when_neither_request_may_have() {
    assert!(!may_exist_after(unreachable(), unreachable()).await);
    assert!(may_exist_after(lost(), unreachable()).await);
    assert!(may_exist_after(unreachable(), lost()).await);
    assert!(may_exist_after(busy(), busy()).await);
}

#[tokio::test(start_paused = true)]
async fn a_hedged_put_that_gets_no_answer_is_unknown_at_its_deadline() {
    let bench = warm().await;
    bench.script((0..100).map(|_| Step::Hang));
    let (error, took) = bench.timed(bench.put_slot("slot")).await;
    assert!(error.unwrap_err().may_have_happened());
    assert!((26..=30).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_request_ends_with_the_deadline_of_the_first() {
    let bench = warm().await;
    bench.script((0..2).map(|_| Step::Hang));
    let name = |attempt: u32| (key(&format!("slot-{attempt}")), Payload::from(Bytes::from_static(TEXT)));
    let deadline = bench.env.clock.now() + Duration::from_millis(50);
    let options = PutOptions { purpose: Purpose::Produce, deadline };
    let error = bench.store.put_named(options, name).await.unwrap_err();
    assert!(error.may_have_happened() && bench.env.clock.now() == deadline, "{error:?}");
    assert_eq!(bench.puts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_bytes_under_either_name_are_a_conflict_that_says_what_else_may_exist() {
    for (taken, late_by, others) in [("slot-1", 60, true), ("slot-0", 30, true), ("slot-0", 1, false)] {
        let bench = warm().await;
        bench.blob.objects.lock().push((key(taken), b"9876543210".to_vec()));
        bench.script([late(late_by, Step::Work), late(20, Step::Work), Step::Work]);
        let error = bench.put_slot("slot").await.unwrap_err();
        assert!(matches!(&error, PutError::Conflict { key, .. } if key.as_str() == taken), "{error:?}");
        assert_eq!((error.may_have_happened(), error.is_permanent()), (others, true), "{taken} {late_by}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_attempts_share_a_name_gets_no_second_request() {
    let bench = warm().await;
    bench.script([late(500, Step::Work)]);
    bench.put(TEXT).await.unwrap();
    assert_eq!(bench.puts(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_is_asked_for_again_and_the_first_answer_wins() {
    let bench = warm().await;
    bench.script([Step::Hang, late(5, Step::Work)]);
    let (read, took) = bench.timed(bench.read("warm-0")).await;
    assert_eq!(read.unwrap(), &TEXT[2..6]);
    assert!((SLOW..SLOW + Duration::from_millis(10)).contains(&took), "{took:?}");
    let gets = bench.blob.gets.lock().clone();
    assert!(gets.len() == 2 && gets[0] == gets[1], "{gets:?}");

    let bench = warm().await;
    bench.script([late(30, Step::Work), Step::Hang]);
    let (read, took) = bench.timed(bench.read("warm-0")).await;
    assert_eq!((read.unwrap(), took), (Bytes::from_static(&TEXT[2..6]), Duration::from_millis(30)));
}

#[tokio::test(start_paused = true)]
async fn a_short_reply_to_a_second_request_does_not_win() {
    let bench = warm().await;
    bench.script([late(40, Step::Work), Step::Short]);
    assert_eq!(bench.read("warm-0").await.unwrap(), &TEXT[2..6]);
    assert_eq!(bench.blob.gets.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_what_consumers_wait_for_is_read_twice() {
    for (purpose, requests) in [
        (Purpose::Fetch, 2),
        (Purpose::Prefetch, 2),
        (Purpose::Sweep, 1),
        (Purpose::Verify, 1),
        (Purpose::Meta, 1),
    ] {
        let bench = warm().await;
        bench.script([late(500, Step::Work), late(500, Step::Work)]);
        bench.store.get_range(&key("warm-0"), 2..6, purpose).await.unwrap();
        assert_eq!(bench.blob.gets.lock().len(), requests, "{purpose:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_store_and_one_that_is_not_told_to_get_no_second_requests() {
    let local = warmed(Scripted { is_local: true, ..Scripted::default() }).await;
    let mut plain = warm().await;
    plain.store = Store::new(plain.blob.clone(), &plain.env);
    for bench in [local, plain] {
        bench.script([late(500, Step::Work), late(500, Step::Work)]);
        assert_eq!(bench.put_slot("slot").await.unwrap(), 0);
        bench.read("warm-0").await.unwrap();
        assert_eq!((bench.puts().len(), bench.blob.gets.lock().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_slow_for_everybody_gets_few_more_requests() {
    let bench = warm().await;
    bench.script((0..2_000).map(|_| late(300, Step::Work)));
    // Slowness that has become usual is none, so the store is slow in another way each time.
    for round in 0..200_u64 {
        bench.blob.steps.lock().clear();
        bench.script([late(100 << (round % 4), Step::Work), late(900, Step::Work)]);
        bench.read("warm-0").await.unwrap();
    }
    let gets = bench.blob.gets.lock().len();
    assert!((202..=215).contains(&gets), "{gets}");
}

#[tokio::test(start_paused = true)]
async fn a_second_request_that_the_store_finds_one_too_many_is_the_last_for_a_while() {
    let bench = warm().await;
    bench.script([late(30, Step::Work), Step::Fail(busy()), late(30, Step::Work)]);
    for slot in ["first", "second"] {
        assert_eq!(bench.put_slot(slot).await.unwrap(), 0);
    }
    assert_eq!(bench.puts(), ["first-0", "first-1", "second-0"]);
}

#[tokio::test(start_paused = true)]
async fn second_requests_are_counted_as_won_lost_or_spared() {
    let counted = Counted::default();
    let _guard = metrics::set_default_local_recorder(&counted);
    let bench = warm().await;
    bench.script([Step::Hang, late(5, Step::Work)]);
    bench.put_slot("won").await.unwrap();
    bench.script([late(30, Step::Work), Step::Hang]);
    bench.put_slot("lost").await.unwrap();
    bench.script([late(30, Step::Work), Step::Fail(busy())]);
    bench.put_slot("throttled").await.unwrap();
    bench.script([late(30, Step::Work)]);
    bench.put_slot("spared").await.unwrap();
    let hedges = |outcome: &str| counted.get(HEDGES, &["put", outcome]);
    assert_eq!((hedges("won"), hedges("lost"), hedges("spared")), (1, 2, 1));
    let requests = |code: &str| counted.get(REQUESTS, &["put", "produce", code]);
    assert_eq!(requests("dropped"), 2, "the slower one of the first two slots each");
}
