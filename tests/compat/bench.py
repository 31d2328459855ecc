#!/usr/bin/env python3
"""Measures StreamHouse next to Apache Kafka and Nisshi, with the same clients and the same load, in one run.

    tests/compat/bench.py                               everything, a quarter of an hour
    tests/compat/bench.py --peers streamhouse,kafka     only these brokers
    tests/compat/bench.py --only rd-1k-1p,paced         only these loads
    tests/compat/bench.py --list                        what there is

All brokers run side by side on loopback, one process each, with the settings they come with: StreamHouse on a local
folder and on an S3 server whose writes take 30 ms (one in a hundred 100 ms), Kafka (KRaft) as it comes, which
acknowledges what is in the page cache, and made to flush every message, Nisshi in memory and on SQLite. Every load goes
to each broker in turn, --rounds times, so that what else the machine does falls on all of them alike: compare the
ratios, and the processor time of the broker, which load of others hardly changes; the rates belong to the machine. A
figure is the median of the rounds. Producers are librdkafka (crate rdkafka) and the tools that come with Kafka; all
wait for acks=all.

Needs Rust, a C compiler with make, a JDK 17 with Maven; jars and Nisshi come from Maven Central and crates.io, Nisshi
takes long to build (--nisshi names a binary, --faults one of the S3 server). Everything is kept below target/compat: the
table in bench.md, the figures in bench.json. Exits 1 when a load failed on StreamHouse.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import clients
import peers

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PACE = 10 * MIB
# What a first round of Kafka's tools sends; later ones know how much fits into their time.
PILOT = 5_000
# Round trips of Kafka's EndToEndLatency in a round.
TRIPS = 50

BULKY = {"linger.ms": "5", "batch.size": "1048576"}


class Bench:
    """The brokers under way, the clients, and what was measured so far."""

    def __init__(self, options, brokers, librdkafka, java):
        self.options, self.brokers, self.librdkafka, self.java = options, brokers, librdkafka, java
        self.seconds = options.seconds / options.rounds
        self.most = options.mib * MIB
        self.figures, self.troubles, self.number = {}, {}, 0
        self.pace = {}

    def topic(self, broker, partitions):
        self.number += 1
        topic = f"bench-{os.getpid()}-{self.number}"
        self.admin(broker, {"do": "create", "topic": topic, "partitions": partitions})
        return topic

    def admin(self, broker, step):
        [said] = self.librdkafka.run("admin", broker.bootstrap, {"steps": [step]}, 60)
        if "refused" in said:
            raise clients.Failure(f"{step['do']}: {said['refused']}")

    def ask(self, broker, operation, **request):
        [said] = self.librdkafka.run(operation, broker.bootstrap, request, 240)
        return said

    def tool(self, main, *arguments):
        """What a tool of Kafka's prints."""
        command = ["java", "-Xmx512M", *peers.Kafka.JAVA[2:], "-cp", self.java, f"org.apache.kafka.tools.{main}", *arguments]
        with open(clients.WORK / "bench.log", "ab") as log:
            done = subprocess.run(
                [str(part) for part in command], stdout=subprocess.PIPE, stderr=log, text=True, timeout=240, check=False)
        if done.returncode:
            raise clients.Failure(f"{main}: exit {done.returncode}: {done.stdout[-300:]}")
        return done.stdout

    def note(self, cell, broker, figure, value):
        if value is not None:
            self.figures.setdefault((cell, figure), {}).setdefault(broker.name, []).append(value)

    def run(self, cell, broker, measured):
        """One round of one load on one broker, on a topic of its own."""
        partitions, load = CELLS[cell]
        note = self.note if measured else (lambda *_: None)
        topic = self.topic(broker, partitions)
        try:
            load(self, broker, topic, partitions, lambda figure, value: note(cell, broker, figure, value))
        finally:
            if broker.forgets:
                broker.stop()
                broker.start()
            else:
                self.admin(broker, {"do": "delete", "topic": topic})


def costs(broker, note, what, call):
    """Calls, which returns the bytes; notes the broker's processor time for each GiB."""
    before = broker.cpu()
    done, moved = call()
    note(f"broker CPU, s/GiB {what}", (broker.cpu() - before) * GIB / moved)
    return done


