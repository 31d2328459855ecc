"""Consumer groups: members come and go, and nodes are killed in turn, while records stream in."""

import contextlib
import random
import time

from stage import demand

PARTITIONS = 6


class Members:
    """The members of one group, and a producer."""

    def __init__(self, stage, mode):
        self.stage, self.mode = stage, mode
        self.topic = stage.topic(PARTITIONS)
        self.group = f"compat-{mode}-{random.randrange(1 << 30):x}"
        self.running, self.ended, self.killed = [], [], stage.cluster.kills
        self.stream = stage.start("stream", topic=self.topic, partitions=PARTITIONS, per_second=100)

    def kills(self):
        return self.stage.cluster.kills - self.killed

    def join(self, instance=None):
        member = self.stage.start("group", topic=self.topic, group=self.group, mode=self.mode, instance=instance)
        self.running.append(member)
        return member

    def balanced(self, what, seconds=90):
        """Waits until each member has its share and all partitions are taken."""
        deadline = time.monotonic() + seconds
        while True:
            held = [holding(member.lines) for member in self.running]
            taken = sorted(partition for share in held for partition in share)
            if taken == list(range(PARTITIONS)) and all(held):
                return
            for member in self.running:
                dead = member.process.poll()
                demand(dead is None, f"{what}: a member ended with {dead}{member.last_words()}")
            demand(time.monotonic() < deadline, f"{what}: after {seconds} s the members hold {held}")
            time.sleep(0.1)

    def flowing(self, what, seconds=60):
        """Waits until each member is given records that it had not when this began."""
        before = [(member, len(records(member.lines))) for member in self.running]
        for member, count in before:
            member.wait_for(f"{what}: records", lambda lines, count=count: len(records(lines)) > count, seconds)

    def leave(self, member):
        with self.silence():
            member.finish(60)
        self.running.remove(member)
        self.ended.append(member)

    @contextlib.contextmanager
    def silence(self):
        """No record comes meanwhile, where a client commits what it is given on its way out and drops it."""
        if not self.stage.client.leaves_in_silence:
            yield
            return
        with self.stream.held():
            count, since, deadline = -1, time.monotonic(), time.monotonic() + 30
            while time.monotonic() < min(since + 0.5, deadline):
                now = sum(len(records(member.lines)) for member in self.running)
                if now != count:
                    count, since = now, time.monotonic()
                time.sleep(0.05)
            yield

    def lose(self, member):
        member.lose()
        self.running.remove(member)
        self.ended.append(member)

    def end(self):
        """Ends the producer, lets the members catch up and leave, and judges what they had."""
        acknowledged = [line for line in self.stream.finish(300) if "number" in line]
        failed = [line for line in acknowledged if "failed" in line]
        demand(not failed, f"the producer failed: {failed[:1]}")
        wanted = {str(line["number"]) for line in acknowledged}

        def had():
            lines = [line for member in self.running + self.ended for line in records(member.lines)]
            return {str(int(bytes.fromhex(line["value"]))) for line in lines}

        deadline = time.monotonic() + 90
        while not wanted <= had() and time.monotonic() < deadline:
            time.sleep(0.2)
        missing = wanted - had()
        demand(not missing, f"{len(missing)} of {len(wanted)} records reached no member, such as {sorted(missing)[:5]}")
        for member in list(self.running):
            self.leave(member)
        everything = [line for member in self.ended for line in records(member.lines)]
        again = len(everything) - len(wanted)
        self.stage.counts = {"records": len(wanted), "kills": self.kills(), "delivered again": again}
        self.judge_commits(everything)

    def judge_commits(self, everything):
        ends = {}
        for line in everything:
            ends[line["partition"]] = max(ends.get(line["partition"], 0), line["offset"] + 1)
        told = self.stage.committed(self.group, self.topic, PARTITIONS)
        demand(told == ends, f"committed are {told}, delivered was up to {ends}")
        for member in self.ended:
            self.judge_starts(member)

    def judge_starts(self, member):
        """What a member is given after an assignment begins at or after what was committed before by anybody."""
        fresh = set()
        for line in member.lines:
            if "assigned" in line:
                fresh |= set(line["assigned"])
            elif "value" in line and line["partition"] in fresh:
                fresh.discard(line["partition"])
                at = member.started + line["at"]
                # A second's grace: the other's commit may be answered after this member was given the partition.
                earlier = [offset for other in self.ended for offset in commits(other, line["partition"], at - 1)]
                demand(line["offset"] >= max(earlier, default=0),
                       f"partition {line['partition']} began at {line['offset']}, committed was {max(earlier, default=0)}")

    def abandon(self):
        for process in [self.stream, *self.running]:
            if process.process.poll() is None:
                process.kill()


