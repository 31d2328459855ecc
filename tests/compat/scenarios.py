"""The scenarios, each the same for every client: what is done, and what must come of it."""

import collections
import datetime
import random
import time

from brokers import Killer, by_tool, codec
from groups import cooperative, eager, static
from java import connect, startup, streams, verifiable
from stage import compare, demand, patiently, plain, said, values

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def codecs(stage):
    """Each codec there and back, stored as the codec that was asked for, and readable by others."""
    for compression in CODECS:
        topic = stage.topic()
        sent = [plain(f"{compression} {number} " + "again and " * 30) for number in range(200)]
        with stage.disturb():
            offsets = stage.produce(topic, sent, compression)
            demand(sorted(offsets) == list(range(200)), f"{compression}: offsets {sorted(offsets)[:5]}…")
            got = stage.read(topic, 200)
        by_offset = sorted(zip(offsets, sent), key=lambda pair: pair[0])
        compare([record for _, record in by_offset], got, range(200), ("value", "key", "headers"))
        stored = {codec(batch) for _, batch in stage.raw(topic, 200)}
        demand(stored == {compression}, f"asked for {compression}, sent {', '.join(sorted(stored))}")
        others = [line["value"] for line in by_tool(stage.cluster, topic)]
        demand(others == [bytes.fromhex(record["value"]).decode() for _, record in by_offset],
               f"{compression}: `streamhouse consume` reads something else")


def odd_records(client):
    every_byte = bytes(range(256)).hex()
    parts = {
        "plain": {"key": b"key".hex(), "value": b"value".hex(), "headers": []},
        "key-null": {"key": None, "value": b"no key".hex(), "headers": []},
        "key-empty": {"key": "", "value": b"empty key".hex(), "headers": []},
        "value-null": {"key": b"gone".hex(), "value": None, "headers": []},
        "value-empty": {"key": b"nothing".hex(), "value": "", "headers": []},
        "both-null": {"key": None, "value": None, "headers": []},
        "bytes": {"key": every_byte, "value": every_byte[::-1][1:-1] * 40, "headers": []},
        "header": {"key": b"h".hex(), "value": b"v".hex(), "headers": [["one", b"1".hex()]]},
        "header-twice": {"key": None, "value": b"v".hex(),
                         "headers": [["twice", b"1".hex()], ["twice", b"2".hex()], ["twice", b"1".hex()]]},
        "header-null": {"key": None, "value": b"v".hex(), "headers": [["null", None]]},
        "header-empty": {"key": None, "value": b"v".hex(), "headers": [["empty", ""]]},
        "header-bytes": {"key": None, "value": b"v".hex(), "headers": [["bytes", every_byte]]},
        "header-text": {"key": None, "value": b"v".hex(), "headers": [["größe", "日本".encode().hex()]]},
    }
    records = []
    for number, (name, record) in enumerate(parts.items()):
        if name in client.cannot_share:
            continue
        # Not in the order of time, and with milliseconds.
        stamp = 1_600_000_000_123 + (number * 7919 % 13) * 86_400_001
        known = {} if "timestamp" in client.cannot_share else {"timestamp": stamp}
        records.append({"partition": 0, **record, **known})
    return records


def odd_bytes(stage):
    """Odd keys, values, headers and times come back as they went in, byte for byte, and so after a restart or on
    another node."""
    topic, sent = stage.topic(), odd_records(stage.client)
    with stage.disturb():
        offsets = []
        for compression in ("none", "gzip"):
            offsets += stage.produce(topic, sent, compression)
        compare(sent * 2, stage.read(topic, len(offsets)), offsets)
    before = stage.raw(topic, len(offsets))
    for at in range(len(stage.cluster.nodes)):
        stage.cluster.kill(at, down=0.5 if len(stage.cluster.nodes) > 1 else 0)
        compare(sent * 2, stage.read(topic, len(offsets)), offsets)
        demand(stage.raw(topic, len(offsets)) == before, f"the stored bytes differ after node {at + 1} was killed")