def flood(size, idempotent, reads=False):
    """librdkafka as fast as it goes; where asked, another one then reads all of it."""
    def load(bench, broker, topic, partitions, note):
        def write():
            done = bench.ask(broker, "flood", topic=topic, partitions=partitions, bytes=size, idempotent=idempotent,
                             seconds=bench.seconds, count=bench.most)
            return done, done["bytes"]

        def read():
            done = bench.ask(broker, "drain", topic=topic, partitions=partitions, count=wrote["records"])
            return done, done["bytes"]

        wrote = costs(broker, note, "produced", write)
        note("produced, MiB/s", wrote["bytes"] / wrote["seconds"] / MIB)
        if reads:
            got = costs(broker, note, "consumed", read)
            note("consumed, MiB/s", got["bytes"] / got["seconds"] / MIB)
    return load


def paced(idempotent):
    """librdkafka at 10 MiB/s of 1 KiB records, while a consumer follows."""
    def load(bench, broker, topic, partitions, note):
        done = bench.ask(broker, "paced", topic=topic, partitions=partitions, bytes=KIB, idempotent=idempotent,
                         per_second=PACE / KIB, seconds=bench.seconds)
        for name, figure in [("ack_p50_ms", "ack p50, ms"), ("ack_p99_ms", "ack p99, ms"),
                             ("e2e_p50_ms", "end to end p50, ms"), ("e2e_p99_ms", "end to end p99, ms")]:
            note(figure, done[name])
    return load


def java(settings, reads=False):
    """Kafka's ProducerPerformance with 1 KiB records; where asked, its ConsumerPerformance then reads all of it."""
    def load(bench, broker, topic, _, note):
        place = broker.name, json.dumps(settings)
        count = bench.pace.get(place, PILOT)

        def write():
            more = [f"{name}={value}" for name, value in settings.items()]
            said = bench.tool(
                "ProducerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", topic, "--num-records", count,
                "--record-size", KIB, "--throughput", -1, "--command-property", "acks=all", *more)
            [found] = re.findall(r"^(\d+) records sent, ([\d.]+) records/sec .*ms 99th", said, re.MULTILINE)
            if int(found[0]) != count:
                raise clients.Failure(f"{found[0]} of {count} records were sent")
            return float(found[1]), count * KIB

        def read():
            said = bench.tool(
                "ConsumerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", topic, "--num-records", count,
                "--hide-header", "--timeout", 30_000)
            fields = [field.strip() for field in said.strip().splitlines()[-1].split(",")]
            if int(fields[4]) < count:
                raise clients.Failure(f"{fields[4]} of {count} records came")
            # start, end, MB, MB/s, records, records/s, ms of joining, ms of fetching, MB/s of fetching
            return float(fields[8]), count * KIB

        rate = costs(broker, note, "produced", write)
        # A short round is mostly start; a longer one is faster than it.
        bench.pace[place] = int(min(max(rate * bench.seconds, PILOT), 8 * count, bench.most / KIB))
        note("produced, MiB/s", rate * KIB / MIB)
        if reads:
            note("consumed, MiB/s", costs(broker, note, "consumed", read))
    return load


def trips(bench, broker, topic, _, note):
    """Kafka's EndToEndLatency: one record at a time, there and back."""
    said = bench.tool("EndToEndLatency", broker.bootstrap, topic, TRIPS, "all", KIB)
    found = re.search(r"50th = (\d+), 99th = (\d+)", said)
    if not found:
        raise clients.Failure(f"EndToEndLatency: {said[-300:]}")
    note("end to end p50, ms", float(found[1]))
    note("end to end p99, ms", float(found[2]))


