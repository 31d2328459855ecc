"""What the scenarios stand on: one client in front of one cluster, and how records are compared."""

import itertools
import random
import time

from brokers import Killer, Raw
from clients import Failure

KILLS_LEAST = 5


def demand(holds, message):
    if not holds:
        raise Failure(message)


class Stage:
    """One client in front of one cluster; topics have names of their own in every run."""

    numbers = itertools.count(1)

    def __init__(self, cluster, client, setup, kills):
        self.cluster, self.client, self.setup, self.kills = cluster, client, setup, kills
        self.bootstrap = cluster.bootstrap()
        self.notes, self.counts, self.killers = [], {}, []

    def topic(self, partitions=1, **configs):
        name = f"compat-{next(self.numbers)}-{random.randrange(1 << 24):06x}"
        sets = [f"--set={key}={value}" for key, value in configs.items()]
        self.cluster.tool("topic", "create", name, "--partitions", str(partitions), *sets)
        return name

    def run(self, operation, seconds=120, **request):
        return self.client.run(operation, self.bootstrap, request, seconds)

    def start(self, operation, **request):
        return self.client.start(operation, self.bootstrap, request)

    def produce(self, topic, records, compression="none"):
        # While nodes are killed, any other producer may store a record twice.
        idempotent = self.setup == "kills"
        answers = self.run("produce", topic=topic, records=records, compression=compression, idempotent=idempotent)
        demand(len(answers) == len(records), f"{len(answers)} answers to {len(records)} records")
        return [answer["offset"] for answer in answers]

    def read(self, topic, count, partition=0, start=0):
        lines = self.run("read", topic=topic, partition=partition, count=count, **{"from": start})
        demand(len(lines) == count, f"{len(lines)} records were read of {count}")
        return lines

    def raw(self, topic, end, partition=0):
        """The batches as the first node that has them gives them."""
        trouble = None
        for port in self.cluster.ports():
            try:
                raw = Raw(port)
                try:
                    return raw.batches(topic, partition, 0, end)
                finally:
                    raw.close()
            except OSError as error:
                trouble = error
        raise Failure(f"no node gives {topic}/{partition}: {trouble}")

    def committed(self, group, topic, partitions):
        """The offsets that a group has committed, asked by the client or, for one that cannot, by hand."""
        if self.client.name != "kcat":
            answers = self.run("committed", topic=topic, group=group, partitions=partitions)
            return {partition: answer["offset"] for partition, answer in enumerate(answers)}
        for port in self.cluster.ports():
            raw = Raw(port)
            try:
                found = raw.committed(group, topic, partitions)
            finally:
                raw.close()
            if found:
                return found
        raise Failure(f"no node coordinates {group}")

    def disturb(self):
        """Where nodes are killed while the scenario runs."""
        if self.setup != "kills":
            return Quiet()
        self.killers.append(Killer(self.cluster))
        return self.killers[-1]

    def disturbed(self):
        """Whether enough nodes were killed while the scenario ran for it to say something."""
        return not self.killers or sum(killer.count for killer in self.killers) >= KILLS_LEAST


class Quiet:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def plain(value, **more):
    return {"partition": 0, "key": None, "value": value.encode().hex(), "headers": [], **more}


def same(sent, got, offset, parts=("key", "value", "headers", "timestamp")):
    """What differs between a record as it was sent and as it was read."""
    if got["offset"] != offset:
        return f"offset {got['offset']} instead of {offset}"
    for part in parts:
        wanted = sent.get(part)
        if part == "timestamp" and wanted is None:
            continue
        if got[part] != wanted:
            return f"{part} of the record at {offset}: {str(got[part])[:120]} instead of {str(wanted)[:120]}"
    return None


def compare(sent, got, offsets, parts=("key", "value", "headers", "timestamp")):
    for record, line, offset in zip(sent, got, offsets):
        difference = same(record, line, offset, parts)
        demand(difference is None, difference)


def patiently(call):
    """The tool's own deadline may pass while nodes are killed; the second attempt may find it done."""
    for attempt in range(3):
        try:
            return call()
        except Exception:  # pylint: disable=broad-except
            if attempt == 2:
                raise
            time.sleep(1)


def said(line):
    return bytes.fromhex(line.get("value") or "").decode(errors="replace")


def values(lines, start):
    return sum(said(line).startswith(start) for line in lines if "value" in line)
