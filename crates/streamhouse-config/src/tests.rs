use super::*;

fn sources(file: &str) -> (ConfigSources, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("streamhouse.toml");
    std::fs::write(&path, file).expect("written");
    (ConfigSources { file: Some(path), ..ConfigSources::default() }, folder)
}

#[track_caller]
fn refused(file: &str, parts: &[&str]) {
    let (sources, _folder) = sources(file);
    let error = check_config(&sources).expect_err("refused").to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing in:\n{error}");
    }
}

const STORE: &str = "[store]\nurl = \"memory:///\"\n";

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let config = serde_json::to_value(Config::default()).expect("plain data");
    let mut fields = Vec::new();
    for (section, entries) in config.as_object().expect("sections") {
        fields.extend(entries.as_object().expect("a section").keys().map(|name| format!("{section}.{name}")));
    }
    let mut rows: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    fields.sort();
    rows.sort();
    assert_eq!(fields, rows);
}

#[test]
fn a_typo_is_refused_with_a_suggestion() {
    refused(
        "[wal]\nflush_intervall = \"5ms\"\n",
        &["wal.flush_intervall", "did you mean `wal.flush_interval`?"],
    );
    refused("[store]\nflush_bytes = 1\n", &["did you mean `wal.flush_bytes`?"]);
    refused("[zzz]\nqqq = 1\n", &["there is no setting `zzz.qqq`"]);
}

#[test]
fn what_does_not_exist_yet_is_refused_by_name() {
    let single = "[listeners]\nkafka_advertise = \"single-endpoint\"\n";
    refused(&format!("{STORE}{single}"), &["listeners.advertised_kafka", "the one address of the cluster"]);
    refused("[listeners]\nkafka_advertise = \"both\"\n", &["`both`", "`nodes`", "`single-endpoint`"]);
    refused("[storage]\nsegment_bytes = 1\n", &["storage.segment_bytes", "come with merging"]);
    refused("[listeners]\nkafka = \"0.0.0.0:9092\"\n", &["listeners.advertised_kafka", "must be set"]);
    refused("[listeners]\ninternal = \"[::]:9095\"\n", &["listeners.advertised_internal", "must be set"]);
    refused("[listeners]\nadvertised_grpc = \"0.0.0.0:9094\"\n", &["listeners.advertised_grpc", "reach"]);
    refused("[storage]\nsegment_bytes = \"64MiB\"\n", &["storage.segment_bytes"]);
    refused(&format!("{STORE}[cluster]\nvoters = 4\n"), &["cluster.voters"]);
    refused(&format!("{STORE}[cluster]\nseeds = [\"a\"]\n"), &["cluster.seeds"]);
    refused(&format!("{STORE}[cluster]\nseeds = \",\"\n"), &["cluster.seeds", "empty places"]);
    refused(&format!("{STORE}[cluster]\nseeds = \"a:9094,\"\n"), &["cluster.seeds", "empty places"]);
    refused(&format!("{STORE}[node]\nroles = [\"writer\"]\n"), &["node.roles"]);
}

#[test]
fn every_problem_is_told_at_once() {
    refused("[log]\nlevle = \"info\"\n[wal]\nflush_bytes = \"many\"\n", &["log.levle", "`many` is no value"]);
    refused("[listeners]\ngrpc = \"nowhere\"\n[node]\nid = 0\n", &["listeners.grpc", "node.id", "store.url"]);
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    refused("[node]\nid = \"one\"\n", &["node.id", "a whole number"]);
    refused("[wal]\nflush_interval = 5\n", &["wal.flush_interval", "time span"]);
    refused("[store]\nallow_http = 1\n", &["store.allow_http", "true or false"]);
    refused("[store]\nsecret_access_key = 12345\n", &["store.secret_access_key", "`…` is no value"]);
    refused("[store]\nhedge = \"always\"\n", &["`always`", "`auto`", "`off`"]);
    refused(&format!("{STORE}[limits]\ndisk_cache_bytes = 1\n"), &["limits.disk_cache_bytes", "64MiB"]);
    let groups = "[groups]\ninitial_rebalance_delay = \"1h\"\nsession_timeout_max = \"1s\"\nmembers_max = 0\noffset_retention = \"1s\"\n";
    refused(
        &format!("{STORE}{groups}"),
        &[
            "groups.initial_rebalance_delay",
            "groups.session_timeout_max",
            "groups.members_max",
            "groups.offset_retention",
        ],
    );
    refused("not toml", &["is not valid TOML"]);
}

#[test]
fn a_value_of_the_right_kind_that_cannot_be_is_refused_by_name() {
    refused(
        &format!("{STORE}[log]\nformat = \"xml\"\n[limits]\nmax_batch_bytes = 9999999999\n"),
        &[
            "`log.format` cannot be \"xml\" (file ",
            "expected `text` or `json`",
            "`limits.max_batch_bytes` cannot be",
        ],
    );
}

#[test]
fn a_log_level_with_a_typo_is_refused() {
    for level in ["loud", "inof", "info,streamhouse_broker=debgu", "streamhouse_broker", ""] {
        refused(&format!("{STORE}[log]\nlevel = \"{level}\"\n"), &["`log.level`", "is no level"]);
    }
}

