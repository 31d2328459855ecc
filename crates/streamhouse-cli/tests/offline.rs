//! The binary without a server: help, errors, exit codes.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it does not expect")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Port 1 of loopback: nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

fn streamhouse(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamhouse"));
    command.args(args).env_remove("STREAMHOUSE_SERVER").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    streamhouse(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn fails(args: &[&str], exit: i32, part: &str) {
    let output = run(args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
    assert!(said.contains(part), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} put its error where data belongs: {}", stdout(&output));
}

#[track_caller]
fn error_document(args: &[&str]) -> serde_json::Value {
    let output = run(args);
    assert!(output.stdout.is_empty());
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema"], "streamhouse.cli/v1");
    assert_eq!(document["error"]["exit_code"].as_i64(), output.status.code().map(i64::from));
    document["error"].clone()
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["help"], &["topic", "--help"], &["produce", "--help"], &["--version"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    assert!(stdout(&run(&["--help"])).contains("streamhouse dev"));
}

#[test]
fn wrong_usage_ends_with_2_and_suggests() {
    fails(&["topic", "lst"], 2, "'list'");
    fails(&["topic", "create"], 2, "NAMES");
    fails(&["produce"], 2, "TOPIC");
    fails(&["consume", "t", "--from", "yesterday"], 2, "@-15m");
    fails(&["produce", "t", "--key", "a", "--key-field", "b"], 2, "cannot be used with");
    fails(&["produce", "t", "--compression", "rar"], 2, "rar");
    fails(&["bench", "--size", "3"], 2, "1 MiB");
    fails(&["topic", "list", "--timeout", "0s"], 2, "longer than nothing");
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    fails(&["dev", "--server", "far:1"], 2, "leave out --server");
    fails(&["explain", "USAGE", "--timeout", "1s"], 2, "leave out --timeout");
    fails(&["dev", "--nodes", "0"], 2, "at least one node");
    fails(&["dev", "--nodes", "10"], 2, "at most 9 nodes");
    fails(&["topic", "list", "-o", "value"], 2, "table or json");
    fails(&["consume", "t", "-o", "table"], 2, "value or json");
}

#[test]
fn destruction_without_a_terminal_needs_consent() {
    fails(&["topic", "delete", "orders"], 2, "error[CONSENT_MISSING]");
    fails(&["topic", "trim", "orders", "--partition", "0", "--before", "5"], 2, "--yes");
}

#[test]
fn an_absent_server_is_named_with_who_named_it_and_what_to_do() {
    let output = run(&["topic", "list", "--server", NOBODY]);
    assert_eq!(output.status.code(), Some(6));
    let said = stderr(&output);
    assert!(said.starts_with("error[UNREACHABLE]"), "{said}");
    assert!(said.contains(NOBODY) && said.contains("--server") && said.contains("streamhouse dev"), "{said}");
    fails(&["topic", "list", "--server", "nonsense"], 2, "host:port");
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let error = error_document(&["topic", "list", "--server", NOBODY, "-o", "json"]);
    assert_eq!(error["code"], "UNREACHABLE");
    assert_eq!(error["retryable"], true);
    assert_eq!(error["may_have_happened"], false);
    assert!(error["hint"].as_str().unwrap().contains("streamhouse dev"));
    let error = error_document(&["topic", "lst", "-o", "json"]);
    assert_eq!(error["code"], "USAGE");
    assert!(error["hint"].as_str().unwrap().contains("list"), "{error}");
    let error = error_document(&["--output=json", "topic", "delete", "orders"]);
    assert_eq!(error["code"], "CONSENT_MISSING");
}

#[test]
fn colours_appear_only_when_asked_for() {
    let plain = run(&["topic", "list", "--server", NOBODY]);
    assert!(!stderr(&plain).contains('\x1b'));
    let coloured = run(&["topic", "list", "--server", NOBODY, "--color", "always"]);
    assert!(stderr(&coloured).contains("\x1b[1;31merror"));
}

#[test]
fn codes_are_explained_and_misspelt_ones_suggested() {
    let output = run(&["explain", "topic-not-found"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("TOPIC_NOT_FOUND\n"));
    fails(&["explain", "TOPIC_NOT_FOUN"], 3, "did you mean: TOPIC_NOT_FOUND");
    let all: serde_json::Value = serde_json::from_slice(&run(&["explain", "-o", "json"]).stdout).unwrap();
    assert_eq!(all["schema"], "streamhouse.cli/v1");
    assert!(all["errors"].as_array().unwrap().len() > 20);
}

#[test]
fn every_code_is_explained_once() {
    let all: serde_json::Value = serde_json::from_slice(&run(&["explain", "-o", "json"]).stdout).unwrap();
    let codes: Vec<&str> =
        all["errors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect();
    let mut once = codes.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), codes.len(), "{codes:?}");
}

#[test]
fn completions_and_the_client_version_need_no_server() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("streamhouse"));
    }
    let output = run(&["version", "--client", "-o", "json"]);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["client"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["server"], serde_json::Value::Null);
}

#[test]
fn a_configuration_is_checked_and_printed_without_starting_anything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[store]\nurl = \"file:///tmp/x\"\n[wal]\nflush_intervall = \"5ms\"\n").unwrap();
    fails(&["server", "check-config", "--config", path], 2, "flush_interval");
    std::fs::write(
        &file,
        "[store]\nurl = \"s3://bucket/prefix\"\nsecret_access_key = \"hush\"\n[wal]\nflush_interval = \"5ms\"\n",
    )
    .unwrap();
    assert_eq!(run(&["server", "check-config", "--config", path]).status.code(), Some(0));
    let output = run(&["server", "print-config", "--config", path, "--effective", "--node.zone", "east"]);
    let printed = stdout(&output);
    assert!(printed.contains("wal.flush_interval") && printed.contains("node.toml"), "{printed}");
    assert!(printed.contains("flag --node.zone"), "{printed}");
    assert!(!printed.contains("hush"), "{printed}");
    let output = run(&["server", "print-config", "--config", path, "--effective", "-o", "json"]);
    let printed: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let value = |key: &str| {
        let settings = printed["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap()["value"].clone()
    };
    assert_eq!(value("node.id"), 1);
    assert_eq!(value("node.roles"), serde_json::json!(["broker"]));
    assert_eq!(value("wal.flush_interval"), "5ms");
    assert_eq!(value("store.secret_access_key"), "…");
    fails(&["server", "check-config", "--config", "/nowhere/node.toml"], 2, "/nowhere/node.toml");
}

