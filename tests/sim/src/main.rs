//! Runs seeds.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use streamhouse_sim::campaign::{CampaignOptions, Until, campaign};
use streamhouse_sim::mutants::{GateOptions, gate};
use streamhouse_sim::run::{RunOptions, run};
use streamhouse_sim::twin::twin;

/// A whole cluster in one process, from a seed.
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one seed and prints what came of it as one line of JSON.
    Run {
        /// Decides everything.
        seed: u64,
        #[command(flatten)]
        shape: Shape,
        /// Writes log lines to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Which log lines.
        #[arg(long, default_value = "debug,h2=info,hyper=info,tower=info,turmoil=info,tokio=warn,s3s=warn")]
        filter: String,
        /// Writes what clients saw to this file, for `streamhouse check`.
        #[arg(long)]
        history: Option<PathBuf>,
    },
    /// Runs many seeds and prints a line for each, and totals.
    Campaign {
        /// The first seed; a fresh one when absent.
        #[arg(long)]
        from: Option<u64>,
        /// How many seeds; with --minutes, at most.
        #[arg(long, default_value_t = 40)]
        seeds: u64,
        /// No seed is begun after so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// Seeds that are run first: a number at the beginning of each line.
        #[arg(long)]
        list: Option<PathBuf>,
        /// How many processes at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Ends with the first seed that fails.
        #[arg(long)]
        until_failure: bool,
        #[command(flatten)]
        shape: Shape,
    },
    /// Runs one seed twice and compares the logs byte by byte.
    Twin {
        /// Decides everything.
        seed: u64,
        #[command(flatten)]
        shape: Shape,
        /// Which log lines; those of libraries that print the machine's time are left out.
        #[arg(
            long,
            default_value = "trace,turmoil=info,tokio=warn,h2=debug,s3s=off,openraft=off,runtime=off"
        )]
        filter: String,
    },
    /// Takes one guard after the other out of the sources and asks how many seeds notice.
    Mutants {
        /// The folder of the mutants.
        #[arg(long, default_value = "mutants")]
        folder: PathBuf,
        /// Only mutants whose name holds this.
        #[arg(long)]
        only: Option<String>,
        /// How many seeds each gets.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many processes at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Where the changed sources are built.
        #[arg(long, default_value = "target/mutants")]
        work: PathBuf,
        /// Ends the runs of a mutant with the first seed that notices it.
        #[arg(long)]
        until_failure: bool,
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Shape {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// Seconds of simulated time under load and faults.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

impl Shape {
    fn arguments(&self) -> Vec<String> {
        ["--nodes".to_owned(), self.nodes.to_string(), "--seconds".to_owned(), self.seconds.to_string()]
            .to_vec()
    }
}

fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    match command {
        Command::Run { seed, shape, trace, filter, history } => {
            let faults_for = Duration::from_secs(shape.seconds);
            let options = RunOptions { seed, nodes: shape.nodes, faults_for, trace, filter, history };
            let outcome = run(&options)?;
            println!("{}", serde_json::to_string(&outcome)?);
            if !outcome.violations.is_empty() {
                std::process::exit(1);
            }
        }
        Command::Campaign { from, seeds, minutes, list, jobs, until_failure, shape } => {
            let until_failure = if until_failure { Until::FirstFailure } else { Until::Done };
            let shape = shape.arguments();
            campaign(&CampaignOptions { from, seeds, minutes, list, jobs, shape, until_failure })?;
        }
        Command::Twin { seed, shape, filter } => twin(seed, &shape.arguments(), &filter)?,
        Command::Mutants { folder, only, seeds, from, jobs, work, until_failure, shape } => {
            let until = if until_failure { Until::FirstFailure } else { Until::Done };
            let shape = shape.arguments();
            gate(&GateOptions {
                folder,
                only,
                seeds,
                from,
                jobs,
                shape,
                work: std::path::absolute(work)?,
                until,
            })?;
        }
    }
    Ok(())
}
