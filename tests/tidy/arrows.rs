//! Which crate may use which: the arrows of `docs/style.md`, section 2.

use std::collections::BTreeSet;
use std::fs;

use crate::{demand_none, root};

/// What each crate may depend on inside the workspace. A crate that is not here may not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("env", &["types"]),
    ("proto", &["types"]),
    ("metadata", &["types"]),
    ("raft", &["types", "env", "metadata", "proto"]),
    ("storage", &["types", "env"]),
    ("verify", &["types", "metadata", "storage"]),
    ("broker", &["types", "env", "metadata", "storage", "verify"]),
    ("groups", &["types", "env", "broker"]),
    ("config", &["types", "units", "env", "broker", "groups", "storage"]),
    ("cluster", &["types", "env", "proto", "metadata", "raft", "broker"]),
    ("advice", &[]),
    ("kafka", &["types", "env", "advice", "broker", "groups"]),
    ("grpc", &["types", "env", "broker", "groups", "cluster", "storage", "verify", "proto"]),
    ("api", &["types", "proto"]),
    ("client", &["types", "env", "proto", "api"]),
    (
        "server",
        &[
            "types", "env", "advice", "broker", "groups", "kafka", "grpc", "cluster", "config", "raft",
            "storage", "verify", "proto",
        ],
    ),
    ("consumer", &["types", "env", "client"]),
    ("bench", &["types", "env", "client"]),
    ("doctor", &["types", "env", "client"]),
    ("units", &["types"]),
    ("cli", &["types", "units", "env", "server", "client", "consumer", "bench", "doctor", "check"]),
    ("faults", &["types", "env"]),
    ("check", &["types"]),
    ("kafka-client", &["types", "env", "check"]),
    ("tests", &["types", "env", "client", "consumer", "kafka-client", "proto", "faults", "check"]),
];

/// What tests of any crate may use besides the arrows.
const FOR_TESTS: &[&str] = &["client", "faults", "kafka-client", "storage"];

/// Crates that a layer must never see, whatever the workspace offers.
const NEVER: &[(&str, &[&str])] = &[
    ("types", &["tokio", "tokio-util", "tokio-stream", "tonic", "futures", "async-trait", "openraft"]),
    (
        "metadata",
        &["tokio", "tokio-util", "tokio-stream", "tonic", "futures", "async-trait", "openraft", "rand"],
    ),
    ("broker", &["openraft", "tonic", "prost", "object_store"]),
    ("groups", &["openraft", "tonic", "prost", "object_store"]),
    ("kafka", &["openraft", "tonic", "prost", "object_store", "ractor"]),
    ("grpc", &["openraft", "object_store", "ractor"]),
    ("cluster", &["openraft", "object_store"]),
    ("storage", &["openraft", "ractor", "tonic"]),
    ("verify", &["openraft", "ractor", "tonic", "object_store"]),
    ("api", &["tokio", "tonic", "futures", "async-trait"]),
    ("client", &["openraft", "ractor", "object_store"]),
    ("consumer", &["openraft", "ractor", "object_store", "tonic", "prost"]),
    ("doctor", &["openraft", "ractor", "object_store", "tonic", "clap"]),
    ("bench", &["openraft", "ractor", "object_store", "clap", "indicatif"]),
    (
        "check",
        &["tokio", "tokio-util", "tokio-stream", "tonic", "futures", "async-trait", "openraft", "rand"],
    ),
];

fn manifest(path: &std::path::Path) -> toml::Table {
    let text = fs::read_to_string(path).expect("a manifest can be read");
    text.parse().expect("a manifest is TOML")
}

