//! `streamhouse explain`.

use std::io::Write;

use clap::Args;
use serde::Serialize;
use streamhouse_types::error_code::ErrorCode;

use crate::exit::Exit;
use crate::failure::{Failure, LocalCode, Stop};
use crate::output::{Output, table};

/// Explain an error code
///
/// Without a code, lists them all.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  streamhouse explain TOPIC_NOT_FOUND\n  streamhouse explain -o json")]
pub(crate) struct ExplainArgs {
    /// A code as errors show it, such as TOPIC_NOT_FOUND
    code: Option<String>,
}

/// One code, from whichever side of the connection.
#[derive(Debug, Clone, Serialize)]
struct Explanation {
    code: &'static str,
    meaning: &'static str,
    hint: &'static str,
    retryable: bool,
    may_have_happened: bool,
    exit_code: u8,
    /// Status numbers on the wire; absent for errors of the command itself.
    grpc_code: Option<i32>,
    http_status: Option<u16>,
    kafka_code: Option<i16>,
}

/// All codes: those of the server, then those of the command line.
fn all() -> Vec<Explanation> {
    let of_server = ErrorCode::ALL.iter().map(|code| Explanation {
        code: code.reason(),
        meaning: code.meaning(),
        hint: code.hint(),
        retryable: code.retryable(),
        may_have_happened: code.may_have_happened(),
        exit_code: code.exit_code(),
        grpc_code: Some(code.grpc_code()),
        http_status: Some(code.http_status()),
        kafka_code: Some(code.kafka_code()),
    });
    let of_command = LocalCode::ALL.iter().map(|code| Explanation {
        code: code.name(),
        meaning: code.meaning(),
        hint: code.advice(),
        retryable: false,
        may_have_happened: false,
        exit_code: code.exit().code(),
        grpc_code: None,
        http_status: None,
        kafka_code: None,
    });
    of_server.chain(of_command).collect()
}

#[derive(Serialize)]
struct Catalogue {
    errors: Vec<Explanation>,
}

pub(crate) fn run(args: &ExplainArgs, output: Output) -> Result<Exit, Stop> {
    let errors = all();
    let Some(wanted) = &args.code else {
        let catalogue = Catalogue { errors };
        output.result(&catalogue, |out| list(&catalogue.errors, out))?;
        return Ok(Exit::Done);
    };
    let name = wanted.trim().to_uppercase().replace('-', "_");
    let Some(found) = errors.iter().find(|error| error.code == name) else {
        let mut failure = Failure::usage(format!("there is no error code `{wanted}`"));
        failure.exit = Exit::NotFound;
        let known = errors.iter().map(|error| error.code);
        return Err(failure.suggest(&name, known).hint("`streamhouse explain` lists them all").into());
    };
    output.result(found, |out| explain(found, out))?;
    Ok(Exit::Done)
}

fn list(errors: &[Explanation], out: &mut impl Write) -> std::io::Result<()> {
    let mut rows = table(&["CODE", "EXIT", "RETRY", "MEANING"]);
    for error in errors {
        let retry = if error.retryable { "yes" } else { "no" };
        rows.add_row([error.code, &error.exit_code.to_string(), retry, error.meaning]);
    }
    writeln!(out, "{rows}")
}

fn explain(error: &Explanation, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{}", error.code)?;
    writeln!(out, "  {}", error.meaning)?;
    writeln!(out, "  hint: {}", error.hint)?;
    let retry =
        if error.retryable { "the same request may work later" } else { "the same request fails again" };
    let done = if error.may_have_happened { "a write may have happened" } else { "nothing was written" };
    writeln!(out, "  {retry}; {done}; exit code {}", error.exit_code)
}
