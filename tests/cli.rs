//! The command line against a real node: what a person types in the first hour.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use streamhouse_tests::house::House;
use streamhouse_tests::node::binary;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

#[tokio::test]
async fn lines_come_back_byte_for_byte_and_in_order() {
    let house = House::start().await;
    let mut input = Vec::new();
    for number in 0..5_000 {
        input.extend_from_slice(format!(" line {number}\ttab \u{e4}\r\n").as_bytes());
    }
    input.extend_from_slice(b"\n\xff\xfe not text\nno newline at the end");
    let output = house.produce(&["exact"], &input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("5,003 records, 1 partition, ack p50"));
    let read = house.run(&["consume", "exact", "-q"]);
    input.push(b'\n');
    assert!(read.stdout == input, "what came out is not what went in");
    assert!(read.stderr.is_empty());
}

#[tokio::test]
async fn keys_come_from_a_field_and_decide_the_partition() {
    let house = House::start().await;
    house.ok(&["topic", "create", "flights", "--partitions", "4"]);
    let input: String = (0..600)
        .map(|n| format!("{{\"n\": {n}, \"tail\": \"N{}\", \"x\": {{\"tail\": 1}}}}\n", n % 37))
        .collect();
    let file = house.path().join("flights.ndjson");
    std::fs::write(&file, &input).expect("a file");
    house.ok(&["produce", "flights", "--file", "flights.ndjson", "--key-field", "tail"]);
    let records = lines(&house.ok(&["consume", "flights", "-o", "json"]));
    assert_eq!(records.len(), 600);
    let mut last = std::collections::BTreeMap::new();
    for record in &records {
        let value: Value =
            serde_json::from_str(record["value"].as_str().expect("text")).expect("the whole line");
        assert_eq!(record["key"], value["tail"], "{record}");
        let key = record["key"].as_str().expect("a key").to_owned();
        let place = (record["partition"].as_u64(), value["n"].as_u64());
        if let Some((partition, number)) = last.insert(key, place) {
            assert_eq!(partition, place.0, "one key, two partitions: {record}");
            assert!(number < place.1, "out of order: {record}");
        }
    }
    assert!(records.iter().any(|record| record["partition"] != records[0]["partition"]));
}

#[tokio::test]
async fn a_bad_line_is_named_and_the_lines_before_it_are_there() {
    let house = House::start().await;
    let output = house.produce(&["strict", "--format", "json", "-o", "json"], b"1\n{\"a\": 2}\n{oops\n4\n");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    let error: Value = serde_json::from_str(said.lines().last().expect("an error")).expect("JSON");
    assert_eq!(error["error"]["code"], "BAD_LINE");
    assert!(error["error"]["message"].as_str().expect("text").starts_with("line 3:"), "{error}");
    assert_eq!(house.ok(&["consume", "strict"]), "1\n{\"a\": 2}\n");
}

#[tokio::test]
async fn a_record_over_the_limit_is_named_by_its_line_and_harms_nothing() {
    let house = House::start().await;
    let big = [b"small\n".to_vec(), vec![b'x'; 3 << 20], b"\nafter\n".to_vec()].concat();
    let output = house.produce(&["sizes", "-o", "json"], &big);
    let said = String::from_utf8_lossy(&output.stderr);
    let error: Value = serde_json::from_str(said.lines().last().expect("an error")).expect("JSON");
    assert_eq!(error["error"]["code"], "BATCH_TOO_LARGE", "{error}");
    assert_eq!(error["error"]["may_have_happened"], false);
    assert!(error["error"]["message"].as_str().expect("text").starts_with("line 2:"), "{error}");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(house.ok(&["consume", "sizes"]), "small\n");
    let endless = vec![b'x'; 9 << 20];
    let output = house.produce(&["sizes", "-o", "json"], &endless);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1 is longer than"));
}

