"""What only Java programs do: Kafka's own verification tools, Connect and Streams as they come, and how programs
around Kafka ask at their start."""

import json
import random
import subprocess
import time
import urllib.request

from clients import Failure
from flights import free_ports
from stage import demand


def tool(stage, main, *arguments, seconds=120):
    command = [*stage.client.java, main, *arguments]
    with open(stage.client.log, "ab") as log:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=seconds, check=False)
    demand(result.returncode == 0, f"{main}: exit {result.returncode}: {result.stdout[-300:]}")
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def verifiable(stage):
    """VerifiableProducer and VerifiableConsumer, Kafka's own verification tools."""
    topic, count = stage.topic(3), 3000
    # It repeats nothing of its own accord.
    settings = stage.client.folder / "verifiable.properties"
    settings.write_text("retries=2147483647\n")
    with stage.disturb():
        said = tool(
            stage, "org.apache.kafka.tools.VerifiableProducer", "--topic", topic, "--bootstrap-server", stage.bootstrap,
            "--max-messages", str(count), "--throughput", "500", "--acks", "-1", "--command-config", str(settings))
        sent = [line["value"] for line in said if line.get("name") == "producer_send_success"]
        demand(len(sent) == count, f"{len(sent)} of {count} were acknowledged")
        said = tool(
            stage, "org.apache.kafka.tools.VerifiableConsumer", "--topic", topic, "--bootstrap-server", stage.bootstrap,
            "--group-id", f"verify-{random.randrange(1 << 30):x}", "--max-messages", str(count), "--verbose",
            "--reset-policy", "earliest")
    got = [line["value"] for line in said if line.get("name") == "record_data"]
    demand(sorted(set(got)) == sorted(sent), f"{len(set(got))} of {count} records were consumed")
    demand(stage.setup == "kills" or len(got) == count, f"{len(got)} records were delivered of {count}")


def startup(stage):
    """What Connect, Schema Registry and Streams ask at their start, replayed with the Java admin client."""
    lines = stage.run("startup", seconds=180)
    bad = [f"{line['did']}: {line['refused']}" for line in lines if "refused" in line]
    demand(not bad, "; ".join(bad))
    demand(len(lines) >= 10, f"only {len(lines)} steps were done")


def streams(stage):
    """A Streams program counts words, through a repartition topic and a state store with a changelog; it is started
    twice, and the second time it goes on where the first one was."""
    source, result = stage.topic(2), stage.topic(2)
    lines = stage.run("streams", source=source, result=result, seconds=240)
    counts = [line["counts"] for line in lines if "counts" in line]
    demand(counts == [{"a": 30, "b": 20, "c": 10}, {"a": 60, "b": 40, "c": 20}], f"the counts are {counts}")


class Worker:
    """One Connect worker in distributed mode."""

    def __init__(self, stage, name):
        folder = stage.client.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(1)[0]
        settings = {
            "bootstrap.servers": stage.bootstrap, "group.id": name, "listeners": f"http://127.0.0.1:{self.port}",
            "rest.advertised.host.name": "127.0.0.1", "rest.advertised.port": self.port,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "config.storage.topic": f"{name}-configs", "config.storage.replication.factor": "3",
            "offset.storage.topic": f"{name}-offsets", "offset.storage.replication.factor": "3",
            "offset.storage.partitions": "3", "status.storage.topic": f"{name}-status",
            "status.storage.replication.factor": "3", "status.storage.partitions": "2",
            "offset.flush.interval.ms": "1000", "plugin.discovery": "only_scan",
        }
        properties = folder / "worker.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self.log = open(folder / "log", "ab")
        command = [*stage.client.java, "org.apache.kafka.connect.cli.ConnectDistributed", str(properties)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer)

    def until(self, what, check, seconds=120):
        deadline, trouble = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            demand(self.process.poll() is None, f"{what}: the worker ended; its log: {self.log.name}")
            try:
                if check():
                    return
            except OSError as error:
                trouble = error
            time.sleep(0.5)
        raise Failure(f"{what}: not within {seconds} s ({trouble})")

    def runs(self, connector):
        state = self.ask(f"/connectors/{connector}/status")
        return state["connector"]["state"] == "RUNNING" and [t["state"] for t in state["tasks"]] == ["RUNNING"]

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def connect(stage):
    """A Connect worker takes lines from a file to a topic and on to a file, is killed, and goes on where it was."""
    name = f"connect-{random.randrange(1 << 30):x}"
    topic = stage.topic(1)
    folder = stage.client.folder / name
    folder.mkdir(parents=True)
    source, sink = folder / "in.txt", folder / "out.txt"
    wanted = [f"line {number}" for number in range(100)]
    source.write_text("\n".join(wanted[:50]) + "\n")

    def arrived(count):
        return lambda: sink.exists() and len(sink.read_text().splitlines()) >= count

    worker = Worker(stage, name)
    try:
        worker.until("the worker answers", lambda: worker.ask("/")["version"])
        file = "org.apache.kafka.connect.file.FileStream"
        worker.ask("/connectors", {"name": "in", "config": {
            "connector.class": f"{file}SourceConnector", "file": str(source), "topic": topic, "tasks.max": "1"}})
        worker.ask("/connectors", {"name": "out", "config": {
            "connector.class": f"{file}SinkConnector", "file": str(sink), "topics": topic, "tasks.max": "1"}})
        worker.until("both run", lambda: worker.runs("in") and worker.runs("out"))
        worker.until("the first lines arrive", arrived(50))
        time.sleep(2.5)
        worker.process.kill()
        worker.process.wait()
        with source.open("a") as more:
            more.write("\n".join(wanted[50:]) + "\n")
        worker = Worker(stage, name)
        worker.until("both run again", lambda: worker.runs("in") and worker.runs("out"))
        worker.until("the other lines arrive", arrived(100))
    finally:
        worker.end()
    got = sink.read_text().splitlines()
    demand(list(dict.fromkeys(got)) == wanted, f"{len(set(got))} of 100 lines arrived, or in another order")
