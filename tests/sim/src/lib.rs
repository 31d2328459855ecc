//! A whole cluster in one process, from a seed: the real server, the real Raft and the real store client on simulated
//! time, sockets, disks and a simulated S3.
//!
//! One process runs one seed, so that nothing global is left over from another. What a run does follows from its seed
//! alone; `docs/reference/simulation.md` says how to read a failure.

#[cfg(not(tokio_unstable))]
compile_error!(
    "build this workspace from its own directory: tokio seeds its choices only under --cfg tokio_unstable"
);

mod calendars;
pub mod campaign;
mod clients;
mod coverage;
mod coverage_points;
mod history;
mod machine;
pub mod mutants;
mod nemesis;
mod node;
pub mod run;
mod seed;
mod store;
mod swarm;
mod trace;
pub mod twin;
mod world;