#[tokio::test]
async fn positions_say_where_reading_begins_and_ends() {
    let house = House::start().await;
    let input: String = (0..10).map(|n| format!("{n}\n")).collect();
    assert!(house.produce(&["numbers"], input.as_bytes()).status.success());
    let read = |args: &[&str]| house.ok(&[&["consume", "numbers"], args].concat()).replace('\n', " ");
    assert_eq!(read(&[]), "0 1 2 3 4 5 6 7 8 9 ");
    assert_eq!(read(&["--from", "7"]), "7 8 9 ");
    assert_eq!(read(&["--from", "-2"]), "8 9 ");
    assert_eq!(read(&["--from", "end"]), "");
    assert_eq!(read(&["--from", "2", "--until", "4"]), "2 3 ");
    assert_eq!(read(&["--from", "@-1h", "-n", "3"]), "0 1 2 ");
    assert_eq!(read(&["--from", "@2099-01-01"]), "");
    assert_eq!(read(&["--partition", "0", "--until", "-9"]), "0 ");
}

#[tokio::test]
async fn acks_tell_where_each_line_was_stored() {
    let house = House::start().await;
    let output = house.produce(&["acked", "--acks-out", "--header", "source=test"], b"a\nb\nc\n");
    let acks = lines(&String::from_utf8(output.stdout).expect("text"));
    let places: Vec<_> = acks.iter().map(|ack| (ack["line"].as_u64(), ack["offset"].as_u64())).collect();
    assert_eq!(places, [(Some(1), Some(0)), (Some(2), Some(1)), (Some(3), Some(2))]);
    let records = lines(&house.ok(&["consume", "acked", "-o", "json"]));
    assert_eq!(records[2]["headers"][0]["value"], "test");
    let read = house.run(&["consume", "acked", "-o", "json"]);
    let summary: Value = serde_json::from_slice(&read.stderr).expect("what is said is JSON as well");
    assert_eq!((&summary["records"], &summary["bytes"]), (&Value::from(3), &Value::from(3)));
}

#[tokio::test]
async fn every_compression_comes_back_as_it_went_in() {
    let house = House::start().await;
    let input: String = (0..2_000).map(|n| format!("the same words again and again {n}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert!(
            house.produce(&[codec, "--compression", codec], input.as_bytes()).status.success(),
            "{codec}"
        );
        assert!(house.ok(&["consume", codec]) == input, "{codec}");
    }
    let verdict = house.json(&["storage", "verify"]);
    assert_eq!(verdict["ok"], true, "{verdict}");
    assert_eq!(verdict["records_checked"], 10_000, "{verdict}");
}

#[tokio::test]
async fn a_topic_lives_from_creation_to_deletion() {
    let house = House::start().await;
    let made = house.json(&[
        "topic",
        "create",
        "orders",
        "billing",
        "-p",
        "3",
        "--set",
        "max.message.bytes=2097152",
    ]);
    assert_eq!(made["topics"][1]["status"], "created");
    house.json(&["topic", "create", "never", "--dry-run"]);
    let listed = house.json(&["topic", "list"]);
    let names: Vec<_> =
        listed["topics"].as_array().expect("a list").iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["billing", "orders"]);
    assert_eq!(house.error(&["topic", "create", "orders"])["code"], "TOPIC_EXISTS");
    assert_eq!(house.run(&["topic", "create", "orders", "more"]).status.code(), Some(8));
    let both = house.run(&["topic", "describe", "orders", "nowhere", "-o", "json"]);
    let document: Value = serde_json::from_slice(&both.stdout).expect("one JSON document");
    assert_eq!((&document["topics"][0]["name"], both.status.code()), (&Value::from("orders"), Some(8)));
    assert_eq!(document["failed"][0]["error"]["code"], "TOPIC_NOT_FOUND", "{document}");
    assert_eq!(house.run(&["topic", "describe", "nowhere", "neither"]).status.code(), Some(3));
    house.json(&["topic", "add-partitions", "orders", "--total", "5"]);
    house.json(&["topic", "alter", "orders", "--unset", "max.message.bytes"]);
    let described = house.json(&["topic", "describe", "orders"]);
    assert_eq!(described["topics"][0]["partition_count"], 5);
    assert!(described["topics"][0]["created"].is_string(), "{described}");
    assert!(
        described["topics"][0]["settings"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|s| s["source"] == "default")
    );
    assert!(house.produce(&["orders", "--partition", "1"], b"a\nb\nc\n").status.success());
    let past = house.error(&["topic", "trim", "orders", "--partition", "1", "--before", "4", "--yes"]);
    assert_eq!(past["code"], "OFFSET_OUT_OF_RANGE", "{past}");
    let trimmed = house.json(&["topic", "trim", "orders", "--partition", "1", "--before", "2", "--yes"]);
    assert_eq!(trimmed["log_start"], 2);
    assert_eq!(house.ok(&["consume", "orders"]), "c\n");
    house.json(&["topic", "delete", "orders", "--yes"]);
    let missing = house.error(&["topic", "describe", "oders"]);
    assert_eq!((&missing["code"], &missing["exit_code"]), (&Value::from("TOPIC_NOT_FOUND"), &Value::from(3)));
    let missing = house.error(&["topic", "describe", "biling"]);
    assert_eq!(missing["did_you_mean"], "billing", "{missing}");
}

