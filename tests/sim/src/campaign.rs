//! Many seeds, one process each, several at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use crate::coverage_points::{POINTS, Point};
use crate::run::Outcome;

/// A run that needs more CPU time is ended, and has failed: something in it goes round and round while its time stands still.
const CPU_SECONDS_MAX: &str = "180";

/// What to run.
#[derive(Debug, Clone)]
pub struct CampaignOptions {
    /// The first seed; a fresh one when absent.
    pub from: Option<u64>,
    /// How many seeds; with `minutes`, at most.
    pub seeds: u64,
    /// No seed is begun after so many minutes.
    pub minutes: Option<u64>,
    /// Seeds that are run before the others: a number at the beginning of each line.
    pub list: Option<PathBuf>,
    /// How many processes at a time.
    pub jobs: usize,
    /// Arguments for each run after the seed.
    pub shape: Vec<String>,
    /// Ends with the first seed that fails; for finding out whether any does.
    pub until_failure: Until,
}

/// When a campaign ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After its last seed.
    Done,
    /// After the first seed that fails.
    FirstFailure,
}

/// What became of one seed.
struct Finished {
    seed: u64,
    outcome: Result<Outcome, String>,
    wall: Duration,
}

impl Finished {
    fn failed(&self) -> bool {
        self.outcome.as_ref().map_or(true, |outcome| !outcome.violations.is_empty())
    }
}

/// Runs seeds and prints a line for each, and totals.
///
/// # Errors
/// When a seed failed or the campaign missed something that it must have been through.
pub fn campaign(options: &CampaignOptions) -> anyhow::Result<()> {
    let mut waiting = seeds(options)?;
    let begun = now();
    let (tell, told) = mpsc::channel::<Finished>();
    let mut running = 0;
    let mut totals = Totals::default();
    loop {
        let late = options.minutes.is_some_and(|minutes| begun.elapsed() > Duration::from_secs(minutes * 60));
        let over = late || (options.until_failure == Until::FirstFailure && !totals.failed.is_empty());
        while running < options.jobs && !over {
            let Some(seed) = waiting.pop_front() else { break };
            let (tell, shape) = (tell.clone(), options.shape.clone());
            std::thread::spawn(move || drop(tell.send(one(seed, &shape))));
            running += 1;
        }
        if running == 0 {
            break;
        }
        let finished = told.recv().context("a thread of the campaign ended early")?;
        running -= 1;
        report(&finished, &options.shape);
        totals.add(finished);
    }
    totals.print(begun.elapsed(), options.jobs);
    totals.judge(options)
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the campaign itself is not simulated")]
    Instant::now()
}

fn seeds(options: &CampaignOptions) -> anyhow::Result<VecDeque<u64>> {
    let mut seeds = VecDeque::new();
    if let Some(path) = &options.list {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let number = line.split_whitespace().next().unwrap_or_default();
            seeds.push_back(number.parse().with_context(|| format!("`{line}` begins with no seed"))?);
        }
    }
    let from = options.from.unwrap_or_else(|| {
        #[expect(clippy::disallowed_methods, reason = "the campaign itself is not simulated")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1_000
    });
    seeds.extend(from..from + options.seeds);
    println!(
        "seeds {from}..{} and {} from the list",
        from + options.seeds,
        seeds.len() as u64 - options.seeds
    );
    Ok(seeds)
}

fn one(seed: u64, shape: &[String]) -> Finished {
    let begun = now();
    let outcome = child(seed, shape);
    Finished { seed, outcome, wall: begun.elapsed() }
}

fn child(seed: u64, shape: &[String]) -> Result<Outcome, String> {
    let binary = std::env::current_exe().map_err(|error| error.to_string())?;
    let command = Command::new("sh")
        .args(["-c", r#"ulimit -S -t "$0" && exec "$@""#, CPU_SECONDS_MAX])
        .arg(binary)
        .arg("run")
        .arg(seed.to_string())
        .args(shape)
        .stdin(Stdio::null())
        .output();
    let output = command.map_err(|error| error.to_string())?;
    let last = String::from_utf8_lossy(&output.stdout);
    let last = last.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        format!("{}: {}", output.status, tail.into_iter().rev().collect::<Vec<_>>().join("\n    "))
    })
}

