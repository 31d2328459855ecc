//! The mutation gate: takes one guard after the other out of the sources, and asks whether the simulation notices. It
//! measures the judge, not the cluster.
//!
//! All mutants are built into one binary, in a copy of the sources, and the environment says which of them is at work: a
//! build takes as long as the seeds of many mutants.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::campaign::Until;

/// One line of the sources, changed.
struct Mutant {
    name: String,
    /// What is wrong then.
    what: String,
    file: String,
    old: String,
    /// What stands there instead; `$ON` in it is whether this mutant is at work.
    new: String,
    /// Arguments for its runs besides those of the gate.
    arguments: Vec<String>,
}

/// What the gate is run with.
#[derive(Debug, Clone)]
pub struct GateOptions {
    /// The folder of the mutants.
    pub folder: PathBuf,
    /// Only mutants whose name holds this.
    pub only: Option<String>,
    /// How many seeds each gets.
    pub seeds: u64,
    /// The first seed.
    pub from: u64,
    /// How many processes at a time.
    pub jobs: usize,
    /// Arguments for each run after the seed.
    pub shape: Vec<String>,
    /// Where the changed sources are built; kept, as the next gate builds faster there.
    pub work: PathBuf,
    /// What ends the runs of a mutant.
    pub until: Until,
}

/// What the seeds made of a mutant.
struct Verdict {
    seeds: usize,
    /// Seeds that failed, and what the first of them said.
    killed_by: usize,
    why: String,
}

/// Says which mutant is at work.
const VARIABLE: &str = "STREAMHOUSE_MUTANT";
/// The crate that all others know, and what is added to it.
const HOME: &str = "crates/streamhouse-types/src/lib.rs";
const SWITCH: &str = r#"
/// Whether this mutant is at work.
pub fn is_mutant(name: &str) -> bool {
    static AT_WORK: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    AT_WORK.get_or_init(|| std::env::var("STREAMHOUSE_MUTANT").ok()).as_deref() == Some(name)
}
"#;

/// Builds the mutants, runs all seeds on each, and prints by how many of them each was killed.
///
/// # Errors
/// When a mutant lives or cannot be made, or a seed fails without any.
pub fn gate(options: &GateOptions) -> anyhow::Result<()> {
    let root = command("git", &["rev-parse", "--show-toplevel"], Path::new("."))?;
    let root = Path::new(root.trim());
    let tree = prepare(root, &options.work)?;
    let mut mutants = read_all(&options.folder)?;
    let built = build(&mutants, &tree, options);
    command("git", &["checkout", "-q", "--", "."], &tree)?;
    let binary = built?;
    mutants.retain(|mutant| options.only.as_ref().is_none_or(|only| mutant.name.contains(only.as_str())));
    let mut arguments: Vec<&[String]> = mutants.iter().map(|mutant| &mutant.arguments[..]).collect();
    arguments.push(&[]);
    arguments.sort_unstable();
    arguments.dedup();
    for arguments in arguments {
        let healthy = run("none", arguments, &binary, options)?;
        ensure!(healthy.killed_by == 0, "seeds fail without any mutant: {}", healthy.why);
        println!("without a mutant: {} seeds, none fails {}", healthy.seeds, arguments.join(" "));
    }
    let mut verdicts = Vec::new();
    for mutant in &mutants {
        let verdict = run(&mutant.name, &mutant.arguments, &binary, options)?;
        println!(
            "{}: killed by {} of {} seeds\n    {}",
            mutant.name, verdict.killed_by, verdict.seeds, verdict.why
        );
        verdicts.push(verdict);
    }
    println!("\n| mutant | what is wrong then | seeds that noticed |\n|---|---|---|");
    for (Mutant { name, what, .. }, Verdict { seeds, killed_by, .. }) in mutants.iter().zip(&verdicts) {
        println!("| {name} | {what} | {killed_by} of {seeds} |");
    }
    let lives =
        |(mutant, verdict): (&Mutant, &Verdict)| (verdict.killed_by == 0).then(|| mutant.name.clone());
    let alive: Vec<String> = mutants.iter().zip(&verdicts).filter_map(lives).collect();
    println!("\n{} mutants, {} killed", mutants.len(), mutants.len() - alive.len());
    ensure!(alive.is_empty(), "alive: {}", alive.join(", "));
    Ok(())
}

