//! Files that are there wholly or not at all.

use std::io;
use std::path::{Path, PathBuf};

use streamhouse_env::LogFs;

/// The ending of files that are not finished.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Writes `parts` to `path`, replacing what was there; durable on return, and after a crash either the old or the new
/// content is there.
pub(crate) fn write_whole(fs: &dyn LogFs, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = unfinished(path);
    match fs.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&unfinished)?;
    let mut position = 0;
    for part in parts {
        file.write_at(position, part)?;
        position += part.len() as u64;
    }
    file.sync_data()?;
    fs.rename(&unfinished, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}
