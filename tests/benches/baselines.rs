//! What the real node does next to what the machine does: each figure beside a baseline that takes turns with it, so
//! that the ratio survives a noisy machine. `cargo bench -p streamhouse-tests --bench baselines [-- PART…]` with the
//! parts `start`, `lone`, `bulk`; all without a name. It fails only when data is wrong.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use streamhouse_client::{Mode, NewTopic, Offset, Position, Producer, Record, StreamHouse, Topic};
use streamhouse_tests::node::{Node, binary};
use tempfile::TempDir;

const RECORD_BYTES: usize = 1 << 10;
/// Rounds of the lone append.
const LONE_ROUNDS: usize = 2_000;
/// One round in bulk.
const BULK_MIB: u32 = 256;
const BULK_RECORDS: u64 = (BULK_MIB as u64) << 10;
const BULK_ROUNDS: usize = 4;
/// Unary appends of one round in bulk.
const UNARY_RECORDS: u64 = 300;
const READ_ROUNDS: usize = 7;
const STARTS: usize = 5;
/// A sequential write, to a file or a socket: 1 MiB.
const WRITE_BYTES: usize = 1 << 20;
/// What the system counts CPU time in (`USER_HZ`, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    println!("{}", binary().display());
    let outcome = runtime.block_on(async {
        if wanted("start") {
            starts().await?;
        }
        if wanted("lone") {
            lone().await?;
        }
        if wanted("bulk") {
            bulk().await?;
        }
        anyhow::Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Where the disk is, not where memory is: the target folder of the build.
fn disk() -> anyhow::Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
fn now() -> Instant {
    Instant::now()
}

/// Sorted measurements of one kind.
struct Series(Vec<f64>);

impl Series {
    fn of(times: impl IntoIterator<Item = Duration>, per_second: f64) -> Self {
        let mut values: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * per_second).collect();
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// Units per second, from times that each took `units`.
    fn rates(times: &[Duration], units: f64) -> Self {
        let mut values: Vec<f64> = times.iter().map(|time| units / time.as_secs_f64()).collect();
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    fn at(&self, percent: usize) -> f64 {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    fn median(&self) -> f64 {
        self.at(50)
    }

    fn most(&self) -> f64 {
        self.at(100)
    }
}

/// A table with two figures and their ratios to those of its first row.
struct Table {
    unit: &'static str,
    base: Option<(f64, f64)>,
}

impl Table {
    fn begin(title: &str, unit: &'static str, columns: [&str; 2]) -> Self {
        let [first, second] = columns;
        println!("\n{title}");
        println!("{:44} {first:>12} {second:>12} {:>9} {:>9}", "", "ratio", "ratio");
        Self { unit, base: None }
    }

    fn row(&mut self, what: &str, first: f64, second: f64) {
        let base = *self.base.get_or_insert((first, second));
        let (a, b) = (first / base.0, second / base.1);
        println!("{what:44} {first:12.3} {second:12.3} {a:9.3} {b:9.3}  {}", self.unit);
    }
}

/// User and system seconds that a process has had, or a thread: `who` is `PID`, `self` or `thread-self`.
fn cpu_seconds(who: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{who}/stat"))?;
    // The name in brackets may hold anything; behind it, the 12th and 13th field are the times.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / TICKS_PER_SECOND)
}

/// A running node, a topic of one partition, and the folder that both lie in.
struct Bench {
    node: Node,
    house: StreamHouse,
    folder: TempDir,
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let folder = disk()?;
        let mut node = Node::new(&folder.path().join("data"));
        node.start().await?;
        let house = StreamHouse::connect(node.grpc()).await?;
        Ok(Self { node, house, folder })
    }

    async fn topic(&self, name: &str) -> anyhow::Result<Topic> {
        self.house.admin().create_topic(NewTopic::new(name).partitions(1), Mode::Apply).await?;
        Ok(self.house.topic(name))
    }

    fn cpu(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.node.pid().to_string())
    }

    fn print_memory(&self, when: &str) -> anyhow::Result<()> {
        let (resident, most) = self.node.resident_bytes()?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!("resident memory {when}: {:.1} MiB, at most {:.1} MiB", mib(resident), mib(most));
        Ok(())
    }
}

/// Time to ready, against the time that the same binary takes to print its version; memory of the idle node.
async fn starts() -> anyhow::Result<()> {
    let (mut version, mut fresh, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let mut idle = Vec::new();
    for _ in 0..STARTS {
        let begun = now();
        ensure!(
            Command::new(binary()).arg("version").stdout(Stdio::null()).status()?.success(),
            "no version"
        );
        version.push(begun.elapsed());
        let folder = disk()?;
        let mut node = Node::new(&folder.path().join("data"));
        for times in [&mut fresh, &mut again] {
            let begun = now();
            node.start().await?;
            times.push(begun.elapsed());
            idle.push(node.resident_bytes()?.0 as f64 / f64::from(1 << 20));
            ensure!(node.stop()?.success(), "the node did not stop in order:\n{}", node.log());
        }
    }
    let mut table = Table::begin("from the start of the process to \"ready in\"", "ms", ["median", "most"]);
    for (what, times) in
        [("`version`, the baseline", version), ("`dev`, fresh", fresh), ("`dev`, again", again)]
    {
        let times = Series::of(times, 1e3);
        table.row(what, times.median(), times.most());
    }
    idle.sort_unstable_by(f64::total_cmp);
    println!("resident memory when ready: {:.1} to {:.1} MiB", idle[0], idle[idle.len() - 1]);
    Ok(())
}

/// What an object and a log are at the least: a synced file under its name, and a synced write into room that is there.
struct RawDisk {
    folder: TempDir,
    log: File,
}

impl RawDisk {
    fn new(near: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(near)?;
        let mut log = File::create_new(folder.path().join("log"))?;
        // Written, not only reserved: the cheapest sync there is.
        log.write_all(&vec![0; LONE_ROUNDS * RECORD_BYTES])?;
        log.sync_all()?;
        Ok(Self { folder, log })
    }

    fn put(&self, number: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let staged = self.folder.path().join("staged");
        let mut file = File::create_new(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, self.folder.path().join(number.to_string()))?;
        Ok(File::open(self.folder.path())?.sync_all()?)
    }

    fn append(&self, number: usize, bytes: &[u8]) -> anyhow::Result<()> {
        self.log.write_all_at(bytes, (number * bytes.len()) as u64)?;
        Ok(self.log.sync_data()?)
    }
}

/// One durable record on an idle node, against the synced writes that it cannot do without.
async fn lone() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let topic = bench.topic("lone").await?;
    let raw = RawDisk::new(bench.folder.path())?;
    let producer = topic.producer().build().await?;
    let bytes = Bytes::from(vec![7; RECORD_BYTES]);
    let (mut puts, mut whole, mut session, mut unary) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut next = 0;
    for round in 0..LONE_ROUNDS {
        // Nobody is always the one who comes after the same neighbour.
        for turn in 0..3 {
            let begun = now();
            let offset = match (round + turn) % 3 {
                0 => {
                    raw.put(round, &bytes)?;
                    puts.push(begun.elapsed());
                    raw.append(round, &bytes)?;
                    whole.push(begun.elapsed());
                    continue;
                }
                1 => {
                    let offset = producer.send(Record::new(bytes.clone())).await?.await?.offset;
                    session.push(begun.elapsed());
                    offset
                }
                _ => {
                    let appended = topic.append(vec![Record::new(bytes.clone())]).await?;
                    unary.push(begun.elapsed());
                    appended[0].offset
                }
            };
            ensure!(offset.get() == next, "a record at {offset}, expected {next}");
            next += 1;
        }
    }
    producer.close().await?;
    let mut table = Table::begin("one durable record of 1 KiB on an idle node", "ms", ["p50", "p99"]);
    let rows = [
        ("raw put and log append, the baseline", whole),
        ("raw put alone", puts),
        ("append in a session", session),
        ("unary append", unary),
    ];
    for (what, times) in rows {
        let times = Series::of(times, 1e3);
        table.row(what, times.at(50), times.at(99));
    }
    bench.print_memory("after single records")
}

/// Times and CPU seconds of one thing that is measured in rounds.
#[derive(Default)]
struct Rounds {
    times: Vec<Duration>,
    cpu: f64,
    client_cpu: f64,
}

/// Writing and reading as fast as it goes, against a file and a socket.
async fn bulk() -> anyhow::Result<()> {
    let mut bench = Bench::start().await?;
    let topic = bench.topic("bulk").await?;
    let written = write_in_bulk(&mut bench, &topic).await?;
    bench.print_memory("after writing in bulk")?;
    read_in_bulk(&bench, &topic, written).await?;
    bench.print_memory("after reading in bulk")?;
    check_every_record(&topic, written).await
}

async fn write_in_bulk(bench: &mut Bench, topic: &Topic) -> anyhow::Result<u64> {
    let alone = bench.topic("unary").await?;
    let (mut raw, mut session, mut unary) = (Rounds::default(), Rounds::default(), Rounds::default());
    let (mut next, mut next_alone) = (0, 0);
    for round in 0..BULK_ROUNDS {
        let path = bench.folder.path().join("raw");
        let (elapsed, cpu) = tokio::task::spawn_blocking(move || write_raw(&path)).await??;
        raw.times.push(elapsed);
        raw.cpu += cpu;

        let producer = topic.producer().build().await?;
        let (before, own) = (bench.cpu()?, cpu_seconds("self")?);
        let begun = now();
        send(&producer, next..next + BULK_RECORDS).await?;
        producer.close().await.with_context(|| format!("round {round}"))?;
        session.times.push(begun.elapsed());
        session.cpu += bench.cpu()? - before;
        session.client_cpu += cpu_seconds("self")? - own;
        next += BULK_RECORDS;

        let begun = now();
        for _ in 0..UNARY_RECORDS {
            let offset = alone.append(vec![Record::new(vec![7; RECORD_BYTES])]).await?[0].offset;
            ensure!(offset.get() == next_alone, "a record at {offset}, expected {next_alone}");
            next_alone += 1;
        }
        unary.times.push(begun.elapsed());
    }
    let mut table = Table::begin("durable records of 1 KiB, one partition", "records/s", ["median", "most"]);
    for (what, rounds, records) in [
        ("raw write and fsync, the baseline", &raw, BULK_RECORDS),
        ("session appends", &session, BULK_RECORDS),
        ("unary appends, one after the other", &unary, UNARY_RECORDS),
    ] {
        let rates = Series::rates(&rounds.times, records as f64);
        table.row(what, rates.median(), rates.most());
    }
    let rate = |rounds: &Rounds, records: u64| Series::rates(&rounds.times, records as f64).median();
    println!(
        "a session is {:.0} times as fast as unary appends",
        rate(&session, BULK_RECORDS) / rate(&unary, UNARY_RECORDS)
    );
    let gib = f64::from(BULK_MIB) / 1024.0 * BULK_ROUNDS as f64;
    print_cpu("CPU seconds per GiB written", gib, &raw, &session);
    Ok(next)
}

fn print_cpu(title: &str, gib: f64, raw: &Rounds, ours: &Rounds) {
    println!("\n{title}");
    for (what, cpu) in [("raw, the baseline", raw.cpu), ("broker", ours.cpu), ("client", ours.client_cpu)] {
        println!("{what:44} {:12.3}", cpu / gib);
    }
}

/// The bytes of one round into a new file, synced; with the CPU seconds of this thread.
fn write_raw(path: &Path) -> anyhow::Result<(Duration, f64)> {
    let piece = vec![7; WRITE_BYTES];
    let (before, begun) = (cpu_seconds("thread-self")?, now());
    let mut file = File::create_new(path)?;
    for _ in 0..BULK_MIB {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let measured = (begun.elapsed(), cpu_seconds("thread-self")? - before);
    fs::remove_file(path)?;
    Ok(measured)
}

/// Sends records that begin with their number.
async fn send(producer: &Producer, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    const SLAB_RECORDS: usize = 256;
    let mut slab = BytesMut::new();
    for number in numbers {
        if slab.is_empty() {
            slab = BytesMut::zeroed(SLAB_RECORDS * RECORD_BYTES);
        }
        let mut value = slab.split_to(RECORD_BYTES);
        value[..8].copy_from_slice(&number.to_be_bytes());
        drop(producer.send(Record::new(value.freeze())).await?);
    }
    Ok(())
}

async fn read_in_bulk(bench: &Bench, topic: &Topic, written: u64) -> anyhow::Result<()> {
    let (mut raw, mut read) = (Rounds::default(), Rounds::default());
    let mut bytes = usize::try_from(written)? * RECORD_BYTES;
    for _ in 0..READ_ROUNDS {
        let (elapsed, cpu) = tokio::task::spawn_blocking(move || stream_raw(bytes)).await??;
        raw.times.push(elapsed);
        raw.cpu += cpu;

        let (before, own) = (bench.cpu()?, cpu_seconds("self")?);
        let begun = now();
        let topic = topic.clone();
        // On a worker of the runtime, where programs read.
        bytes = tokio::spawn(async move { read_batches(&topic, written).await }).await??;
        read.times.push(begun.elapsed());
        read.cpu += bench.cpu()? - before;
        read.client_cpu += cpu_seconds("self")? - own;
    }
    let mut table = Table::begin("reading from the start", "MiB/s", ["median", "most"]);
    let mib = bytes as f64 / f64::from(1 << 20);
    for (what, rounds) in
        [("raw loopback TCP stream, the baseline", &raw), ("batches by the Rust client", &read)]
    {
        let rates = Series::rates(&rounds.times, mib);
        table.row(what, rates.median(), rates.most());
    }
    let gib = (bytes * READ_ROUNDS) as f64 / f64::from(1 << 30);
    print_cpu("CPU seconds per GiB read (raw: the sender)", gib, &raw, &read);
    Ok(())
}

/// Reads all batches; returns their bytes.
async fn read_batches(topic: &Topic, expected: u64) -> anyhow::Result<usize> {
    let mut reader = topic.read(Position::Start).open().await?;
    let (mut next, mut bytes) = (Offset::ZERO, 0);
    while let Some(batch) = reader.next_batch().await {
        let batch = batch?;
        ensure!(batch.offsets().start == next, "a batch at {}, expected {next}", batch.offsets().start);
        next = batch.offsets().end;
        bytes += batch.batch().bytes().len();
    }
    ensure!(next.get() == expected, "{next} records read, {expected} written");
    Ok(bytes)
}

/// So many bytes from one thread to another over the loopback; with the CPU seconds of the sender.
fn stream_raw(bytes: usize) -> anyhow::Result<(Duration, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let before = cpu_seconds("thread-self")?;
        let piece = vec![7; WRITE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(WRITE_BYTES);
            stream.write_all(&piece[..now])?;
            left -= now;
        }
        Ok::<_, anyhow::Error>(cpu_seconds("thread-self")? - before)
    });
    let mut stream = TcpStream::connect(address)?;
    let mut buffer = vec![0; WRITE_BYTES];
    let begun = now();
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => received += read,
        }
    }
    let elapsed = begun.elapsed();
    ensure!(received == bytes, "{received} bytes came of {bytes}");
    Ok((elapsed, sender.join().expect("the sender does not panic")?))
}

/// Not timed: every record is there, once, in order.
async fn check_every_record(topic: &Topic, expected: u64) -> anyhow::Result<()> {
    let mut records = topic.read(Position::Start).open().await?.records();
    let mut next = 0_u64;
    while let Some(record) = records.next().await {
        let record = record?;
        let value = record.value.context("a record without a value")?;
        ensure!(value.len() == RECORD_BYTES, "a record of {} bytes", value.len());
        ensure!(value[..8] == next.to_be_bytes() && record.offset.get() == next, "wrong record at {next}");
        next += 1;
    }
    ensure!(next == expected, "{next} records read, {expected} written");
    println!("\nall {next} records read back in order");
    Ok(())
}
