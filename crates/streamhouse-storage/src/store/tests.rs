use std::collections::VecDeque;

use parking_lot::Mutex;

use super::*;
use crate::layout::Key;

/// What one attempt shall do.
enum Step {
    Work,
    Fail(BlobError),
    /// Does the work, then says that it is not known.
    FailAfter(BlobError),
    Hang,
    /// Takes so long, in milliseconds, and then does that.
    Late(u64, Box<Step>),
    /// Gives back fewer bytes than were asked for.
    Short,
}

/// Keeps objects in memory and does what it is told; when it is told nothing, it works.
#[derive(Debug, Default)]
struct Scripted {
    steps: Mutex<VecDeque<Step>>,
    objects: Mutex<Vec<(Key, Vec<u8>)>>,
    puts: Mutex<Vec<Key>>,
    gets: Mutex<Vec<(Key, Range<u64>)>>,
    is_local: bool,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("step")
    }
}

impl Scripted {
    /// What the next attempt shall do, once it is time.
    async fn step(&self) -> Step {
        let step = self.steps.lock().pop_front().unwrap_or(Step::Work);
        let Step::Late(millis, step) = step else { return step };
        Env::system().clock.sleep(Duration::from_millis(millis)).await;
        *step
    }

    fn find(&self, key: &Key) -> Result<Vec<u8>, BlobError> {
        let objects = self.objects.lock();
        let found = objects.iter().find(|(found, _)| found == key);
        found.map(|(_, bytes)| bytes.clone()).ok_or(BlobError::NotFound)
    }

    fn create(&self, key: &Key, payload: &Payload) -> Result<(), BlobError> {
        if self.find(key).is_ok() {
            return Err(BlobError::AlreadyExists);
        }
        self.objects.lock().push((key.clone(), payload.pieces().concat()));
        Ok(())
    }
}

#[async_trait::async_trait]
impl Blob for Scripted {
    async fn put(&self, key: &Key, payload: &Payload) -> Result<(), BlobError> {
        self.puts.lock().push(key.clone());
        match self.step().await {
            Step::Work | Step::Short | Step::Late(..) => self.create(key, payload),
            Step::Fail(error) => Err(error),
            Step::FailAfter(error) => self.create(key, payload).and(Err(error)),
            Step::Hang => std::future::pending().await,
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>, _: u64) -> Result<Vec<Bytes>, BlobError> {
        self.gets.lock().push((key.clone(), range.clone()));
        let step = self.step().await;
        let bytes = self.find(key)?;
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        match step {
            Step::Work | Step::Late(..) => Ok(vec![Bytes::copy_from_slice(&bytes[start..end])]),
            Step::Short => Ok(vec![Bytes::copy_from_slice(&bytes[start..end - 1])]),
            Step::Fail(error) | Step::FailAfter(error) => Err(error),
            Step::Hang => std::future::pending().await,
        }
    }

    async fn head(&self, key: &Key) -> Result<BlobMeta, BlobError> {
        self.find(key).map(|bytes| BlobMeta { key: key.clone(), length: bytes.len() as u64 })
    }

    async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        match self.steps.lock().pop_front() {
            Some(Step::Fail(error)) => Err(error),
            _ => {
                self.objects.lock().retain(|(found, _)| found != key);
                Ok(())
            }
        }
    }

    async fn list(&self, _: &Prefix, after: Option<&str>) -> Result<Page, BlobError> {
        if let Some(Step::Fail(error)) = self.steps.lock().pop_front() {
            return Err(error);
        }
        let mut objects = self.objects.lock().clone();
        objects.sort();
        let mut rest = objects.into_iter().filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let Some((key, bytes)) = rest.next() else { return Ok(Page::default()) };
        let next_after = rest.next().map(|_| key.to_string());
        Ok(Page { objects: vec![BlobMeta { key, length: bytes.len() as u64 }], next_after })
    }

    fn is_local(&self) -> bool {
        self.is_local
    }
}

struct Bench {
    blob: Arc<Scripted>,
    store: Store,
    env: Env,
}

fn bench(steps: impl IntoIterator<Item = Step>) -> Bench {
    over(Scripted { steps: Mutex::new(steps.into_iter().collect()), ..Scripted::default() })
}

fn over(blob: Scripted) -> Bench {
    let (blob, env) = (Arc::new(blob), Env::system());
    Bench { store: Store::new(blob.clone(), &env), blob, env }
}

impl Bench {
    fn options(&self, seconds: u64) -> PutOptions {
        PutOptions {
            purpose: Purpose::Produce,
            deadline: self.env.clock.now() + Duration::from_secs(seconds),
        }
    }

