"""The brokers that the clients are tried against, and what is done to them."""

import json
import os
import pathlib
import random
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "real"))
import flights  # noqa: E402  (the brokers and the S3 server are the ones that the flights go through)

PRODUCE, FETCH, OFFSET_FETCH = 0, 1, 9


class Proxy:
    """Stands between clients and one node, on an address of its own. On demand it swallows answers to Produce and
    ends the connection: the records are stored, and the producer is not told."""

    def __init__(self, target):
        self.target, self.share, self.lost = target, 0.0, 0
        self.random = random.Random(target)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            node = socket.create_connection(("127.0.0.1", self.target), 5)
            node.settimeout(None)
        except OSError:
            # As if nobody listened: some clients take a clean end of a fresh connection for a fault of their settings.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        produces = set()
        threading.Thread(target=self.pump, args=(client, node, produces, True), daemon=True).start()
        self.pump(node, client, produces, False)

    def pump(self, source, sink, produces, asks):
        try:
            while True:
                head = exactly(source, 4)
                frame = exactly(source, struct.unpack(">i", head)[0])
                if asks:
                    key, _, correlation = struct.unpack(">hhi", frame[:8])
                    if key == PRODUCE:
                        produces.add(correlation)
                else:
                    correlation = struct.unpack(">i", frame[:4])[0]
                    if correlation in produces:
                        produces.discard(correlation)
                        if self.random.random() < self.share:
                            self.lost += 1
                            break
                sink.sendall(head + frame)
        except (OSError, EOFError):
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


def exactly(source, count):
    parts = []
    while count > 0:
        part = source.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class Cluster:
    """One node or three, each behind a proxy."""

    def __init__(self, program, folder, nodes, store):
        self.program, self.folder = program, pathlib.Path(folder)
        self.seaweed, environment = None, dict(os.environ)
        arguments = [f"--store=file://{self.folder}/store"]
        if store == "s3":
            self.seaweed = flights.Seaweed(folder)
            self.seaweed.make_bucket()
            arguments = [f"--store=s3://{flights.Seaweed.BUCKET}/compat"]
            environment |= {
                "AWS_ACCESS_KEY_ID": flights.Seaweed.KEY, "AWS_SECRET_ACCESS_KEY": flights.Seaweed.SECRET,
                "AWS_ENDPOINT_URL": self.seaweed.endpoint, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
            }
        # A consumer that follows a deleted topic must not make it anew.
        arguments.append("--topics.auto-create=false")
        self.brokers = flights.Brokers(program, folder, nodes, arguments, environment)
        self.nodes = self.brokers.nodes
        self.proxies = []
        for node in self.nodes:
            own = next(a for a in node.command if a.startswith("--kafka-addr=")).rsplit(":", 1)[1]
            node.kafka_port = int(own)
            proxy = Proxy(node.kafka_port)
            node.command.append(f"--listeners.advertised-kafka={proxy.address}")
            self.proxies.append(proxy)
        self.lock = threading.Lock()
        self.kills = 0

    def start(self):
        self.brokers.start()
        return self

    def bootstrap(self):
        return ",".join(proxy.address for proxy in self.proxies)

    def lose_answers(self, share):
        """From now on this share of the answers to Produce is lost, with the connection."""
        for proxy in self.proxies:
            proxy.share = share

    def lost_answers(self):
        return sum(proxy.lost for proxy in self.proxies)

    def kill(self, at=None, down=0.0):
        """Kills a node (any, or that one) under whatever load there is, starts it again after `down` seconds, and
        waits until the cluster is well."""
        with self.lock:
            node = self.nodes[at] if at is not None else random.choice(self.nodes)
            node.kill()
            self.kills += 1
            time.sleep(down)
            node.start()
            self.brokers.well()

    def tool(self, *arguments, **more):
        return flights.subprocess.run(
            self.brokers.command(*arguments), check=True, capture_output=True, text=True, **more
        ).stdout

    def ports(self):
        return [node.kafka_port for node in self.nodes]

    def stop(self):
        for proxy in self.proxies:
            proxy.close()
        code = self.brokers.stop()
        if self.seaweed:
            self.seaweed.stop()
        return code


