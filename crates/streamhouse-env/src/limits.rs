//! What the machine allows this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More open files than any node needs; systems refuse limits that are far larger.
const OPEN_FILES_MAX: u64 = 1 << 20;

/// Raises the number of files and sockets that this process may have open to the most that it is allowed; returns how many
/// it may have then. Many systems start processes with 1,024, for the sake of old programs, and let them ask for more.
#[must_use]
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(OPEN_FILES_MAX).min(OPEN_FILES_MAX);
    let current = limit.current.unwrap_or(most);
    if current >= most {
        return current;
    }
    // A system that refuses leaves the limit as it was.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    if raised.is_ok() { most } else { current }
}