fn report(finished: &Finished, shape: &[String]) {
    let Finished { seed, outcome, wall } = finished;
    let shape = shape.join(" ");
    match outcome {
        Ok(outcome) => {
            let state = if outcome.violations.is_empty() { "ok  " } else { "FAIL" };
            let [sent, acked, maybe, failed, read] = outcome.records;
            println!(
                "{state} {seed}  {:5.1} CPU-s, {:5.1} s simulated, converged in {:4.1} s; {sent} sent, {acked} acked, \
                 {maybe} unsure, {failed} failed, {read} read; {} faults, {} of the store's {} requests; {wall:.0?}",
                outcome.cpu,
                outcome.simulated,
                outcome.converged,
                outcome.faults.values().sum::<u64>(),
                outcome.store_faults.values().sum::<u64>(),
                outcome.store_requests,
            );
            for violation in outcome.violations.iter().take(5) {
                println!("    {violation}");
            }
        }
        Err(error) => println!("DIED {seed}  {error}"),
    }
    if finished.failed() {
        println!("    replay: just sim-seed {seed} {shape}");
    }
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    cpu: f64,
    cpu_most: f64,
    simulated: f64,
    converged: Vec<f64>,
    records: [usize; 5],
    faults: BTreeMap<String, u64>,
    store_faults: BTreeMap<String, u64>,
    packets_lost: u64,
    counted: BTreeMap<String, u64>,
    /// How many seeds met a point of coverage.
    met: BTreeMap<&'static str, u64>,
    failed: BTreeSet<u64>,
}

impl Totals {
    fn add(&mut self, finished: Finished) {
        self.seeds += 1;
        if finished.failed() {
            self.failed.insert(finished.seed);
        }
        let Ok(outcome) = finished.outcome else { return };
        self.cpu += outcome.cpu;
        self.cpu_most = self.cpu_most.max(outcome.cpu);
        self.simulated += outcome.simulated;
        self.converged.push(outcome.converged);
        self.packets_lost += outcome.packets_lost;
        for (total, count) in self.records.iter_mut().zip(outcome.records) {
            *total += count;
        }
        for point in POINTS {
            *self.met.entry(point.name).or_default() += u64::from(point.met(&outcome.counted) > 0);
        }
        for (totals, counts) in [
            (&mut self.faults, outcome.faults),
            (&mut self.store_faults, outcome.store_faults),
            (&mut self.counted, outcome.counted),
        ] {
            for (name, count) in counts {
                *totals.entry(name).or_default() += count;
            }
        }
    }

    fn print(&mut self, wall: Duration, jobs: usize) {
        let [sent, acked, maybe, failed, read] = self.records;
        let seeds = u32::try_from(self.seeds.max(1)).map_or(1.0, f64::from);
        println!(
            "\n{} seeds, {} failed; {:.0} CPU-s in all, {:.1} a seed, {:.1} at most; {:.0} s of simulated time; \
             {wall:.0?} on {jobs} at a time",
            self.seeds,
            self.failed.len(),
            self.cpu,
            self.cpu / seeds,
            self.cpu_most,
            self.simulated,
        );
        println!("records: {sent} sent, {acked} acked, {maybe} unsure, {failed} failed, {read} read");
        self.converged.sort_by(f64::total_cmp);
        if let (Some(most), Some(middle)) =
            (self.converged.last(), self.converged.get(self.converged.len() / 2))
        {
            println!("served everybody after the faults in {middle:.1} s (median), {most:.1} s (most)");
        }
        let faults: u64 = self.faults.values().chain(self.store_faults.values()).sum();
        println!(
            "faults: {} injected, and {} packets lost: {}; of requests to the store: {}",
            faults,
            self.packets_lost,
            listed(&self.faults),
            listed(&self.store_faults),
        );
        for Point { name, .. } in POINTS {
            println!("  {:6} seeds: {name}", self.met.get(name).unwrap_or(&0));
        }
    }

    fn judge(&self, options: &CampaignOptions) -> anyhow::Result<()> {
        if !self.failed.is_empty() {
            bail!("failed: {:?}", self.failed);
        }
        // A few seeds cannot go through everything.
        let missed: Vec<&str> = POINTS
            .iter()
            .filter(|point| self.seeds >= point.within)
            .map(|point| point.name)
            .filter(|name| self.met.get(name).is_none_or(|met| *met == 0))
            .collect();
        if options.until_failure == Until::Done && !missed.is_empty() {
            bail!("no seed went through: {}", missed.join("; "));
        }
        Ok(())
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