fn keys<'a>(manifest: &'a toml::Table, section: &str) -> Vec<&'a str> {
    let table = manifest.get(section).and_then(toml::Value::as_table);
    table.map(|table| table.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// `(short name, manifest)` of every member of the workspace.
fn members() -> Vec<(String, toml::Table)> {
    let mut paths = vec![root().join("tests/Cargo.toml")];
    for entry in fs::read_dir(root().join("crates")).expect("crates/ can be read") {
        let path = entry.expect("crates/ can be read").path().join("Cargo.toml");
        if path.exists() {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let manifest = manifest(path);
            let name = manifest["package"]["name"].as_str().expect("a package has a name");
            (name.trim_start_matches("streamhouse-").to_owned(), manifest)
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let mut breaches = Vec::new();
    for (name, manifest) in members() {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            breaches.push(format!("crate {name} is not in the table of arrows"));
            continue;
        };
        for (section, extra) in
            [("dependencies", &[][..]), ("build-dependencies", &[][..]), ("dev-dependencies", FOR_TESTS)]
        {
            for used in keys(&manifest, section) {
                let Some(used) = used.strip_prefix("streamhouse-") else { continue };
                if !allowed.contains(&used) && !extra.contains(&used) && used != name {
                    breaches.push(format!("{name} -> {used} in [{section}]"));
                }
            }
        }
    }
    demand_none("arrows point down only (docs/style.md, section 2)", &breaches);
}

#[test]
fn pure_layers_know_no_runtime_and_no_neighbour_of_the_edge() {
    let mut breaches = Vec::new();
    for (name, manifest) in members() {
        for (_, forbidden) in NEVER.iter().filter(|(known, _)| *known == name) {
            for used in keys(&manifest, "dependencies") {
                if forbidden.contains(&used) {
                    breaches.push(format!("{name} uses {used}"));
                }
            }
        }
    }
    demand_none("a layer knows something that it must not know", &breaches);
}

#[test]
fn every_crate_takes_the_house_lints_and_the_shared_versions() {
    let mut breaches = Vec::new();
    for (name, manifest) in members() {
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            breaches.push(format!("{name}: no `[lints] workspace = true`"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for (used, value) in table {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    breaches.push(format!("{name}: {used} has a version of its own"));
                }
            }
        }
    }
    demand_none("manifests follow the workspace", &breaches);
}

#[test]
fn everything_comes_from_the_crates_registry() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file can be read");
    let breaches: Vec<String> = lock
        .lines()
        .filter(|line| line.starts_with("source = "))
        .filter(|line| *line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"")
        .map(str::to_owned)
        .collect();
    demand_none("a build needs crates.io and nothing else", &breaches);
}

#[test]
fn the_simulation_is_made_of_the_same_versions() {
    let versions = |name: &str| -> BTreeSet<(String, String)> {
        let text = fs::read_to_string(root().join(name)).expect("a lock file can be read");
        let lock: toml::Table = text.parse().expect("it is TOML");
        let packages = lock["package"].as_array().expect("a list of packages").iter();
        let field = |package: &toml::Value, field: &str| package[field].as_str().expect("text").to_owned();
        packages.map(|package| (field(package, "name"), field(package, "version"))).collect()
    };
    let (ours, simulated) = (versions("Cargo.lock"), versions("tests/sim/Cargo.lock"));
    let known: BTreeSet<&String> = ours.iter().map(|(name, _)| name).collect();
    let differ = simulated.iter().filter(|package| known.contains(&package.0) && !ours.contains(package));
    let breaches: Vec<String> = differ.map(|(name, version)| format!("{name} {version}")).collect();
    demand_none("what is simulated is what runs: `cargo update --precise` in tests/sim", &breaches);
}

#[test]
fn nothing_that_is_banned_is_in_the_build() {
    let read = |name: &str| -> toml::Table {
        let text = fs::read_to_string(root().join(name)).expect("a file at the root can be read");
        text.parse().expect("it is TOML")
    };
    let (rules, lock) = (read("deny.toml"), read("Cargo.lock"));
    let names = |list: &toml::Value| -> Vec<String> {
        let entries = list.as_array().expect("a list of tables").iter();
        entries.map(|entry| entry["name"].as_str().expect("an entry has a name").to_owned()).collect()
    };
    let banned = names(&rules["bans"]["deny"]);
    assert!(!banned.is_empty());
    let breaches: Vec<String> =
        names(&lock["package"]).into_iter().filter(|name| banned.contains(name)).collect();
    demand_none("deny.toml bans it", &breaches);
}
