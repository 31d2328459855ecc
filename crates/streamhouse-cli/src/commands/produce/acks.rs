//! Where each record was stored, as lines of JSON on standard output.

use std::io::{self, Write};

use serde::Serialize;
use streamhouse_bench::Listener;
use streamhouse_client::Ack;

use crate::output::stdout;

/// Lines that are gathered before they are printed, in bytes.
const LINES_BYTES: usize = 256 << 10;

/// Prints acks when there are no more at once, or when they are many; or not at all.
pub(super) enum AckLines {
    Nowhere,
    Stdout(Vec<u8>),
}

#[derive(Serialize)]
struct AckLine {
    line: u64,
    partition: u32,
    offset: u64,
}

impl Listener for AckLines {
    fn acked(&mut self, line: u64, ack: &Ack) -> io::Result<()> {
        let Self::Stdout(lines) = self else { return Ok(()) };
        let ack = AckLine { line, partition: ack.partition.get(), offset: ack.offset.get() };
        serde_json::to_writer(&mut *lines, &ack)?;
        lines.push(b'\n');
        if lines.len() >= LINES_BYTES { self.pause() } else { Ok(()) }
    }

    fn pause(&mut self) -> io::Result<()> {
        let Self::Stdout(lines) = self else { return Ok(()) };
        if !lines.is_empty() {
            let mut out = stdout();
            out.write_all(lines)?;
            out.flush()?;
            lines.clear();
        }
        Ok(())
    }
}