def seek(stage):
    """The first record at or after a time, also inside compressed batches and where times go back and forth."""
    topic = stage.topic()
    base = 1_700_000_000_000
    stamps = [base + 1000 * number for number in range(20)]
    stamps[7], stamps[8] = stamps[8], stamps[7]
    sent = [plain(str(number), timestamp=stamp) for number, stamp in enumerate(stamps)]
    with stage.disturb():
        if "timestamp" in stage.client.cannot_share:
            stage.notes.append("records written by `streamhouse produce`, which keeps the time of sending")
            stamps = native_times(stage, topic)
        else:
            for share, compression in ((sent[:7], "gzip"), (sent[7:12], "none"), (sent[12:], "zstd")):
                stage.produce(topic, share, compression)
        times = [stamps[0] - 5000, stamps[0], stamps[3], stamps[3] + 1, stamps[7], stamps[19], stamps[19] + 1]
        wanted = [next((at for at, stamp in enumerate(stamps) if stamp >= time_), -1) for time_ in times]
        got = [line["offset"] for line in stage.run("seek", topic=topic, partition=0, times=times)]
    demand(got == wanted, f"times {[t - base for t in times]} give {got} instead of {wanted}")


def native_times(stage, topic):
    for number in range(20):
        stage.cluster.tool("produce", topic, input=f"{number}\n")
        time.sleep(0.01)
    times = [line["timestamp"].replace("Z", "+00:00") for line in by_tool(stage.cluster, topic)]
    return [round(datetime.datetime.fromisoformat(time_).timestamp() * 1000) for time_ in times]


def idempotent(stage):
    """Idempotent producers while answers are lost and nodes are killed: each record is there once, where its
    producer was told it is, and in order."""
    topic, partitions = stage.topic(3), 3
    kills = {"one": 5, "three": 3, "kills": stage.kills}[stage.setup]
    lost = stage.cluster.lost_answers()
    stage.cluster.lose_answers(0.05)
    try:
        stream = stage.start("stream", topic=topic, partitions=partitions, per_second=150)
        stream.wait_for("the first acknowledgement", lambda lines: len(lines) > 20, 60)
        with Killer(stage.cluster, kills) as killer:
            killer.thread.join(60 * kills)
        time.sleep(1)
    finally:
        stage.cluster.lose_answers(0)
    lines = stream.finish(300)
    failed = [line for line in lines if "failed" in line]
    demand(not failed, f"{len(failed)} of {len(lines)} failed, the first with {failed[:1]}")
    answered = collections.Counter(line["number"] for line in lines if "offset" in line)
    twice = sorted(number for number, times in answered.items() if times > 1)
    demand(not twice, f"the client sent {len(twice)} of {len(lines)} records anew though they were answered: {twice[:6]}")
    told = {line["number"]: (line["partition"], line["offset"]) for line in lines if "offset" in line}
    demand(sorted(told) == list(range(len(told))), "not every record was answered once")
    found = stored_numbers(stage, topic, partitions)
    stage.counts = {
        "records": len(told), "kills": killer.count, "answers lost": stage.cluster.lost_answers() - lost}
    judge(told, found, partitions)


def judge(told, found, partitions):
    total = sum(len(numbers) for numbers in found.values())
    demand(total == len(told), f"{total} records are stored of {len(told)} that were acknowledged")
    for partition in range(partitions):
        numbers = found[partition]
        demand(numbers == sorted(set(numbers)), f"partition {partition}: out of order or twice")
        for offset, number in enumerate(numbers):
            # A client without offsets in its acknowledgements says -1.
            place = told.get(number)
            demand(place is not None and place[1] in (-1, offset),
                   f"record {number} lies at {partition}/{offset}, its producer was told {place}")


def stored_numbers(stage, topic, partitions):
    found = {partition: [] for partition in range(partitions)}
    for line in by_tool(stage.cluster, topic):
        found[line["partition"]].append(int(line["value"]))
    return found


def recreate(stage):
    """A topic is deleted and made again under a consumer that follows it: it gets what the new one holds."""
    topic = stage.topic()
    with stage.disturb():
        stage.produce(topic, [plain(f"old {number}") for number in range(20)])
        follow = stage.start("follow", topic=topic, partition=0)
        follow.wait_for("the records of the first topic", lambda lines: values(lines, "old") == 20, 60)
        patiently(lambda: stage.cluster.tool("topic", "delete", topic, "--yes"))
        time.sleep(1)
        patiently(lambda: stage.cluster.tool("topic", "create", topic))
        stage.produce(topic, [plain(f"new {number}") for number in range(10)])
        try:
            follow.wait_for("the records of the second topic", lambda lines: values(lines, "new") >= 10, 60)
        finally:
            lines = follow.finish(expect=False)
    new = [line["offset"] for line in lines if said(line).startswith("new")]
    demand(new == list(range(10)), f"of the second topic came {new}")