# name: partitions, load
CELLS = {
    "rd-1k-1p": (1, flood(KIB, False, reads=True)),
    "paced": (1, paced(False)),
    "paced-idem": (1, paced(True)),
    "rd-1k-1p-idem": (1, flood(KIB, True)),
    "java-1p-idem-1m": (1, java(BULKY | {"enable.idempotence": "true"}, reads=True)),
    "rd-1k-64p-idem": (64, flood(KIB, True)),
    "java-1p-stock": (1, java({})),
    "rd-100b-1p-idem": (1, flood(100, True, reads=True)),
    "java-trips": (1, trips),
    "rd-1k-64p": (64, flood(KIB, False, reads=True)),
    "rd-100b-64p": (64, flood(100, False)),
}
WHAT = {
    "rd-1k-1p": "librdkafka, 1 KiB, 1 partition",
    # librdkafka leaves one idempotent request of a partition unanswered at a time: it counts messages against the limit of
    # five. Its rate is the size of a batch, 1 MB as it comes, by the time to an answer.
    "rd-1k-1p-idem": "librdkafka idempotent, 1 KiB, 1 partition",
    "rd-1k-64p": "librdkafka, 1 KiB, 64 partitions",
    "rd-1k-64p-idem": "librdkafka idempotent, 1 KiB, 64 partitions",
    "rd-100b-1p-idem": "librdkafka idempotent, 100 B, 1 partition",
    "rd-100b-64p": "librdkafka, 100 B, 64 partitions",
    "paced": "librdkafka at 10 MiB/s, 1 KiB, 1 partition",
    "paced-idem": "librdkafka idempotent at 10 MiB/s, 1 KiB, 1 partition",
    "java-1p-idem-1m": "Java idempotent, linger.ms=5 batch.size=1048576, 1 KiB, 1 partition",
    "java-1p-stock": "Java as it comes, 1 KiB, 1 partition",
    "java-trips": "Java EndToEndLatency, 1 KiB",
}
PEERS = ["streamhouse", "streamhouse-30ms", "kafka", "kafka-flush", "nisshi-memory", "nisshi-sqlite"]
BASE = "kafka"


def brokers(options, folder, jars):
    wanted = clients_list(options.peers, PEERS)
    program = options.binary or peers.flights.binary("release")
    made = {
        "streamhouse": lambda name: peers.StreamHouse(name, folder, program),
        "streamhouse-30ms": lambda name: peers.StreamHouse(
            name, folder, program, peers.SlowStore(peers.fault_server(options.faults))),
        "kafka": lambda name: peers.Kafka(name, folder, jars),
        "kafka-flush": lambda name: peers.Kafka(name, folder, jars, **{"log.flush.interval.messages": 1}),
        "nisshi-memory": lambda name: peers.Nisshi(name, folder, peers.nisshi(options.nisshi)),
        "nisshi-sqlite": lambda name: peers.Nisshi(
            name, folder, peers.nisshi(options.nisshi), f"sqlite://{folder}/{name}/nisshi.db"),
    }
    return [made[name](name) for name in wanted]


def clients_list(given, known):
    names = list(known) if given == "all" else given.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"not known: {', '.join(unknown)}; known are {', '.join(known)}")
    return [name for name in known if name in names]


def librdkafka():
    """The program of the crate rdkafka, optimised, librdkafka too."""
    client = clients.Client("rdkafka", clients.CLIENTS["rdkafka"][1])
    environment = os.environ | {"CARGO_TARGET_DIR": str(client.folder / "target"), "CARGO_INCREMENTAL": "0"}
    clients.say(["cargo", "build", "--release", "--locked", "-q"], cwd=clients.HERE / "clients" / "rdkafka", env=environment)
    client.command = [str(client.folder / "target" / "release" / "compat-rdkafka")]
    return client


def attempt(bench, cell, broker, round_number):
    try:
        bench.run(cell, broker, round_number >= 0)
    except (clients.Failure, subprocess.TimeoutExpired, OSError) as failure:
        bench.troubles.setdefault((cell, broker.name), str(failure))
        print(f"  {cell} {broker.name}: {failure}", flush=True)


def measure(bench, chosen, deadline):
    """Every load on every broker in turn; tells which loads there was no time for."""
    left = list(chosen)
    for cell in chosen:
        # The tools need a round to find out how much fits into their time.
        first = -1 if cell.startswith("java-1p") else 0
        for number in range(first, bench.options.rounds):
            for broker in bench.brokers:
                if time.monotonic() > deadline:
                    return left
                if (cell, broker.name) not in bench.troubles:
                    attempt(bench, cell, broker, number)
        left.remove(cell)
        show(bench, cell)
    return left


