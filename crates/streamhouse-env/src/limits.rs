//! What the machine allows this process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More open files than any node needs; systems refuse limits that are far larger.
const OPEN_FILES_MAX: u64 = 1 << 20;

/// Raises the number of files and sockets that this process may have open to the most that it is allowed; returns that.
/// Many systems start processes with 1,024, for the sake of old programs, and let them ask for more.
///
/// # Errors
/// What the system says; the limit is as it was then.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(OPEN_FILES_MAX).min(OPEN_FILES_MAX);
    if limit.current.is_none_or(|current| current >= most) {
        return Ok(limit.current.unwrap_or(most));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })?;
    Ok(most)
}
