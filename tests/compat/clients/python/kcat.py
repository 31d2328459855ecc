"""Operations of the scenarios with kcat, which is a command."""

import re
import signal
import subprocess
import sys
import threading

from common import Program, out, unpacked

# Lengths come before what they count, so that any bytes can be told apart; -1 is null.
FORM = "%p %o %T %K %S %R%k%s%h\\n"


class Kcat(Program):
    def kcat(self, *arguments, **more):
        # -E: a disconnect is no reason to end.
        return ["kcat", "-E", "-b", self.bootstrap, "-X", "allow.auto.create.topics=false", *arguments]

    def produce(self, topic, records, compression, idempotent):
        """One run for each record with odd parts, as headers and keys are given to a whole run; one for all plain
        ones."""
        settings = ["-X", f"enable.idempotence={str(idempotent).lower()}", "-z", compression]
        first = self.end(topic, 0)
        if all(record["key"] is None and record["value"] and not record["headers"] for record in records):
            text = b"".join(unpacked(record["value"]) + b"\n" for record in records)
            self.call(self.kcat("-P", "-t", topic, "-p", "0", *settings, "-X", "linger.ms=20"), text)
        else:
            for record in records:
                self.one(topic, record, settings)
        # kcat does not tell offsets; it sends in order.
        for at in range(len(records)):
            out({"partition": 0, "offset": first + at})

    def one(self, topic, record, settings):
        arguments, text = ["-P", "-t", topic, "-p", "0", *settings], b""
        for name, value in record["headers"]:
            arguments += ["-H", name if value is None else f"{name}={unpacked(value).decode()}"]
        key, value = record["key"], record["value"]
        # Key and value with a separator between; -Z makes both null where they are empty.
        if key is not None or value is None:
            arguments += ["-K", "<>"]
            text += (unpacked(key) or b"") + b"<>"
        text += unpacked(value) or b""
        arguments += ["-D", "<end>", *(["-Z"] if value is None else [])]
        self.call(self.kcat(*arguments), text + b"<end>")

    @staticmethod
    def call(command, text=b""):
        result = subprocess.run(command, input=text, capture_output=True, check=False, timeout=90)
        sys.stderr.buffer.write(result.stderr)
        if result.returncode:
            raise RuntimeError(result.stderr.decode(errors="replace").strip()[-300:])
        return result.stdout

    def ends(self, topic, moment):
        told = self.call(self.kcat("-Q", "-t", f"{topic}:0:{moment}")).decode()
        return int(re.search(r"offset (-?\d+)", told).group(1))

    def end(self, topic, _):
        return self.ends(topic, -1)

    def read(self, topic, partition, first, count):
        text = self.call(self.kcat(
            "-C", "-q", "-t", topic, "-p", str(partition), "-o", str(first), "-c", str(count), "-f", FORM))
        for _ in range(count):
            line, text = self.record(text)
            out(line)

    @staticmethod
    def record(text):
        numbers = re.match(rb"(\d+) (\d+) (-?\d+) (-?\d+) (-?\d+) ", text)
        partition, offset, stamp, key_length, value_length = (int(n) for n in numbers.groups())
        # %R is the value's length again, in four bytes.
        at = numbers.end() + 4
        key = text[at:at + max(key_length, 0)]
        at += max(key_length, 0)
        value = text[at:at + max(value_length, 0)]
        at += max(value_length, 0)
        end = text.index(b"\n", at)
        headers = []
        for part in filter(None, text[at:end].split(b",")):
            name, content = part.split(b"=", 1)
            headers.append([name.decode(), None if content == b"NULL" else content.hex()])
        line = {
            "partition": partition, "offset": offset, "timestamp": stamp, "headers": headers,
            "key": None if key_length < 0 else key.hex(), "value": None if value_length < 0 else value.hex()}
        return line, text[end + 1:]

    def seek(self, topic, partition, times):
        for moment in times:
            out({"offset": self.ends(topic, moment)})

    def follow(self, topic, partition):
        self.lines(self.kcat(
            "-C", "-q", "-u", "-t", topic, "-p", str(partition), "-o", "beginning", "-f", "%p %o %T %s\\n",
            "-X", "topic.metadata.refresh.interval.ms=1000", "-X", "auto.offset.reset=earliest"))

    def lines(self, command):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        threading.Thread(target=self.stop, args=(process,), daemon=True).start()
        for line in process.stdout:
            partition, offset, stamp, value = line.rstrip(b"\n").split(b" ", 3)
            out({"partition": int(partition), "offset": int(offset), "timestamp": int(stamp), "value": value.hex()})
        if process.wait() and not self.over:
            raise RuntimeError(f"kcat ended with {process.returncode}")

    def stop(self, process):
        while not self.over:
            self.ended.wait(0.1)
        process.terminate()

    def watch(self):
        super().watch()
        self.ended.set()

    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.ended = threading.Event()

    def stream(self, topic, partitions, per_second):
        """One kcat for each partition, as a run writes to one."""
        processes = [subprocess.Popen(
            self.kcat("-P", "-t", topic, "-p", str(partition), "-X", "enable.idempotence=true", "-X", "linger.ms=5",
                      "-X", "message.timeout.ms=300000"),
            stdin=subprocess.PIPE) for partition in range(partitions)]
        sent = 0
        for number in self.paced(per_second):
            pipe = processes[number % partitions].stdin
            # kcat reads about a thousand bytes before it sends: shorter lines would wait for one another.
            pipe.write(b"%01000d\n" % number)
            pipe.flush()
            sent += 1
            if number == 30:
                # kcat tells nothing of acknowledgements; what it ends well with is acknowledged.
                for early in range(sent):
                    out({"sent": early})
        for process in processes:
            process.stdin.close()
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError(f"kcat ended with {codes}")
        for number in range(sent):
            out({"number": number, "partition": number % partitions, "offset": -1})

    def group(self, topic, group, mode, instance):
        settings = {
            "session.timeout.ms": 10_000, "heartbeat.interval.ms": 1000, "auto.offset.reset": "earliest",
            # A member that leaves while it waits to connect again ends without its last commit.
            "reconnect.backoff.max.ms": 300,
            "partition.assignment.strategy": "cooperative-sticky" if mode == "cooperative" else "range"}
        if instance:
            settings["group.instance.id"] = instance
        flags = [part for name, value in settings.items() for part in ("-X", f"{name}={value}")]
        process = subprocess.Popen(
            self.kcat(*flags, "-u", "-f", "%p %o %s\\n", "-G", group, topic), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        signal.signal(signal.SIGUSR1, lambda *_: self.lost(process))
        threading.Thread(target=self.stop, args=(process,), daemon=True).start()
        threading.Thread(target=self.rebalances, args=(process,), daemon=True).start()
        for line in process.stdout:
            partition, offset, value = line.rstrip(b"\n").split(b" ", 2)
            out({"partition": int(partition), "offset": int(offset), "value": value.hex()})
        if process.wait() and not self.over:
            raise RuntimeError(f"kcat ended with {process.returncode}")
        out({"closed": True})

    def lost(self, process):
        self.over = True
        process.kill()

    @staticmethod
    def rebalances(process):
        for line in process.stderr:
            sys.stderr.buffer.write(line)
            text = line.decode(errors="replace")
            if "rebalanced" in text:
                places = [int(place) for place in re.findall(r"\[(\d+)\]", text)]
                # "revoked", or "incremental revoke" of some.
                out({"revoked" if "revoke" in text else "assigned": places, "text": text.strip()[:200]})


Kcat.main()
