"""What the programs in Python share: asked by one line of JSON, they answer in lines of JSON."""

import json
import sys
import threading
import time

LOCK = threading.Lock()
READ_SECONDS = 60


def out(line):
    with LOCK:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def packed(value):
    return None if value is None else bytes(value).hex()


def unpacked(value):
    return None if value is None else bytes.fromhex(value)


def headers_out(record):
    return [(name, unpacked(value)) for name, value in record["headers"]]


def record_line(partition, offset, timestamp, key, value, headers):
    return {
        "partition": partition, "offset": offset, "timestamp": timestamp, "key": packed(key), "value": packed(value),
        "headers": [[name, packed(content)] for name, content in headers]}


class Program:
    """One run of a client's program; a client adds the operations."""

    def __init__(self, bootstrap):
        self.bootstrap, self.over = bootstrap, False
        self.deadline = time.monotonic() + READ_SECONDS

    def left(self):
        return max(0.0, self.deadline - time.monotonic())

    def watch(self):
        sys.stdin.read()
        self.over = True

    def paced(self, per_second):
        """Numbers from 0 on, so many a second, until the input ends."""
        started, number = time.monotonic(), 0
        while not self.over:
            yield number
            number += 1
            ahead = number / per_second - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)

    def before(self):
        """Called before the first step of `admin`."""

    def admin(self, steps):
        self.before()
        for step in steps:
            step = dict(step)
            name = step.pop("do")
            try:
                out({"did": name, **getattr(self, "step_" + name)(**step)})
            except NotImplementedError as error:
                out({"did": name, "cannot": str(error)})
            except Exception as error:  # pylint: disable=broad-except
                out({"did": name, "refused": f"{type(error).__name__}: {error}"})

    def perform(self, operation, request):
        if "from" in request:
            request["first"] = request.pop("from")
        getattr(self, operation)(**request)

    @classmethod
    def main(cls):
        operation, bootstrap = sys.argv[1:3]
        request = json.loads(sys.stdin.readline())
        program = cls(bootstrap)
        threading.Thread(target=program.watch, daemon=True).start()
        try:
            program.perform(operation, request)
        except Exception as error:  # pylint: disable=broad-except
            out({"error": f"{type(error).__name__}: {error}"})
            sys.exit(1)
