//! One seed twice, in two processes: the logs must be equal byte for byte, else no seed shows anything again.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Runs a seed twice and compares.
///
/// # Errors
/// When the logs differ, or a run does not end.
pub fn twin(seed: u64, shape: &[String], filter: &str) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("streamhouse-twin-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let compared = [1, 2].map(|number| folder.join(format!("{seed}.{number}.log")));
    let outcome = both(seed, shape, filter, &compared).and_then(|()| compare(&compared));
    match outcome {
        Ok(lines) => {
            std::fs::remove_dir_all(&folder)?;
            println!("seed {seed}: {lines} lines, twice the same");
            Ok(())
        }
        Err(error) => Err(error.context(format!("the logs are in {}", folder.display()))),
    }
}

fn both(seed: u64, shape: &[String], filter: &str, logs: &[PathBuf; 2]) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for log in logs {
        let child = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg(seed.to_string())
            .args(shape)
            .args(["--filter", filter, "--trace"])
            .arg(log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        running.push(child);
    }
    for mut child in running {
        let status = child.wait()?;
        // A seed may fail; it must do so twice.
        if !matches!(status.code(), Some(0 | 1)) {
            println!("a run ended with {status}");
        }
    }
    Ok(())
}

fn compare(logs: &[PathBuf; 2]) -> anyhow::Result<u64> {
    let open = |path: &Path| File::open(path).map(BufReader::new).with_context(|| path.display().to_string());
    let (mut first, mut second) = (open(&logs[0])?, open(&logs[1])?);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for number in 1.. {
        one.clear();
        other.clear();
        let ended = first.read_until(b'\n', &mut one)? == 0;
        second.read_until(b'\n', &mut other)?;
        if one != other {
            let text = |line: &[u8]| String::from_utf8_lossy(line).chars().take(400).collect::<String>();
            bail!("line {number} differs:\n- {}+ {}", text(&one), text(&other));
        }
        if ended {
            return Ok(number - 1);
        }
    }
    unreachable!("logs end")
}
