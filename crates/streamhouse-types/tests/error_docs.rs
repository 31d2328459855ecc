//! `docs/reference/errors.md` is the table of error codes, rendered.

use std::fmt::Write;
use std::path::Path;

use streamhouse_types::error_code::ErrorCode;

const HEAD: &str = "\
# Errors

Every error of StreamHouse has one code. gRPC carries it as the `reason` of `google.rpc.ErrorInfo` (domain
`streamhouse`), the command line prints it, HTTP answers with it.

- *Retry*: the same request may succeed when it is sent again unchanged.
- *May have happened*: a write that ends with this may be in the log all the same. Idempotent producers repeat it
  safely; others read before they repeat it. With every other code the write did not happen.
- *Kafka* is the error code of Kafka's protocol, -1 where it has nothing like it. *Exit* is what the command line
  exits with.

This page is made from the table in `crates/streamhouse-types/src/error_code.rs`. After a change there, run
`UPDATE_DOCS=1 cargo test -p streamhouse-types --test error_docs`.

| code | gRPC | Kafka | HTTP | exit | retry | may have happened |
|---|---|---|---|---|---|---|
";

fn grpc_name(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES[usize::try_from(code).expect("gRPC codes are not negative")]
}

fn render() -> String {
    let mut page = HEAD.to_owned();
    let yes = |is: bool| if is { "yes" } else { "no" };
    for code in ErrorCode::ALL {
        writeln!(
            page,
            "| [`{code}`](#{}) | {} {} | {} | {} | {} | {} | {} |",
            code.reason().to_lowercase(),
            code.grpc_code(),
            grpc_name(code.grpc_code()),
            code.kafka_code(),
            code.http_status(),
            code.exit_code(),
            yes(code.retryable()),
            yes(code.may_have_happened()),
        )
        .expect("a text takes all");
    }
    for code in ErrorCode::ALL {
        write!(page, "\n## {code}\n\n{}\n\nWhat to do: {}.\n", code.meaning(), code.hint())
            .expect("a text takes all");
    }
    page
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says to rewrite the page"
)]
fn the_error_reference_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors.md");
    let rendered = render();
    if std::env::var("UPDATE_DOCS").is_ok() {
        std::fs::write(&path, &rendered).expect("the page can be written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == rendered,
        "docs/reference/errors.md differs from the table: run \
         `UPDATE_DOCS=1 cargo test -p streamhouse-types --test error_docs`"
    );
}