#[tokio::test]
async fn what_cannot_be_done_says_so_with_its_code() {
    let house = House::start().await;
    assert_eq!(house.error(&["consume", "nowhere"])["code"], "TOPIC_NOT_FOUND");
    assert_eq!(house.error(&["topic", "create", "no/slash"])["code"], "INVALID_NAME");
    assert_eq!(house.error(&["topic", "create", "t", "--set", "no.such=1"])["code"], "INVALID_SETTING");
    assert_eq!(house.error(&["topic", "create", "t", "-p", "10001"])["code"], "INVALID_PARTITIONS");
    house.ok(&["topic", "create", "t"]);
    assert_eq!(house.error(&["consume", "t", "--partition", "7"])["code"], "PARTITION_NOT_FOUND");
    assert_eq!(house.error(&["storage", "inspect", "nothing"])["exit_code"], 3);
}

#[tokio::test]
async fn storage_is_looked_into() {
    let house = House::start().await;
    let output = house.produce(&["things", "--acks-out"], b"one\ntwo\n");
    assert!(output.status.success());
    let summary = house.json(&["storage", "summary"]);
    assert_eq!(summary["classes"][0]["name"], "wal");
    assert!(summary["objects"].as_u64().expect("a number") >= 1, "{summary}");
    let key = find_object(&house.path().join(".streamhouse/store")).expect("an object");
    let object = house.json(&["storage", "inspect", &key]);
    assert_eq!(object["state"], "referenced", "{object}");
    assert_eq!(object["extents"][0]["topic"], "things");
    let swept = house.json(&["storage", "sweep"]);
    assert_eq!(swept["orphans_deleted"], 0);
}

/// The name of some WAL object below `dir`, without its ending: the object's id.
fn find_object(dir: &Path) -> Option<String> {
    let mut entries: Vec<_> =
        std::fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().find_map(|path| {
        if path.is_dir() {
            return find_object(path);
        }
        let is_wal = path.extension().is_some_and(|extension| extension == "wal");
        is_wal.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).flatten()
    })
}

#[tokio::test]
async fn a_damaged_object_is_found_and_ends_with_9() {
    let house = House::start().await;
    assert!(house.produce(&["things"], b"two\n").status.success());
    let store = house.path().join(".streamhouse/store");
    let id = find_object(&store).expect("an object");
    let path = find_path(&store, &format!("{id}.wal")).expect("its file");
    let mut bytes = std::fs::read(&path).expect("the object");
    let at = bytes.windows(3).position(|window| window == b"two").expect("the record");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("the damage");
    let output = house.run(&["storage", "verify", "-o", "json"]);
    assert_eq!(output.status.code(), Some(9), "{}", String::from_utf8_lossy(&output.stdout));
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(verdict["ok"], false);
    assert_eq!(verdict["faults"][0]["topic"], "things", "{verdict}");
}