    async fn put(&self, text: &'static [u8]) -> Result<(), PutError> {
        self.store.put(&key("a"), &Payload::from(Bytes::from_static(text)), self.options(30)).await
    }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn busy() -> BlobError {
    BlobError::Throttled("503".into())
}

fn lost() -> BlobError {
    BlobError::Unknown("connection reset".into())
}

fn unreachable() -> BlobError {
    BlobError::NotHappened("connection refused".into())
}

#[tokio::test(start_paused = true)]
async fn a_put_goes_on_until_the_store_takes_it() {
    let bench = bench([Step::Fail(busy()), Step::Fail(lost()), Step::Hang, Step::Fail(unreachable())]);
    bench.put(b"x").await.unwrap();
    assert_eq!(bench.blob.puts.lock().len(), 5);
    assert_eq!(bench.blob.find(&key("a")).unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_put_that_was_carried_out_and_then_failed_is_recognised_as_ours() {
    let bench = bench([Step::FailAfter(lost())]);
    bench.put(b"x").await.unwrap();
    assert_eq!(bench.blob.puts.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_bytes_under_our_name_are_a_conflict() {
    let bench = bench([]);
    bench.put(b"x").await.unwrap();
    for other in [&b"y"[..], b"xx"] {
        let error = bench.put(other).await.unwrap_err();
        assert!(matches!(error, PutError::Conflict { .. }), "{error}");
        assert!(error.is_permanent() && !error.may_have_happened());
    }
    assert_eq!(bench.blob.find(&key("a")).unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_not_be_read_back_is_never_said_not_to_have_happened() {
    let bench = bench([Step::FailAfter(lost()), Step::Work, Step::Fail(BlobError::Refused("403".into()))]);
    let error = bench.put(b"x").await.unwrap_err();
    assert!(matches!(error, PutError::Unknown { .. }) && error.may_have_happened(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_said_to_be_taken_and_is_not_is_tried_again() {
    let bench = bench([Step::Fail(BlobError::AlreadyExists)]);
    bench.put(b"x").await.unwrap();
    assert_eq!(bench.blob.find(&key("a")).unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_put_gives_up_at_its_deadline_and_says_what_it_knows() {
    let hopeless = bench((0..100).map(|_| Step::Fail(unreachable())));
    let start = hopeless.env.clock.now();
    let error = hopeless.put(b"x").await.unwrap_err();
    assert!(matches!(error, PutError::NotHappened { attempts: 4.., .. }), "{error}");
    assert!(!error.may_have_happened() && !error.is_permanent());
    assert!(hopeless.env.clock.now() - start <= Duration::from_secs(30));

    let unsure =
        bench(std::iter::once(Step::Fail(lost())).chain((0..100).map(|_| Step::Fail(unreachable()))));
    let error = unsure.put(b"x").await.unwrap_err();
    assert!(matches!(error, PutError::Unknown { .. }) && error.may_have_happened(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_leaves_the_put_unknown_at_its_deadline() {
    let bench = bench((0..100).map(|_| Step::Hang));
    let start = bench.env.clock.now();
    let error = bench.put(b"x").await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    assert_eq!(
        (bench.env.clock.now() - start).as_secs().clamp(26, 30),
        (bench.env.clock.now() - start).as_secs()
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_helped_is_not_tried_again() {
    for error in [BlobError::Refused("403".into()), BlobError::NoSpace(None)] {
        let full = matches!(error, BlobError::NoSpace(_));
        let bench = bench([Step::Fail(error)]);
        let error = bench.put(b"x").await.unwrap_err();
        assert_eq!(matches!(error, PutError::DiskFull { .. }), full, "{error}");
        assert_eq!(error.is_permanent(), !full);
        assert!(!error.may_have_happened());
        assert_eq!(bench.blob.puts.lock().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_at_a_slot_can_have_a_name_of_its_own() {
    let bench = bench([Step::Fail(lost()), Step::FailAfter(lost())]);
    let name = |attempt: u32| (key(&format!("slot-{attempt}")), Payload::from(Bytes::from_static(b"x")));
    let attempt = bench.store.put_named(bench.options(30), name).await.unwrap();
    assert_eq!(attempt, 2);
    assert_eq!(*bench.blob.puts.lock(), [key("slot-0"), key("slot-1"), key("slot-2")]);
}

#[tokio::test(start_paused = true)]
async fn a_short_reply_is_never_taken_for_the_range() {
    let bench = bench([Step::Work, Step::Short, Step::Fail(busy())]);
    bench.put(b"0123456789").await.unwrap();
    let read = bench.store.get_range(&key("a"), 2..6, Purpose::Fetch).await.unwrap();
    assert_eq!(read, &b"2345"[..]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_gives_short_replies_is_unavailable() {
    let bench = bench(std::iter::once(Step::Work).chain((0..100).map(|_| Step::Short)));
    bench.put(b"0123456789").await.unwrap();
    let error = bench.store.get_range(&key("a"), 2..6, Purpose::Fetch).await.unwrap_err();
    assert!(matches!(error, GetError::Unavailable { source: BlobError::WrongLength { .. }, .. }), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_told_at_once() {
    let bench = bench([]);
    let error = bench.store.get(&key("a"), Purpose::Fetch).await.unwrap_err();
    assert!(matches!(error, GetError::NotFound { .. }) && !error.is_retryable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_delete_is_tried_again_and_may_be_repeated() {
    let bench = bench([Step::Work, Step::Fail(lost())]);
    bench.put(b"x").await.unwrap();
    bench.store.delete(&key("a"), Purpose::Sweep).await.unwrap();
    bench.store.delete(&key("a"), Purpose::Sweep).await.unwrap();
    assert!(bench.blob.find(&key("a")).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_listing_goes_through_all_pages_and_tries_again_where_it_failed() {
    let bench = bench([]);
    for name in ["c", "a", "b"] {
        bench
            .store
            .put(&key(name), &Payload::from(Bytes::from_static(b"x")), bench.options(30))
            .await
            .unwrap();
    }
    bench.blob.steps.lock().push_back(Step::Fail(busy()));
    let listed: Vec<String> = bench
        .store
        .list(&Prefix::root(), Purpose::Sweep)
        .map(|object| object.unwrap().key.to_string())
        .collect()
        .await;
    assert_eq!(listed, ["a", "b", "c"]);
}

mod hedging;
