"""The brokers that `bench.py` measures side by side, and what each of them costs."""

import json
import os
import pathlib
import shutil
import subprocess
import urllib.request

import clients
from brokers import flights
from clients import WORK, say

KAFKA = "4.3.1"
NISSHI = "0.8.1"
TICKS = os.sysconf("SC_CLK_TCK")
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamhouse</groupId><artifactId>bench</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%s</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>%s</version></dependency>
  </dependencies>
</project>
""" % (KAFKA, KAFKA)


def kafka_jars():
    """Kafka's brokers and tools with all that they need, from Maven."""
    folder = WORK / f"kafka-{KAFKA}"
    done = folder / "installed"
    if not done.exists() or done.read_text() != POM:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(POM)
        say(["mvn", "-q", "-f", folder / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={folder}/lib"])
        done.write_text(POM)
    return f"{folder}/lib/*"


def nisshi(named):
    """Nisshi's binary: the one that is named, or built from crates.io, which takes long."""
    program = WORK / "nisshi" / "bin" / "nisshi"
    if named:
        return named
    if not program.exists():
        say(["cargo", "install", "-q", f"nisshi@{NISSHI}", "--locked", "--root", WORK / "nisshi",
             "--no-default-features", "--features", "dynostore,libsql"])
    return str(program)


def fault_server(named):
    """The S3 server whose writes take their time: the one that is named, or built."""
    if named:
        return named
    say(["cargo", "build", "--release", "--locked", "-q", "-p", "streamhouse-faults"], cwd=clients.ROOT)
    return str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", clients.ROOT / "target")) / "release" / "streamhouse-faults")


class Peer:
    """A broker in a process of its own, in a folder of its own, at one address in every life."""

    # Whether all that it was given stays in its memory, so that it needs a new life now and then.
    forgets = False

    def __init__(self, name, folder):
        self.name, self.folder = name, pathlib.Path(folder) / name
        self.folder.mkdir(parents=True)
        self.process, self.bootstrap, self.peak_before = None, None, 0

    def spawn(self, command, environment=None):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, env=os.environ | (environment or {}))

    def answers(self, port):
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended with {self.process.returncode}; see {self.folder}/log")
        try:
            with flights.socket.create_connection(("127.0.0.1", port), 1):
                return True
        except OSError:
            return False

    def cpu(self):
        """Seconds of processor time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak(self):
        """The most memory that it ever held, in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return max(self.peak_before, int(line.split()[1]) << 10)

    def stop(self):
        self.peak_before = self.peak()
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class StreamHouse(Peer):
    """One node as `streamhouse dev` starts it; nothing is set but addresses and the store."""

    def __init__(self, name, folder, program, store=None):
        super().__init__(name, folder)
        self.program, self.store = program, store
        self.kafka, self.http = "127.0.0.1:0", None

    def start(self):
        environment, more = {}, []
        if self.store:
            more, environment = self.store.start(self.folder)
        data = self.folder / "data"
        self.spawn([
            self.program, "dev", f"--data-dir={data}", f"--kafka-addr={self.kafka}", "--grpc-addr=127.0.0.1:0",
            "--internal-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", *more], environment)
        endpoints = data / "endpoints.json"
        flights.wait_until(self.name, lambda: self.process.poll() is not None or endpoints.exists())
        if self.process.poll() is not None:
            raise SystemExit((self.folder / "log").read_text())
        found = json.loads(endpoints.read_text())
        self.kafka = self.bootstrap = found["kafka"]
        self.http = found["http"]

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def stop(self):
        super().stop()
        if self.store:
            self.store.stop()


class SlowStore:
    """An S3 server on loopback whose writes take 30 ms, and one in a hundred 100 ms."""

    def __init__(self, program):
        self.program, self.process = program, None

    def start(self, folder):
        self.process = subprocess.Popen(
            [self.program, "--put-delay=30ms", "--put-p99=100ms", f"--folder={folder}/store"], stdout=subprocess.PIPE, text=True)
        found = json.loads(self.process.stdout.readline())
        return [f"--store=s3://{found['buckets'][0]}/bench"], {
            "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": found["s3"],
            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}

    def stop(self):
        self.process.kill()
        self.process.wait()


class Kafka(Peer):
    """One broker and controller (KRaft) with the Java settings of its own start script."""

    JAVA = ["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]

    def __init__(self, name, folder, jars, **settings):
        super().__init__(name, folder)
        self.jars = jars
        self.port, controller = flights.free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        settings = {
            "process.roles": "broker,controller", "node.id": 1, "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER", "log.dirs": self.folder / "data",
            # As the settings that come with it for one broker have it.
            "offsets.topic.replication.factor": 1, "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1, "num.network.threads": 3, "num.io.threads": 8,
            "socket.send.buffer.bytes": 102400, "socket.receive.buffer.bytes": 102400,
        } | settings
        self.settings = self.folder / "server.properties"
        self.settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def start(self):
        java = ["java", *self.JAVA, "-cp", self.jars]
        if not (self.folder / "data").exists():
            say(["java", "-cp", self.jars, "kafka.tools.StorageTool", "format", "-t", "bench-bench-bench-bench", "-c",
                 self.settings])
        self.spawn([*java, "kafka.Kafka", self.settings])
        flights.wait_until(self.name, lambda: self.answers(self.port))


class Nisshi(Peer):
    """One Nisshi broker; its records in memory or in a file of SQLite."""

    def __init__(self, name, folder, program, engine=None):
        super().__init__(name, folder)
        self.program = program
        self.forgets = engine is None
        self.engine = engine or "memory://nisshi/"
        [self.port] = flights.free_ports(1)
        self.bootstrap = f"127.0.0.1:{self.port}"

    def start(self):
        address = f"tcp://{self.bootstrap}"
        self.spawn([
            self.program, "broker", f"--listener-url={address}", f"--advertised-listener-url={address}",
            f"--storage-engine={self.engine}"], {"RUST_LOG": "warn"})
        flights.wait_until(self.name, lambda: self.answers(self.port))

    def stop(self):
        super().stop()
        if not self.forgets:
            for file in self.folder.glob("nisshi.db*"):
                file.unlink()


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
