//! A durable put through the store against the same bytes put by hand: temporary file, write, sync, rename, sync of
//! the folder. Both in one run, turn by turn, so that the ratio survives a noisy disk.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt as _, PutPayload};
use streamhouse_env::Env;
use streamhouse_storage::object::crc32c;
use streamhouse_storage::{Key, Payload, Purpose, PutOptions, Store, StoreSettings};
use tokio::runtime::Runtime;

const SIZES: [(&str, usize, usize); 3] =
    [("64 KiB", 64 << 10, 400), ("1 MiB", 1 << 20, 400), ("8 MiB", 8 << 20, 60)];
/// As a flush hands them over.
const PIECE: usize = 64 << 10;

fn payload(bytes: usize) -> Payload {
    Payload::new(
        (0..bytes / PIECE).map(|n| Bytes::from(vec![u8::try_from(n % 251).expect("small"); PIECE])).collect(),
    )
}

fn raw_put(folder: &Path, number: usize, payload: &Payload) {
    let staged = folder.join("staged");
    let mut file = File::create_new(&staged).expect("create");
    for piece in payload.pieces() {
        file.write_all(piece).expect("write");
    }
    file.sync_all().expect("sync");
    fs::rename(&staged, folder.join(format!("{number}"))).expect("rename");
    File::open(folder).expect("open").sync_all().expect("sync");
}

fn store_put(runtime: &Runtime, env: &Env, store: &Store, number: usize, payload: &Payload) {
    let key: Key = format!("wal/{number}").parse().expect("a key");
    let deadline = env.clock.now() + Duration::from_secs(30);
    let options = PutOptions { purpose: Purpose::Produce, deadline };
    runtime.block_on(store.put(&key, payload, options)).expect("put");
}

fn library_put(runtime: &Runtime, store: &LocalFileSystem, number: usize, payload: &Payload) {
    let payload: PutPayload = payload.pieces().iter().cloned().collect();
    runtime.block_on(store.put(&format!("library/{number}").into(), payload)).expect("put");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
    let index = ((times.len() - 1) as f64 * share).round() as usize;
    times[index].as_secs_f64() * 1_000.0
}

/// Where the disk is, not where memory is: the target folder of the build.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temp dir")
}

fn ratios(_: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let env = Env::system();
    let (dir, raw) = (disk(), disk());
    let store =
        runtime.block_on(streamhouse_storage::open(&StoreSettings::local(dir.path()), &env)).expect("open");
    let library = LocalFileSystem::new_with_prefix(dir.path()).expect("open").with_fsync(true);
    println!("size     |  raw p50    p99 | store p50    p99 | library p50    p99 | store/raw p50  p99");
    let mut number = 0;
    for (name, bytes, rounds) in SIZES {
        let payload = payload(bytes);
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..rounds {
            number += 1;
            // Nobody is always the one who comes after the same neighbour.
            for turn in 0..3 {
                let who = (number + turn) % 3;
                times[who].push(match who {
                    0 => timed(|| raw_put(raw.path(), number, &payload)),
                    1 => timed(|| store_put(&runtime, &env, &store, number, &payload)),
                    _ => timed(|| library_put(&runtime, &library, number, &payload)),
                });
            }
        }
        let [(a, b), (c, d), (e, f)] =
            times.map(|mut times| (percentile(&mut times, 0.5), percentile(&mut times, 0.99)));
        println!(
            "{name:8} | {a:8.2} {b:6.2} | {c:8.2}  {d:6.2} | {e:10.2} {f:6.2} | {:12.2} {:5.2}  (ms)",
            c / a,
            d / b
        );
    }
}

fn building(criterion: &mut Criterion) {
    let payload = payload(8 << 20);
    let mut group = criterion.benchmark_group("8 MiB");
    group.throughput(Throughput::Bytes(payload.len()));
    group.bench_function("crc32c", |bench| {
        bench.iter_batched(
            || payload.clone(),
            |payload| payload.pieces().iter().map(|piece| crc32c(black_box(piece))).fold(0, |a, b| a ^ b),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, ratios, building);
criterion_main!(benches);