class Killer:
    """Kills nodes at random points until it is stopped, one at a time."""

    def __init__(self, cluster, limit=None):
        self.cluster, self.limit, self.count = cluster, limit, 0
        self.over, self.failure = threading.Event(), None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def run(self):
        try:
            while not self.over.is_set() and (self.limit is None or self.count < self.limit):
                # The first one soon: much of what is tried takes less than a second.
                self.over.wait(random.uniform(0.2, 2.5) if self.count else random.uniform(0, 0.5))
                if self.over.is_set():
                    return
                self.cluster.kill(down=random.uniform(0, 1.0))
                self.count += 1
        except BaseException as error:  # pylint: disable=broad-except
            self.failure = error

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(120)
        if self.failure:
            raise self.failure


class Raw:
    """Speaks Kafka by hand to one node, in versions without compact lengths, to see what no client shows."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.correlation = 0

    def ask(self, key, version, body):
        self.correlation += 1
        frame = struct.pack(">hhi", key, version, self.correlation) + text("compat") + body
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        answer = exactly(self.socket, struct.unpack(">i", exactly(self.socket, 4))[0])
        assert struct.unpack(">i", answer[:4])[0] == self.correlation
        return answer[4:]

    def batches(self, topic, partition, start, end):
        """The batches from `start` to `end`, without the leader epoch, which nodes may set as they deliver."""
        found, at = [], start
        while at < end:
            body = struct.pack(">iiiibi", -1, 500, 1, 1 << 24, 0, 1) + text(topic)
            body += struct.pack(">iiqi", 1, partition, at, 1 << 22)
            answer = self.ask(FETCH, 4, body)
            head = 4 + 4 + 2 + len(topic) + 4
            _, error, _, _, aborted = struct.unpack(">ihqqi", answer[head:head + 26])
            if error:
                raise OSError(f"fetch of {topic}/{partition} at {at}: error {error}")
            place = head + 26 + 16 * max(aborted, 0)
            size = struct.unpack(">i", answer[place:place + 4])[0]
            data, moved = answer[place + 4:place + 4 + size], False
            while len(data) >= 61:
                base, length = struct.unpack(">qi", data[:12])
                if len(data) < 12 + length:
                    break
                batch, data = data[:12 + length], data[12 + length:]
                delta = struct.unpack(">i", batch[23:27])[0]
                found.append((base, batch[:12] + bytes(4) + batch[16:]))
                at, moved = base + delta + 1, True
            if not moved:
                raise OSError(f"fetch of {topic}/{partition} at {at}: nothing came")
        return found

    def committed(self, group, topic, partitions):
        """What a group has committed, as its coordinator tells it; None from any other node."""
        body = text(group) + struct.pack(">i", 1) + text(topic) + struct.pack(">i", partitions)
        answer = self.ask(OFFSET_FETCH, 1, body + b"".join(struct.pack(">i", p) for p in range(partitions)))
        at, found = 4 + 2 + len(topic) + 4, {}
        for _ in range(partitions):
            partition, offset, length = struct.unpack(">iqh", answer[at:at + 14])
            at += 14 + max(length, 0)
            error = struct.unpack(">h", answer[at:at + 2])[0]
            at += 2
            if error:
                return None
            found[partition] = offset
        return found

    def close(self):
        self.socket.close()


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def codec(batch):
    """The compression that a batch names in its attributes."""
    return ["none", "gzip", "snappy", "lz4", "zstd"][struct.unpack(">h", batch[21:23])[0] & 7]


def by_tool(cluster, topic):
    """The records of a topic as the native consumer prints them."""
    out = cluster.tool("consume", topic, "-o", "json", "-q")
    return [json.loads(line) for line in out.splitlines()]
