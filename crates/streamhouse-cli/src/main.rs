//! The streamhouse command: a server, its clients and its tools in one binary.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    streamhouse_cli::run(std::env::args_os().collect())
}