fn find_path(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() { find_path(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

#[tokio::test]
async fn a_benchmark_proves_its_records_and_leaves_nothing() {
    let house = House::start().await;
    for args in [
        &["bench", "-n", "2000"][..],
        &["bench", "produce", "-n", "500", "--partitions", "3", "--producers", "2"],
    ] {
        let run = house.json(args);
        assert_eq!(run["integrity"]["ok"], true, "{run}");
        assert_eq!(run["integrity"]["records_checked"], run["produce"]["records"], "{run}");
    }
    let run = house.json(&["bench", "produce", "--unary", "-n", "20"]);
    assert_eq!(run["produce"]["records"], 20);
    assert_eq!(house.json(&["topic", "list"])["topics"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn following_readers_get_what_is_written_and_closed_pipes_end_them() {
    use std::io::{BufRead as _, BufReader};
    let house = House::start().await;
    house.ok(&["topic", "create", "live"]);
    let mut child = house
        .command(&["consume", "live", "--follow", "-n", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut read = BufReader::new(child.stdout.take().expect("stdout is piped"));
    for word in ["first", "second"] {
        assert!(house.produce(&["live"], format!("{word}\n").as_bytes()).status.success());
        let mut line = String::new();
        read.read_line(&mut line).expect("a line");
        assert_eq!(line, format!("{word}\n"));
    }
    assert!(child.wait().expect("it ends by itself").success());

    let many: String = (0..50_000).map(|n| format!("line {n} of many\n")).collect();
    assert!(house.produce(&["many"], many.as_bytes()).status.success());
    let mut child = house
        .command(&["consume", "many"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    let mut read = BufReader::new(child.stdout.take().expect("stdout is piped"));
    read.read_line(&mut line).expect("a line");
    drop(read);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_stopped_node_starts_again_with_everything_it_had() {
    let mut house = House::start().await;
    assert!(house.produce(&["kept"], b"before\n").status.success());
    assert!(house.node.stop().expect("it stops").success(), "{}", house.node.log());
    house.node.start().await.expect("it starts again");
    assert!(house.produce(&["kept"], b"after\n").status.success());
    assert_eq!(house.ok(&["consume", "kept"]), "before\nafter\n");
    let second = Command::new(binary())
        .args([
            "dev",
            "--kafka-addr",
            "127.0.0.1:0",
            "--grpc-addr",
            "127.0.0.1:0",
            "--http-addr",
            "127.0.0.1:0",
            "--internal-addr",
            "127.0.0.1:0",
        ])
        .current_dir(house.path())
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    assert_eq!(second.status.code(), Some(4), "a second node took the data directory of the first");
}

#[tokio::test]
async fn an_address_or_a_directory_that_cannot_be_had_is_not_called_a_bug() {
    let house = House::start().await;
    let file = house.path().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    let elsewhere = house.path().join("elsewhere");
    let elsewhere = elsewhere.to_str().expect("a path in UTF-8");
    for (data, grpc, said) in
        [(elsewhere, house.node.grpc(), "listeners.grpc"), (file, "127.0.0.1:0", "data directory")]
    {
        let free =
            ["--kafka-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--internal-addr", "127.0.0.1:0"];
        let output = Command::new(binary())
            .args(["dev", "--data-dir", data, "--grpc-addr", grpc])
            .args(free)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(said) && !text.contains("bug"), "{text}");
    }
}

#[tokio::test]
async fn a_stopped_cluster_is_looked_at_without_a_server() {
    let mut house = House::start().await;
    assert!(house.produce(&["kept"], b"one\ntwo\n").status.success());
    let refused = house.error(&["storage", "verify", "--data-dir", ".streamhouse"]);
    assert_eq!(refused["code"], "DATA_DIR_IN_USE", "{refused}");
    assert!(house.node.stop().expect("it stops").success(), "{}", house.node.log());
    let verdict = house.json(&["storage", "verify", "--data-dir", ".streamhouse"]);
    assert_eq!(
        (&verdict["ok"], &verdict["records_checked"]),
        (&Value::from(true), &Value::from(2)),
        "{verdict}"
    );
    let summary = house.json(&["storage", "summary", "--data-dir", ".streamhouse"]);
    assert!(summary["objects"].as_u64().expect("a number") >= 1, "{summary}");
    let key = find_object(&house.path().join(".streamhouse/store")).expect("an object");
    let object = house.json(&["storage", "inspect", &key, "--data-dir", ".streamhouse"]);
    assert_eq!(object["extents"][0]["topic"], "kept", "{object}");
    let refused =
        house.error(&["storage", "verify", "--data-dir", ".streamhouse", "--server", "127.0.0.1:1"]);
    assert_eq!(refused["exit_code"], 2, "{refused}");
    house.node.start().await.expect("it starts again");
    assert_eq!(house.ok(&["consume", "kept"]), "one\ntwo\n");
}

#[tokio::test]
async fn an_interrupted_command_says_what_it_did_and_ends_with_130() {
    use std::io::{BufRead as _, BufReader};
    let house = House::start().await;
    assert!(house.produce(&["endless"], b"one\n").status.success());
    let mut reader = house
        .command(&["consume", "endless", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    BufReader::new(reader.stdout.as_mut().expect("stdout is piped")).read_line(&mut line).expect("a line");
    let mut writer = house
        .command(&["produce", "endless", "--acks-out"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut input = writer.stdin.take().expect("stdin is piped");
    input.write_all(b"two\n").expect("it reads");
    BufReader::new(writer.stdout.as_mut().expect("stdout is piped")).read_line(&mut line).expect("an ack");
    BufReader::new(reader.stdout.as_mut().expect("stdout is piped")).read_line(&mut line).expect("another");
    for (child, said) in [(reader, "2 records, 1 partition"), (writer, "1 record, 1 partition, ack p50")] {
        let asked = Command::new("kill").arg("-INT").arg(child.id().to_string()).status().expect("kill runs");
        assert!(asked.success());
        // Its output stays open: who writes into a closed pipe ends by that, and well.
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_node_runs_from_a_configuration_file() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("node.toml");
    let text = format!(
        "[node]\ndata_dir = \"{0}/data\"\n[listeners]\ngrpc = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n[store]\nurl = \"file://{0}/store\"\n[log]\nformat = \"json\"\n",
        folder.path().display()
    );
    std::fs::write(&file, text).expect("a file");
    let log = folder.path().join("node.log");
    let mut child = Command::new(binary())
        .args(["server", "--config"])
        .arg(&file)
        .args(["-o", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).expect("a file for the log"))
        .spawn()
        .expect("the binary runs");
    let mut document = String::new();
    for line in BufReader::new(child.stdout.as_mut().expect("stdout is piped")).lines() {
        document.push_str(&line.expect("text"));
        if document.ends_with('}') {
            break;
        }
    }
    let ready: Value = serde_json::from_str(&document).expect("a document");
    assert_eq!(ready["ready"], true);
    let server = ready["grpc"].as_str().expect("an address");
    // Topics are made on purpose here, not by the first write.
    let missing =
        Command::new(binary()).args(["consume", "t", "--server", server]).output().expect("it runs");
    assert_eq!(missing.status.code(), Some(3), "{}", String::from_utf8_lossy(&missing.stderr));
    let made =
        Command::new(binary()).args(["topic", "create", "t", "--server", server]).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let asked = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().expect("kill runs");
    assert!(asked.success());
    assert!(child.wait().expect("it ends").success());
    let log = std::fs::read_to_string(&log).expect("it logs");
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    for said in ["node is ready", "node stops"] {
        assert!(lines.iter().any(|line| line["message"] == said), "`{said}` is not in the log:\n{log}");
    }
}
