//! `streamhouse check`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use streamhouse_check::{History, HistoryError, Report};

use crate::exit::Exit;
use crate::failure::{Failure, LocalCode, Stop, with_causes};
use crate::output::{Measure, Output};

/// Judge the history of a run: was anything lost, repeated, reordered or altered? Exit 9 if so
///
/// A history is what the clients of a run saw, one JSON object a line, as docs/formats/history.md describes it. It is read
/// once, from front to back; about 40 bytes of memory are needed for each record.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  streamhouse check history.ndjson\n  streamhouse check history.ndjson -o json\n  zstd -dc history.ndjson.zst | streamhouse check -"
)]
pub(crate) struct CheckArgs {
    /// File with the history; - for standard input
    history: PathBuf,
}

pub(crate) fn run(args: &CheckArgs, output: Output) -> Result<Exit, Stop> {
    let report = if args.history == Path::new("-") {
        judge("standard input", io::stdin().lock())?
    } else {
        judge_file(&args.history, output)?
    };
    output.result(&report, |out| write!(out, "{report}"))?;
    Ok(if report.is_clean() { Exit::Done } else { Exit::Differs })
}

fn judge_file(path: &Path, output: Output) -> Result<Report, Failure> {
    let failed = |error: io::Error| unreadable(path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display())));
    }
    let bar = output.bar(metadata.len(), Measure::Bytes);
    let judged = judge(&path.display().to_string(), bar.wrap_read(file));
    bar.finish_and_clear();
    judged
}

fn judge(name: &str, from: impl Read) -> Result<Report, Failure> {
    History::check(BufReader::with_capacity(256 << 10, from)).map_err(|error| {
        let code = match error {
            HistoryError::Io { .. } => LocalCode::Io,
            HistoryError::Refused { .. } => LocalCode::BadHistory,
        };
        Failure::new(code, format!("{name}: {}", with_causes(&error))).hint(code.advice())
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let mut failure = Failure::new(LocalCode::Io, format!("{}: {error}", path.display()));
    if error.kind() == io::ErrorKind::NotFound {
        failure.exit = Exit::NotFound;
    }
    failure.hint(LocalCode::Io.advice())
}