def records(lines):
    return [line for line in list(lines) if "value" in line]


def commits(member, partition, before):
    return [
        int(line["committed"][str(partition)]) for line in list(member.lines)
        if str(partition) in line.get("committed", {}) and member.started + line["at"] < before]


def holding(lines):
    held = set()
    for line in list(lines):
        held |= set(line.get("assigned", ()))
        held -= set(line.get("revoked", ()))
    return held


def events(lines):
    return [line for line in list(lines) if line.get("assigned") or line.get("revoked")]


def rolling(members):
    """Each node is killed in turn, under load; without kills one node stays and nothing happens."""
    cluster, setup = members.stage.cluster, members.stage.setup
    if setup == "three":
        return
    for round_ in range(2 if setup == "one" else 1):
        for at in range(len(cluster.nodes)):
            cluster.kill(at, down=0.5)
            members.flowing(f"after kill {round_ + 1} of node {at + 1}")


def through(stage, mode, play):
    members = Members(stage, mode)
    try:
        play(members)
        members.end()
    finally:
        members.abandon()


def eager(stage):
    """Three members share six partitions; one leaves, one dies, others come; nodes are killed in turn."""
    def play(members):
        first = members.join()
        members.balanced("one member")
        second = members.join()
        members.balanced("two members")
        members.join()
        members.balanced("three members")
        members.flowing("three members")
        rolling(members)
        members.balanced("after the kills")
        members.leave(first)
        members.balanced("one left")
        members.lose(second)
        members.join()
        members.balanced("one died, one came")
    through(stage, "eager", play)


def cooperative(stage):
    """As `eager`, and a member keeps what it has when another comes."""
    def play(members):
        first, second = members.join(), members.join()
        members.balanced("two members")
        marks = [len(member.lines) for member in (first, second)]
        members.join()
        members.balanced("three members")
        for member, mark in zip((first, second), marks):
            gone = {p for line in member.lines[mark:] for p in line.get("revoked", ())}
            demand(len(gone) <= 1, f"a member gave {sorted(gone)} away where one was enough")
        members.flowing("three members")
        rolling(members)
        members.balanced("after the kills")
        members.leave(first)
        members.balanced("one left")
    through(stage, "cooperative", play)


def static(stage):
    """A static member that dies and comes back has its partitions again, and the others do not notice; so through
    kills of nodes."""
    def play(members):
        stay = [members.join("a"), members.join("b")]
        leaving = members.join("c")
        members.balanced("three members")
        share = holding(leaving.lines)
        members.flowing("three members")
        rolling(members)
        members.balanced("after the kills")
        share = holding(leaving.lines)
        quiet = [len(events(member.lines)) for member in stay]
        members.lose(leaving)
        back = members.join("c")
        members.balanced("the lost member is back")
        members.flowing("the lost member is back")
        demand(holding(back.lines) == share, f"it had {sorted(share)} and got {sorted(holding(back.lines))}")
        told = [len(events(member.lines)) for member in stay]
        demand(told == quiet, "the other members were rebalanced")
    through(stage, "static", play)
