"""The clients: how each is installed from its registry, started and spoken to.

Each has a small program that takes an operation and the addresses of the brokers as arguments, what is wanted as one
line of JSON on its input, and prints JSON, one object a line:

    produce   {topic, compression, idempotent, records}      {partition, offset} for each, in order
    read      {topic, partition, from, count}                the records, then it ends
    seek      {topic, partition, times}                      {offset} for each time, -1 where there is none
    follow    {topic, partition}                             records from the start, until its input ends
    stream    {topic, partitions, per_second}                numbers that were sent and acknowledged, until its input ends
    group     {topic, group, mode, instance}                 assigned, revoked, record, committed; until its input ends
    committed {topic, group, partitions}                     {offset} for each partition, -1 where there is none
    admin     {steps}                                        one object for each step

Keys, values and values of headers are hexadecimal or null.
"""

import contextlib
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "compat"


class Failure(Exception):
    """The client or the broker did not do what it should."""


class Running:
    """A client's program under way."""

    def __init__(self, command, request, log):
        self.lines, self.command, self.log = [], command, log
        self.started = time.monotonic()
        self.errors = open(log, "ab")
        self.errors.write(f"\n== {' '.join(command[-2:])} {json.dumps(request)[:300]}\n".encode())
        self.errors.flush()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, bufsize=1)
        self.news = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                said = json.loads(line)
                said["at"] = time.monotonic() - self.started
                self.lines.append(said)
            else:
                self.errors.write(line.encode())

    def wait_for(self, what, check, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if check(list(self.lines)):
                return
            if self.process.poll() is not None:
                self.reader.join(5)
                if check(list(self.lines)):
                    return
                raise Failure(f"{what}: ended early with {self.process.returncode}{self.last_words()}")
            time.sleep(0.05)
        raise Failure(f"{what}: not within {seconds} s")

    def last_words(self):
        errors = [line["error"] for line in self.lines if "error" in line]
        if errors:
            return ": " + errors[-1]
        tail = pathlib.Path(self.log).read_text(errors="replace").strip().splitlines()[-1:]
        return ": " + tail[0][:300] if tail else ""

    def finish(self, seconds=90, expect=True):
        """Ends its input, and waits for its end; returns all that it said."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"did not end within {seconds} s") from None
        self.reader.join(10)
        if expect and (code or any("error" in line for line in self.lines)):
            raise Failure(f"exit {code}{self.last_words()}")
        return self.lines

    def kill(self):
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def held(self):
        """It stands still meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def lose(self):
        """The client dies without a word. Of one that is a command, the command dies: what it had said before is still
        heard, as it may have committed it."""
        if self.command[-3].endswith("kcat.py"):
            self.process.send_signal(signal.SIGUSR1)
            self.process.wait(30)
            self.reader.join(30)
        else:
            self.kill()


class Client:
    """One client; `cannot` names the scenarios that it has no means for, with the reason."""

    def __init__(self, name, version, cannot=None, cannot_share=()):
        self.name, self.version, self.cannot = name, version, cannot or {}
        self.folder = WORK / "clients" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"
        self.command = None
        # kcat commits the record that comes between the signal to end and its end, and does not print it.
        self.leaves_in_silence = name == "kcat"
        # What of the records with odd parts it cannot write.
        self.cannot_share = cannot_share

    def start(self, operation, bootstrap, request):
        return Running([*self.command, operation, bootstrap], request, self.log)

    def run(self, operation, bootstrap, request, seconds=120):
        return self.start(operation, bootstrap, request).finish(seconds)


def say(command, **more):
    result = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if result.returncode:
        shown = " ".join(str(c) for c in command)
        raise Failure(f"{shown}: exit {result.returncode}: {(result.stderr or result.stdout)[-1500:]}")
    return result.stdout


def python(client, program, *packages):
    place = client.folder / "venv"
    done = client.folder / "installed"
    if not done.exists() or done.read_text() != " ".join(packages):
        venv.create(place, with_pip=True, clear=True)
        say([place / "bin" / "pip", "install", "-q", *packages])
        done.write_text(" ".join(packages))
    client.command = [str(place / "bin" / "python"), "-u", str(HERE / "clients" / "python" / program)]


def confluent(client):
    python(client, "confluent.py", f"confluent-kafka=={client.version}")


def kafka_python(client):
    python(client, "kafka_py.py", f"kafka-python=={client.version}", "python-snappy==0.7.3", "lz4==4.4.5", "zstandard==0.25.0")


def aiokafka(client):
    python(client, "aio.py", f"aiokafka=={client.version}", "cramjam==2.14.0")


def kcat(client):
    if not shutil.which("kcat"):
        say(["apt-get", "install", "-y", "-q", "kcat"])
    client.command = [sys.executable, "-u", str(HERE / "clients" / "python" / "kcat.py")]


def kafkajs(client):
    packages = {"kafkajs": client.version, "kafkajs-snappy": "1.1.0", "lz4js": "0.2.0", "zstd-codec": "0.1.5"}
    wanted = client.folder / "package.json"
    text = json.dumps({"name": "compat", "private": True, "dependencies": packages})
    if not wanted.exists() or wanted.read_text() != text:
        wanted.write_text(text)
        try:
            say(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=client.folder)
        except Failure:
            wanted.unlink()
            raise
    shutil.copy(HERE / "clients" / "kafkajs" / "client.js", client.folder / "client.js")
    client.command = ["node", str(client.folder / "client.js")]


def java(client):
    """The jars come through Maven, the programs are compiled against them by javac."""
    place = HERE / "clients" / "java"
    lib, built = client.folder / "lib", client.folder / "classes"
    done = client.folder / "installed"
    pom = (place / "pom.xml").read_text()
    if not done.exists() or done.read_text() != pom:
        shutil.rmtree(lib, ignore_errors=True)
        say(["mvn", "-q", "-f", place / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={lib}"])
        done.write_text(pom)
    shutil.rmtree(built, ignore_errors=True)
    say(["javac", "-nowarn", "-cp", f"{lib}/*", "-d", built, *sorted(place.glob("*.java"))])
    settings = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.logFile=System.err"]
    client.java = ["java", *settings, "-cp", f"{built}:{lib}/*"]
    client.command = [*client.java, "Client"]


def golang(client):
    place = HERE / "clients" / "go"
    package = {"franz-go": "./franz", "sarama": "./sarama"}[client.name]
    say(["go", "build", "-o", client.folder / "client", package], cwd=place, env=os.environ | {"GOFLAGS": "-mod=readonly"})
    client.command = [str(client.folder / "client")]


def rdkafka(client):
    place = HERE / "clients" / "rdkafka"
    environment = os.environ | {"CARGO_TARGET_DIR": str(client.folder / "target"), "CARGO_INCREMENTAL": "0"}
    say(["cargo", "build", "--locked", "-q"], cwd=place, env=environment)
    client.command = [str(client.folder / "target" / "debug" / "compat-rdkafka")]


NO_ADMIN = "no calls for it"

# name: install, version, scenarios that it has no means for, records of the scenario `bytes` that it cannot write
CLIENTS = {
    "kcat": (kcat, "1.7.1", {
        "recreate": "ends when a topic goes", "configs": NO_ADMIN, "admin": NO_ADMIN}, ("timestamp", "header-bytes")),
    "rdkafka": (rdkafka, "0.39.0", {}, ()),
    "confluent-kafka-python": (confluent, "2.16.1", {}, ()),
    "kafka-python": (kafka_python, "3.0.12", {}, ("both-null", "header-null")),
    "aiokafka": (aiokafka, "0.14.0", {"cooperative": "no such assignor"}, ("both-null",)),
    "kafkajs": (kafkajs, "2.2.4", {"cooperative": "no such assignor", "static": "no static members"},
                ("header-null",)),
    "java": (java, "4.3.1", {}, ()),
    "franz-go": (golang, "1.22.3", {}, ()),
    "sarama": (golang, "1.61.1", {"cooperative": "no such assignor"}, ()),
}

# What of a client's own ways the programs here make up for, as its users have to.
HELPED = {
    "kcat": "a member is told to leave while no records come, as it commits the one that it is given then, and drops it",
    "rdkafka": "looking up offsets by time is repeated, when it has dropped the broker that it asked",
    "confluent-kafka-python": "as rdkafka",
    "kafka-python": "`poll` is repeated where it tells of a lost connection; a member asks for the topic's partitions before it "
                    "joins, as a rejoin at their arrival that takes longer than `poll` ends its heartbeats",
    "kafkajs": "connecting and looking up offsets are repeated; an idempotent producer sends one partition a request, as of "
               "a request to several it sends again what was answered, under new numbers, when a leader moves meanwhile",
    "java": "VerifiableProducer is told to repeat what fails",
    "sarama": "looking up offsets by time is repeated, when the connection to the broker that it asked is lost",
    "franz-go": "told to repeat where a connection ends as soon as it is made (AlwaysRetryEOF)",
}


def install(name):
    setup, version, cannot, cannot_share = CLIENTS[name]
    client = Client(name, version, cannot, cannot_share)
    setup(client)
    return client