def show(bench, cell):
    for (of, figure), found in bench.figures.items():
        if of == cell:
            values = ", ".join(f"{name} {number(statistics.median(values))}" for name, values in found.items())
            print(f"  {cell} {figure}: {values}", flush=True)


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def row(what, figure, found, names):
    medians = {name: statistics.median(found[name]) for name in names if name in found}
    base, cells = medians.get(BASE), []
    for name in names:
        value = medians.get(name)
        ratio = f" ({value / base:.2f})" if value is not None and base and name != BASE else ""
        cells.append("–" if value is None else number(value) + ratio)
    return f"| {what} | {figure} | " + " | ".join(cells) + " |"


def table(bench, left):
    names = [broker.name for broker in bench.brokers]
    lines = ["| load | figure | " + " | ".join(names) + " |", "|---|---" + "|---:" * len(names) + "|"]
    lines += [row(WHAT.get(cell, cell), figure, found, names) for (cell, figure), found in bench.figures.items()]
    lines += ["", f"In parentheses: the ratio to {BASE} in the same run."]
    lines += [f"- failed: {WHAT[cell]}, {name}: {said}" for (cell, name), said in bench.troubles.items()]
    lines += [f"- no time for: {WHAT[cell]}" for cell in left]
    return "\n".join(lines) + "\n"


def write(bench, left):
    text = table(bench, left)
    (clients.WORK / "bench.md").write_text(text)
    figures = [
        {"load": cell, "figure": figure, "rounds": found, "medians": {n: statistics.median(v) for n, v in found.items()}}
        for (cell, figure), found in bench.figures.items()]
    for entry in figures:
        base = entry["medians"].get(BASE)
        entry["ratios"] = {name: value / base for name, value in entry["medians"].items()} if base else {}
    troubles = [{"load": cell, "peer": name, "said": said} for (cell, name), said in bench.troubles.items()]
    (clients.WORK / "bench.json").write_text(json.dumps({
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "options": {name: value for name, value in vars(bench.options).items() if isinstance(value, (int, float))},
        "processors": os.cpu_count(), "figures": figures, "failed": troubles, "no_time_for": left}, indent=1) + "\n")
    print(text)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="all", help="loads, with commas between")
    options.add_argument("--peers", default="all", help="brokers, with commas between")
    options.add_argument("--seconds", type=float, default=8, help="for each load and broker, over all rounds")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--mib", type=int, default=512, help="most that is written in a round")
    options.add_argument("--minutes", type=float, default=15, help="loads that have not begun by then are left out")
    options.add_argument("--binary", help="StreamHouse; else STREAMHOUSE_BINARY, else it is built")
    options.add_argument("--nisshi", help="Nisshi's binary; else it is built")
    options.add_argument("--faults", help="the binary streamhouse-faults; else it is built")
    options.add_argument("--folder", help="where the brokers keep their records; else target/compat")
    options.add_argument("--list", action="store_true", help="tell the loads and brokers")
    options = options.parse_args()
    if options.list:
        print("\n".join([f"{name:16} {WHAT[name]}" for name in CELLS] + [f"brokers: {', '.join(PEERS)}"]))
        return 0

    chosen = clients_list(options.only, CELLS)
    clients.WORK.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(options.folder or clients.WORK) / f"bench-{os.getpid()}"
    jars = peers.kafka_jars()
    bench = Bench(options, brokers(options, folder, jars), librdkafka(), jars)
    # Whoever ends the run ends the brokers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = []
    try:
        for broker in bench.brokers:
            broker.start()
            started.append(broker)
        deadline = time.monotonic() + options.minutes * 60
        for broker in bench.brokers:
            attempt(bench, "rd-1k-1p", broker, -1)
        left = measure(bench, chosen, deadline)
        for broker in bench.brokers:
            bench.note("memory", broker, "most held by the broker, MiB", broker.peak() / MIB)
    finally:
        for broker in started:
            broker.stop()
        peers.remove(folder)
    write(bench, left)
    return int(any(name.startswith("streamhouse") for _, name in bench.troubles))


if __name__ == "__main__":
    sys.exit(main())