def step(answers, at, what):
    answer = answers[at]
    demand("refused" not in answer, f"{what}: {answer.get('refused')}")
    return answer


def configs(stage):
    """Settings given when a topic is made, changed and taken back are told as they are."""
    name = f"compat-configs-{random.randrange(1 << 30):x}"
    first = {"max.message.bytes": "200000", "message.timestamp.type": "LogAppendTime"}
    steps = [
        {"do": "create", "topic": name, "partitions": 2, "configs": first},
        {"do": "configs", "topic": name},
        {"do": "alter", "topic": name, "configs": {"max.message.bytes": "300000"},
         "removed": ["message.timestamp.type"]},
        {"do": "configs", "topic": name},
        {"do": "create", "topic": name + "-no", "partitions": 1, "configs": {"no.such.setting": "1"}},
        {"do": "delete", "topic": name},
    ]
    answers = stage.run("admin", steps=steps)
    cannot = [answer["did"] for answer in answers if "cannot" in answer]
    step(answers, 0, "create with settings")
    told = step(answers, 1, "describe settings")["configs"]
    demand(first.items() <= told.items(), f"told {shown(told, first)} instead of {first}")
    demand("refused" in answers[4], "a setting that does not exist was accepted")
    if "alter" in cannot:
        stage.notes.append("cannot alter")
    else:
        step(answers, 2, "alter settings")
        told = step(answers, 3, "describe settings again")["configs"]
        wanted = {"max.message.bytes": "300000", "message.timestamp.type": "CreateTime"}
        demand(wanted.items() <= told.items(), f"after the change: {shown(told, wanted)} instead of {wanted}")
    step(answers, 5, "delete")


def shown(told, wanted):
    return {name: told.get(name) for name in wanted}


def admin(stage):
    """Topics are made, described, grown, trimmed and deleted; the cluster is described."""
    name = f"compat-admin-{random.randrange(1 << 30):x}"
    made = stage.topic()
    stage.produce(made, [plain(str(number)) for number in range(30)])
    steps = [
        {"do": "create", "topic": name, "partitions": 3, "configs": {}},
        {"do": "describe", "topic": name},
        {"do": "create", "topic": name, "partitions": 3, "configs": {}},
        {"do": "partitions", "topic": name, "total": 5},
        {"do": "describe", "topic": name},
        {"do": "trim", "topic": made, "partition": 0, "before": 12},
        {"do": "ends", "topic": made, "partition": 0},
        {"do": "cluster"},
        {"do": "delete", "topic": name},
        {"do": "describe", "topic": name},
    ]
    answers = stage.run("admin", steps=steps)
    cannot = {answer["did"] for answer in answers if "cannot" in answer}
    if cannot:
        stage.notes.append("cannot: " + ", ".join(sorted(cannot)))

    def check(at, what, wanted):
        if steps[at]["do"] in cannot:
            return
        answer = step(answers, at, what)
        got = {key: answer.get(key) for key in wanted}
        demand(got == wanted, f"{what}: {got} instead of {wanted}")

    check(0, "create", {})
    check(1, "describe", {"partitions": 3})
    demand("refused" in answers[2], "a topic was made twice")
    check(3, "more partitions", {})
    check(4, "describe the grown topic", {"partitions": 3 if "partitions" in cannot else 5})
    check(5, "delete records", {"low": 12})
    check(6, "the ends of a trimmed partition", {"first": 0 if "trim" in cannot else 12, "end": 30})
    check(7, "describe the cluster", {"nodes": len(stage.cluster.nodes), "controller": True})
    check(8, "delete", {})
    after = answers[9]
    demand("refused" in after or after["partitions"] == 0, f"the deleted topic is described: {after}")


SCENARIOS = {
    "codecs": codecs, "bytes": odd_bytes, "seek": seek, "idempotent": idempotent, "recreate": recreate,
    "configs": configs, "admin": admin, "eager": eager, "cooperative": cooperative, "static": static,
}
# Programs on the Java client.
PROGRAMS = {"verifiable": verifiable, "startup": startup, "streams": streams, "connect": connect}
# What is tried while nodes are killed. The others would test how a client repeats what cannot be repeated.
UNDER_KILLS = {"codecs", "bytes", "seek", "idempotent", "recreate", "eager", "cooperative", "static", "verifiable"}