/// A copy of the sources as they are committed, to be changed.
fn prepare(root: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let tree = work.join("tree");
    let head = command("git", &["rev-parse", "HEAD"], root)?;
    if tree.exists() {
        command("git", &["checkout", "-q", "--", "."], &tree)?;
        command("git", &["checkout", "-q", "--detach", head.trim()], &tree)?;
    } else {
        std::fs::create_dir_all(work)?;
        let path = tree.to_str().context("the folder has an odd name")?;
        command("git", &["worktree", "add", "-q", "--detach", path, head.trim()], root)?;
    }
    Ok(tree)
}

fn command(program: &str, arguments: &[&str], dir: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).current_dir(dir).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {}: {text}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds the sources with all mutants; returns the binary.
fn build(mutants: &[Mutant], tree: &Path, options: &GateOptions) -> anyhow::Result<PathBuf> {
    let home = tree.join(HOME);
    std::fs::write(&home, std::fs::read_to_string(&home)? + SWITCH)?;
    for mutant in mutants {
        mutant.apply(tree)?;
    }
    let target = options.work.join("target");
    let built = Command::new("cargo")
        .args(["build", "--profile", "ci", "--quiet", "--locked"])
        .current_dir(tree.join("tests/sim"))
        .env("CARGO_TARGET_DIR", &target)
        .output()?;
    ensure!(
        built.status.success(),
        "the mutants do not compile:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(target.join("ci/streamhouse-sim"))
}

/// Runs all seeds on a mutant.
fn run(name: &str, arguments: &[String], binary: &Path, options: &GateOptions) -> anyhow::Result<Verdict> {
    let (seeds, from, jobs) = (options.seeds.to_string(), options.from.to_string(), options.jobs.to_string());
    let mut campaign = Command::new(binary);
    campaign.args(["campaign", "--seeds", &seeds, "--from", &from, "--jobs", &jobs]);
    if options.until == Until::FirstFailure {
        campaign.arg("--until-failure");
    }
    let campaign = campaign.args(&options.shape).args(arguments).env(VARIABLE, name).output()?;
    let text = String::from_utf8_lossy(&campaign.stdout).into_owned();
    let begins = |line: &str, words: &[&str]| words.iter().any(|word| line.starts_with(word));
    let of = |words: &[&str]| text.lines().filter(|line| begins(line, words)).count();
    let (passed, killed_by) = (of(&["ok  "]), of(&["FAIL", "DIED"]));
    let failed = text.lines().skip_while(|line| !begins(line, &["FAIL", "DIED"]));
    let why: Vec<&str> = failed.take(3).collect();
    let seeds = passed + killed_by;
    ensure!(seeds > 0, "the campaign did not run: {}", String::from_utf8_lossy(&campaign.stderr));
    Ok(Verdict { seeds, killed_by, why: why.join("\n    ") })
}

fn read_all(folder: &Path) -> anyhow::Result<Vec<Mutant>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|found| found == "mutant"));
    paths.sort();
    paths.iter().map(|path| Mutant::read(path).with_context(|| path.display().to_string())).collect()
}

impl Mutant {
    /// Lines of a name, a colon and a text: `what`, `file`, `old`, `new`, and perhaps `run`.
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let field = |name: &str| -> Option<String> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
        };
        let needed = |name: &str| field(name).with_context(|| format!("there is no line `{name}: …`"));
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            what: needed("what")?,
            file: needed("file")?,
            old: needed("old")?,
            new: needed("new")?,
            arguments: field("run").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        })
    }

    fn apply(&self, tree: &Path) -> anyhow::Result<()> {
        let path = tree.join(&self.file);
        let text = std::fs::read_to_string(&path).with_context(|| self.file.clone())?;
        let times = text.matches(&self.old).count();
        ensure!(times == 1, "{}: `{}` occurs {times} times in {}", self.name, self.old, self.file);
        let on = format!("streamhouse_types::is_mutant(\"{}\")", self.name);
        std::fs::write(&path, text.replacen(&self.old, &self.new.replace("$ON", &on), 1))?;
        Ok(())
    }
}
