//! Rules of the sources: sizes, stubs, sleeps, exceptions, names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    demand_none, files_with_extension, root,
    rust_text::{lint_exceptions, sort_lines},
    shown,
};

const FILE_LINES_MAX: usize = 500;
const CRATE_LINES_MAX: usize = 5_000;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Whether the file exists for tests or benchmarks only.
    fn is_test(&self, test_files: &BTreeSet<PathBuf>) -> bool {
        let inside = self.path.strip_prefix(root()).expect("sources lie in the repository");
        inside.components().any(|part| ["tests", "benches"].iter().any(|name| part.as_os_str() == *name))
            || inside.file_name().is_some_and(|name| name == "tests.rs")
            || test_files
                .iter()
                .any(|test| self.path == *test || self.path.starts_with(test.with_extension("")))
    }
}

fn sources() -> Vec<Source> {
    files_with_extension("rs")
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source can be read");
            Source { path, text }
        })
        .collect()
}

/// The files that `#[cfg(test)] mod name;` declares.
fn declared_test_files(sources: &[Source]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for source in sources {
        let stem = source.path.file_stem().expect("a source has a name");
        let parent = source.path.parent().expect("a source has a directory");
        let is_root = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let dir = if is_root { parent.to_path_buf() } else { parent.join(stem) };
        for module in sort_lines(&source.text).test_modules {
            found.insert(dir.join(format!("{module}.rs")));
        }
    }
    found
}

fn crate_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("crates")).ok()?;
    Some(inside.components().next()?.as_os_str().to_string_lossy().into_owned())
}

#[test]
fn files_and_crates_keep_to_their_size() {
    let sources = sources();
    let test_files = declared_test_files(&sources);
    let mut crates: BTreeMap<String, usize> = BTreeMap::new();
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test(&test_files)) {
        let lines = sort_lines(&source.text).code.len();
        if lines > FILE_LINES_MAX {
            breaches
                .push(format!("{}: {lines} lines of code, {FILE_LINES_MAX} allowed", shown(&source.path)));
        }
        if let Some(name) = crate_of(&source.path) {
            *crates.entry(name).or_default() += lines;
        }
    }
    for (name, lines) in crates {
        if lines > CRATE_LINES_MAX {
            breaches.push(format!("{name}: {lines} lines of code, {CRATE_LINES_MAX} allowed"));
        }
    }
    demand_none("split at a seam in the subject", &breaches);
}

#[test]
fn nothing_is_stubbed_ignored_or_left_for_debugging() {
    // Written in two halves, so that this file does not find itself.
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[ign", "ore"),
        concat!("allow(dead", "_code"),
        concat!("expect(dead", "_code"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut breaches = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                breaches.push(format!("{}:{}: {word}", shown(&source.path), number + 1));
            }
        }
    }
    demand_none("finish it or delete it", &breaches);
}

#[test]
fn tests_wait_for_states_and_never_sleep() {
    let sources = sources();
    let test_files = declared_test_files(&sources);
    let mut breaches = Vec::new();
    for source in &sources {
        // The seam itself, and the crate whose trade is delay.
        if crate_of(&source.path)
            .is_some_and(|name| ["streamhouse-env", "streamhouse-faults"].contains(&name.as_str()))
        {
            continue;
        }
        // In the simulation nobody waits for real: its time is made up.
        if source.path.starts_with(root().join("tests/sim")) {
            continue;
        }
        let sorted = sort_lines(&source.text);
        let everywhere = [concat!("thread::", "sleep"), concat!("time::", "sleep")];
        for (number, line) in sorted.code.iter().chain(&sorted.test_code) {
            if everywhere.iter().any(|word| line.contains(word)) {
                breaches.push(format!("{}:{number}: a sleep", shown(&source.path)));
            }
        }
        // Time that a test moves by hand may be slept through; real time may not.
        let steered = source.text.contains("start_paused") || source.text.contains("time::pause");
        if steered {
            continue;
        }
        let test_code = if source.is_test(&test_files) { &sorted.code } else { &sorted.test_code };
        let all: Vec<&str> = source.text.lines().collect();
        for (number, line) in test_code {
            // A store or a network that is told to be slow has to be.
            let slow_on_purpose = *number > 1 && all[number - 2].trim().starts_with("// Slow on purpose: ");
            let sleeps = line.contains(concat!(".sle", "ep(")) || line.contains(concat!(".sle", "ep_until("));
            if sleeps && !slow_on_purpose {
                breaches.push(format!("{}:{number}: a sleep in a test", shown(&source.path)));
            }
        }
    }
    demand_none("wait for a state instead (docs/style.md, section 10)", &breaches);
}

#[test]
fn every_exception_from_a_lint_says_why() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (number, attribute) in lint_exceptions(&source.text) {
            if !attribute.contains("reason") {
                breaches.push(format!("{}:{number}: {attribute}", shown(&source.path)));
            }
        }
    }
    demand_none("an #[allow] or #[expect] carries a reason", &breaches);
}

#[test]
fn every_crate_states_its_architecture_invariant() {
    let mut breaches = Vec::new();
    for entry in fs::read_dir(root().join("crates")).expect("crates/ can be read") {
        let dir = entry.expect("crates/ can be read").path();
        let lib = dir.join("src/lib.rs");
        let main = dir.join("src/main.rs");
        let path = if lib.exists() { lib } else { main };
        let text = fs::read_to_string(&path).unwrap_or_default();
        if !text
            .lines()
            .any(|line| line.starts_with("//!") && line.to_lowercase().contains("architecture invariant"))
        {
            breaches.push(format!("{}: no line \"Architecture invariant\"", shown(&path)));
        }
    }
    demand_none("a crate says what it never knows", &breaches);
}

#[test]
fn no_module_is_named_after_nothing() {
    let empty_names = ["util", "utils", "common", "helper", "helpers", "manager", "misc"];
    let mut breaches = Vec::new();
    for source in sources() {
        let stem = source.path.file_stem().expect("a source has a name").to_string_lossy().into_owned();
        if empty_names.contains(&stem.as_str()) {
            breaches.push(shown(&source.path));
        }
    }
    demand_none("name a module after its subject", &breaches);
}