#[test]
fn a_file_that_is_not_there_is_said_before_anything_is_sent() {
    fails(&["produce", "t", "--file", "/nowhere/lines.txt", "--server", NOBODY], 3, "/nowhere/lines.txt");
    fails(&["produce", "t", "--file", "/", "--server", NOBODY], 2, "directory");
}

/// A history of two acknowledged records, the second of which the final read has or has not.
fn history(dir: &tempfile::TempDir, name: &str, read: &str) -> String {
    let append = |op: u32, value: &str| {
        format!(
            r#"{{"append":{{"client":"w","op":{op},"at":{op},"producer":"p","idempotent":true,"partition":"t/0","sequence":{op},"values":["{value}"]}}}}"#
        )
    };
    let acked = |op: u32| format!(r#"{{"acked":{{"client":"w","op":{op},"at":9,"offset":{op}}}}}"#);
    let lines = [
        r#"{"history":{"version":1}}"#.to_owned(),
        append(0, "00000000000000aa"),
        append(1, "00000000000000bb"),
        acked(0),
        acked(1),
        r#"{"final_read":{"at":20}}"#.to_owned(),
        format!(
            r#"{{"poll":{{"consumer":"c","partition":"t/0","begin":21,"end":22,"from":0,"records":[{read}]}}}}"#
        ),
        r#"{"end":{"events":6}}"#.to_owned(),
    ];
    let path = dir.path().join(name);
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_history_is_judged_and_what_is_lost_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let clean = history(&dir, "clean", r#"[0,"00000000000000aa"],[1,"00000000000000bb"]"#);
    let output = run(&["check", &clean]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.starts_with("no violation in 6 events: 2 records appended (2 acknowledged"), "{said}");
    assert!(output.stderr.is_empty());

    let lossy = history(&dir, "lossy", r#"[0,"00000000000000aa"]"#);
    let output = run(&["check", &lossy]);
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("C3 unseen: 1 acknowledged records of t/0 are not read at the end"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&run(&["check", &lossy, "-o", "json"]).stdout).unwrap();
    assert_eq!((&report["schema"], &report["clean"]), (&"streamhouse.cli/v1".into(), &false.into()));
    assert_eq!(report["violations"][0]["anomaly"], "unseen");
    assert_eq!(report["violations"][0]["offsets"]["start"], 1);

    let from_stdin =
        streamhouse(&["check", "-"]).stdin(std::fs::File::open(&lossy).unwrap()).output().unwrap();
    assert_eq!((from_stdin.status.code(), stdout(&from_stdin)), (Some(9), said));
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let path = path.to_str().unwrap();
    std::fs::write(path, "127.0.0.1 - GET /\n").unwrap();
    fails(&["check", path], 2, "line 1: this is no history");
    std::fs::write(path, "{\"history\":{\"version\":1}}\n{\"explode\":{}}\n").unwrap();
    fails(&["check", path], 2, "line 2: unknown event `explode`");
    assert_eq!(error_document(&["check", path, "-o", "json"])["code"], "BAD_HISTORY");
    std::fs::write(path, "{\"history\":{\"version\":1}}\n{\"final_read\":{\"a").unwrap();
    fails(&["check", path], 2, "line 2: the line is cut short");
    fails(&["check", "/nowhere/history"], 3, "/nowhere/history");
    fails(&["check", "/"], 2, "directory");
    fails(&["check", path, "--server", NOBODY], 2, "leave out --server");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        streamhouse(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stderr.is_empty());
}

#[test]
fn the_address_of_a_dev_node_in_this_directory_is_found() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".streamhouse")).unwrap();
    let mut file = std::fs::File::create(dir.path().join(".streamhouse/endpoints.json")).unwrap();
    write!(file, r#"{{"grpc": "{NOBODY}", "http": "127.0.0.1:2"}}"#).unwrap();
    let output = streamhouse(&["topic", "list"]).current_dir(dir.path()).output().unwrap();
    assert!(stderr(&output).contains("endpoints.json"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(6));
}
