//! Standard output is data, standard error is talk.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Names the contract that JSON documents keep.
pub(crate) const SCHEMA: &str = "streamhouse.cli/v1";

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For eyes; may change.
    Table,
    /// For scripts: one document, or one object a line where records stream.
    Json,
    /// The value of each record and nothing else (`consume` only).
    Value,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// How text for standard error looks.
    pub(crate) fn on_stderr(self) -> Paint {
        let unwanted = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => Paint::Colored,
            Self::Auto if io::stderr().is_terminal() && !unwanted() => Paint::Colored,
            Self::Auto | Self::Never => Paint::Plain,
        }
    }
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Letters only.
    Plain,
    /// With the colours of a terminal.
    Colored,
}

/// Whether the command says what it does besides its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Summaries, notes and progress on standard error.
    Normal,
    /// Errors only.
    Quiet,
}

/// Where results and talk go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// How results are printed.
    pub(crate) format: Format,
    /// What else is said.
    pub(crate) talk: Talk,
}

#[derive(Serialize)]
struct Document<'a, T: Serialize> {
    schema: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    /// Prints the result: `body` as a JSON document, or what `human` writes.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn result<T: Serialize>(
        self,
        body: &T,
        human: impl FnOnce(&mut Stdout) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = stdout();
        if self.format == Format::Json {
            serde_json::to_writer_pretty(&mut out, &Document { schema: SCHEMA, body })?;
            writeln!(out)?;
        } else {
            human(&mut out)?;
        }
        out.flush()
    }

    /// Says something besides the result: one line on standard error.
    pub(crate) fn say(self, line: &str) {
        if self.talk == Talk::Normal {
            // Nobody is left to hear that standard error is gone.
            let _gone = writeln!(io::stderr(), "{line}");
        }
    }

    /// A bar for long work whose size is known; draws only on a terminal.
    pub(crate) fn bar(self, total: u64, what: Measure) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), self.target());
        let template = match what {
            Measure::Bytes => "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
            Measure::Things => "{bar:30} {human_pos}/{human_len}  {eta} left  {msg}",
        };
        bar.with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
    }

    /// A running count for long work without a known end; draws only on a terminal.
    pub(crate) fn spinner(self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(None, self.target());
        bar.with_style(
            ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is well formed"),
        )
    }

    fn target(self) -> ProgressDrawTarget {
        let visible = self.talk == Talk::Normal && self.format != Format::Json && io::stderr().is_terminal();
        if visible { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() }
    }
}

/// What a progress bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Bytes.
    Bytes,
    /// Anything else.
    Things,
}

/// Standard output, locked and buffered.
pub(crate) type Stdout = BufWriter<StdoutLock<'static>>;

/// Locks standard output and puts a buffer before it.
pub(crate) fn stdout() -> Stdout {
    BufWriter::with_capacity(256 << 10, io::stdout().lock())
}

/// A table without lines, its heads in capitals, its columns two spaces apart.
pub(crate) struct Rows(Table);

/// A table with these heads and no rows yet.
pub(crate) fn table(heads: &[&str]) -> Rows {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    Rows(table)
}

impl Rows {
    /// Adds a row, one cell for each head.
    pub(crate) fn add_row<Cell: Into<comfy_table::Cell>>(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells);
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

/// A span in milliseconds with three decimals, for JSON.
pub(crate) fn millis(span: Duration) -> f64 {
    // Rounded to microseconds, so that the text is short and the same on every machine.
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_and_no_trailing_blanks() {
        let mut rows = table(&["NAME", "RECORDS"]);
        rows.add_row(["a", "1"]);
        rows.add_row(["long-name", "12,000"]);
        assert_eq!(rows.to_string(), "NAME       RECORDS\na          1\nlong-name  12,000");
    }
}