#[test]
fn what_nothing_would_read_in_the_url_of_a_store_is_refused() {
    let refused_url =
        |url: &str, part: &str| refused(&format!("[store]\nurl = \"{url}\"\n"), &["`store.url`", part]);
    refused_url("s3://key:secret@bucket/prefix", "no place for credentials");
    refused_url("s3://bucket/prefix?region=eu-west-1", "ends before `?`");
    refused_url("file:///data/what#1", "ends before `?` and `#`");
    refused_url("s3://bucket:9000/prefix", "no place for a port");
    refused_url("file://data/streamhouse", "names no absolute path");
    let error = check_config(&ConfigSources {
        flags: vec![("store.url".into(), "s3://key:hush-hush@bucket".into())],
        ..ConfigSources::default()
    });
    assert!(!error.expect_err("refused").to_string().contains("hush-hush"));
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let (mut sources, _folder) = sources(&format!("{STORE}[log]\nlevel = \"warn\"\n[node]\nzone = \"a\"\n"));
    sources.environment.insert("STREAMHOUSE_LOG__LEVEL".into(), "debug".into());
    sources.environment.insert("STREAMHOUSE_NODE__ZONE".into(), "b".into());
    sources.environment.insert("STREAMHOUSE_SERVER".into(), "not a setting".into());
    sources.flags.push(("node.zone".into(), "c".into()));
    let config = check_config(&sources).expect("usable");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.node.zone, "c");
    let lines = print_config(&sources).expect("usable");
    let origin = |key: &str| lines.iter().find(|line| line.key == key).map(|line| line.origin.clone());
    assert_eq!(origin("log.level").as_deref(), Some("environment STREAMHOUSE_LOG__LEVEL"));
    assert_eq!(origin("node.zone").as_deref(), Some("flag --node.zone"));
    assert_eq!(origin("node.id").as_deref(), Some("default"));
}

#[test]
fn a_variable_with_a_typo_is_refused() {
    let mut sources = ConfigSources::default();
    sources.environment.insert("STREAMHOUSE_WAL__FLUSH_BYTE".into(), "1".into());
    let error = check_config(&sources).expect_err("refused").to_string();
    assert!(error.contains("environment STREAMHOUSE_WAL__FLUSH_BYTE"), "{error}");
    assert!(error.contains("did you mean `wal.flush_bytes`?"), "{error}");
}

#[test]
fn secrets_are_never_shown() {
    let (mut sources, _folder) = sources(STORE);
    sources.environment.insert("AWS_SECRET_ACCESS_KEY".into(), "hush-hush".into());
    sources.environment.insert("AWS_ACCESS_KEY_ID".into(), "me".into());
    let config = check_config(&sources).expect("usable");
    assert!(!format!("{config:?}").contains("hush-hush"));
    let lines = print_config(&sources).expect("usable");
    assert!(!format!("{lines:?}").contains("hush-hush"));
    let secret = lines.iter().find(|line| line.key == "store.secret_access_key").expect("a row");
    assert_eq!(secret.value, "…");
    assert_eq!(secret.origin, "environment AWS_SECRET_ACCESS_KEY");
    let size = lines.iter().find(|line| line.key == "wal.flush_bytes").expect("a row");
    assert_eq!(size.value, 8 << 20, "numbers are numbers");
}

#[test]
fn the_flush_interval_follows_the_store() {
    let (local, _folder) = sources("[store]\nurl = \"file:///tmp/x\"\n");
    let (remote, _folder) = sources("[store]\nurl = \"s3://bucket\"\n");
    let millis =
        |sources| check_config(sources).expect("usable").wal.flush_interval.map(|wait| wait.as_millis());
    assert_eq!(millis(&local), Some(2));
    assert_eq!(millis(&remote), Some(50));
}

#[test]
fn dev_keeps_its_store_in_its_data_directory() {
    let sources = ConfigSources { preset: Preset::Dev, ..ConfigSources::default() };
    let config = check_config(&sources).expect("usable");
    assert!(config.store.url.starts_with("file:///"), "{}", config.store.url);
    assert!(config.store.url.ends_with("/.streamhouse/store/"), "{}", config.store.url);
    assert!(config.topics.auto_create);
    assert_eq!(config.log.level, "warn", "whoever tries it out wants to read the greeting");
}

#[test]
fn the_reference_page_is_the_one_in_the_repository() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/configuration.md");
    let made = reference_page();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path, &made).expect("written");
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == made,
        "run this test with UPDATE_REFERENCE=1 to make docs/reference/configuration.md anew"
    );
}

#[test]
fn the_disk_cache_lies_in_the_data_directory_and_is_off_unless_it_is_asked_for() {
    let text = format!("{STORE}[node]\ndata_dir = \"/d\"\n");
    for (limit, bytes) in [("", 0), ("[limits]\ndisk_cache_bytes = \"1GiB\"\n", 1 << 30)] {
        let (sources, _folder) = sources(&format!("{text}{limit}"));
        let disk = check_config(&sources).expect("usable").broker().disk_cache.expect("told");
        assert_eq!((disk.dir.to_str(), disk.capacity_bytes), (Some("/d/cache"), bytes));
    }
}
