//! Several nodes, as a person runs and operates them.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use streamhouse_client::StreamHouse;
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::shell::Shell;

/// What takes seconds may take this long on a busy machine.
const OVER_A_MINUTE: Duration = Duration::from_secs(90);

/// `dev --nodes 3`, until it is dropped.
struct Dev {
    child: Child,
    /// What it and its nodes write to stderr, over all lives.
    log: PathBuf,
    /// What it said once all nodes were ready.
    ready: Value,
}

impl Dev {
    fn start(shell: &Shell) -> anyhow::Result<Self> {
        let mut arguments = vec!["dev", "--nodes", "3", "-o", "json", "-q"];
        for listener in ["--kafka-addr", "--grpc-addr", "--internal-addr", "--http-addr"] {
            arguments.extend([listener, "127.0.0.1:0"]);
        }
        let log = shell.path().join("dev.log");
        let written = File::options().create(true).append(true).open(&log)?;
        let mut command = shell.command(&arguments);
        command.env("STREAMHOUSE_LOG__LEVEL", "info").stdout(Stdio::piped()).stderr(written);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut dev = Self { child, log, ready: Value::Null };
        let said = serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter().next();
        dev.ready = said.with_context(|| format!("it was never ready: {}", dev.log()))??;
        Ok(dev)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails when a line of the log has one of these levels.
    fn logs_no(&self, levels: &[&str]) -> anyhow::Result<()> {
        let log = self.log();
        let loud = |line: &&str| levels.iter().any(|level| line.contains(&format!(" {level} ")));
        let loud: Vec<&str> = log.lines().filter(loud).collect();
        ensure!(loud.is_empty(), "{loud:#?}");
        Ok(())
    }

    fn pid(&self, place: usize) -> anyhow::Result<Pid> {
        let pid = self.ready["pids"][place].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.with_context(|| format!("no pid in {}", self.ready))
    }

    /// Asks it to stop, as Ctrl-C does.
    fn stop(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "it stopped with {status}");
        Ok(())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It takes its nodes along.
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        drop(self.child.wait());
    }
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

/// What `consume` finds, in the order of the numbers.
fn consumed(shell: &Shell) -> Vec<u32> {
    let mut found: Vec<u32> =
        shell.ok(&["consume", "numbers"]).lines().map(|line| line.parse().expect("a number")).collect();
    found.sort_unstable();
    found
}

/// Looks at the nodes until they are as wanted.
async fn nodes(shell: &Shell, what: &str, wanted: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let mut last = Vec::new();
    for _ in 0..600 {
        looks.tick().await;
        last = shell.json(&["node", "list"])["nodes"].as_array().expect("a list").clone();
        if wanted(&last) {
            return Ok(last);
        }
    }
    anyhow::bail!("not {what}: {last:?}")
}

fn homes(nodes: &[Value]) -> Vec<u64> {
    nodes.iter().map(|node| node["homes"].as_u64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_of_dev_outlive_one_of_them_and_come_back_with_everything() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let shell = Shell::new(folder.path());
    let mut dev = Dev::start(&shell)?;
    ensure!(dev.ready["nodes"].as_array().map(Vec::len) == Some(3), "{}", dev.ready);
    shell.ok(&["cluster", "wait", "--nodes", "3", "--timeout", "60s"]);
    shell.ok(&["topic", "create", "numbers", "--partitions", "6"]);
    ensure!(shell.produce(&["numbers"], numbers(0..500).as_bytes()).status.success(), "all three run");
    kill_process(dev.pid(1)?, Signal::KILL)?;
    ensure!(shell.produce(&["numbers"], numbers(500..1_000).as_bytes()).status.success(), "two run");
    ensure!(consumed(&shell) == (0..1_000).collect::<Vec<_>>(), "what was written, once");
    let away = |nodes: &[Value]| nodes.iter().filter(|node| node["state"] != "serving").count() == 1;
    nodes(&shell, "one of them away", away).await?;
    ensure!(shell.run(&["cluster", "health"]).status.code() == Some(7), "it is not well");

    kill_process(dev.pid(2)?, Signal::KILL)?;
    let away = |nodes: &[Value]| nodes.iter().filter(|node| node["state"] != "serving").count() == 2;
    nodes(&shell, "two of them away", away).await?;
    let health: Value = serde_json::from_slice(&shell.run(&["cluster", "health", "-o", "json"]).stdout)?;
    let failed = |check: &&Value| check["ok"] == false;
    let failed: Vec<&Value> = health["checks"]
        .as_array()
        .context("checks")?
        .iter()
        .filter(failed)
        .map(|check| &check["name"])
        .collect();
    // Of the others nothing is known any more.
    ensure!(failed == ["leader", "nodes", "store", "voters", "homes"], "{health}");
    let alone = shell.produce(&["numbers", "--timeout", "3s"], b"never\n");
    ensure!(!alone.status.success(), "nobody can agree");
    ensure!(consumed(&shell).len() == 1_000, "what is there can be read");
    dev.stop()?;

    let _dev = Dev::start(&shell)?;
    shell.ok(&["cluster", "wait", "--nodes", "3", "--timeout", "60s"]);
    ensure!(consumed(&shell) == (0..1_000).collect::<Vec<_>>(), "what was written, after a restart");
    Ok(())
}

/// Whether a process has ended, be it that nobody has asked how.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_of_dev_begin_without_a_warning_and_end_when_it_is_killed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut dev = Dev::start(&Shell::new(folder.path()))?;
    dev.logs_no(&["WARN", "ERROR"])?;
    let pids = [dev.pid(0)?, dev.pid(1)?, dev.pid(2)?];
    kill_process(Pid::from_child(&dev.child), Signal::KILL)?;
    dev.child.wait()?;
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let ended = async {
        while !pids.into_iter().all(has_ended) {
            looks.tick().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), ended).await;
    for pid in pids.into_iter().filter(|pid| !has_ended(*pid)) {
        kill_process(pid, Signal::KILL)?;
    }
    in_time.context("a node runs on")
}

/// How long the nodes took to have it agreed that they stop, by the log.
fn registrations(log: &str) -> Vec<f64> {
    let stages =
        log.lines().filter(|line| line.contains("drain stage done") && line.contains("registration"));
    let took = stages.filter_map(|line| line.rsplit("took=").next());
    // Anything but whole seconds is shorter.
    let seconds = |took: &str| took.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or(0.0);
    took.map(seconds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_stops_without_waiting_for_a_majority_that_is_gone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let shell = Shell::new(folder.path());
    for lost in [None, Some(0)] {
        let mut dev = Dev::start(&shell)?;
        shell.ok(&["cluster", "wait", "--nodes", "3", "--timeout", "60s"]);
        let before = registrations(&dev.log()).len();
        if let Some(lost) = lost {
            kill_process(dev.pid(lost)?, Signal::KILL)?;
            let away = |nodes: &[Value]| nodes.iter().filter(|node| node["state"] != "serving").count() == 1;
            nodes(&shell, "one of them away", away).await?;
        }
        dev.stop()?;
        let took = registrations(&dev.log()).split_off(before);
        ensure!(took.len() == 3 - usize::from(lost.is_some()), "{took:?}: {}", dev.log());
        // The last one may not have heard that the one before it has stopped.
        let waited = took.iter().filter(|seconds| **seconds >= 4.0).count();
        ensure!(waited <= 1, "{took:?}: {}", dev.log());
        dev.logs_no(&["ERROR"])?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_and_homes_go_where_they_are_sent() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(3, |node, _| node)?;
    cluster.start().await?;
    let shell = Shell::at(cluster.folder(), &cluster.servers());
    shell.ok(&["topic", "create", "numbers", "--partitions", "9"]);
    ensure!(shell.produce(&["numbers"], numbers(0..500).as_bytes()).status.success(), "all three run");

    for voter in ["2", "3", "1"] {
        let leader = shell.json(&["cluster", "raft", "transfer", voter])["leader_id"].as_u64();
        ensure!(leader == voter.parse().ok(), "{leader:?} leads and not {voter}");
    }
    let leads = |nodes: &[Value]| nodes.iter().filter(|node| node["leader"] == true).count() == 1;
    let before = nodes(&shell, "led by one", leads).await?;
    ensure!(before[0]["leader"] == true, "{before:?}");

    shell.ok(&["node", "drain", "2", "--wait", "--timeout", "60s"]);
    let drained = nodes(&shell, "drained", |nodes| nodes[1]["state"] == "drained").await?;
    ensure!(homes(&drained)[1] == 0 && homes(&drained).iter().sum::<u64>() == 9, "{drained:?}");
    let error = shell.error(&["cluster", "raft", "transfer", "2"]);
    ensure!(error["message"].as_str().is_some_and(|text| text.contains("node 2 is drained")), "{error}");
    shell.ok(&["node", "undrain", "2"]);
    nodes(&shell, "serving", |nodes| nodes.iter().all(|node| node["state"] == "serving")).await?;
    let plan = shell.json(&["cluster", "rebalance", "--plan"]);
    ensure!(plan["moved"] == false, "a plan moves nothing: {plan}");
    shell.json(&["cluster", "rebalance"]);
    let even = |nodes: &[Value]| homes(nodes) == [3, 3, 3];
    nodes(&shell, "even", even).await?;
    let again = shell.json(&["cluster", "rebalance"]);
    ensure!(again["moved"] == false && again["moves"].as_array().is_some_and(Vec::is_empty), "{again}");

    ensure!(shell.produce(&["numbers"], numbers(500..1_000).as_bytes()).status.success(), "after all that");
    ensure!(consumed(&shell) == (0..1_000).collect::<Vec<_>>(), "what was written, once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_only_a_name_are_let_in_by_it_and_come_back() -> anyhow::Result<()> {
    let mut cluster = Cluster::with_one_name(3, |node, _| node)?;
    cluster.start().await?;
    let info = |servers: String| async move {
        anyhow::Ok(StreamHouse::connect(&servers).await?.admin().info().await?.cluster_id)
    };
    let founded = info(cluster.servers()).await?;
    for number in 1..=3 {
        let status = cluster.node(number).stop()?;
        ensure!(status.success(), "{}", cluster.node(number).log());
        cluster.node(number).start().await?;
        let here = cluster.node(number).grpc().to_owned();
        ensure!(info(here).await? == founded, "node {number} is of another cluster");
        cluster.well().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_a_cluster_less_safe_is_told_or_asked_before() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(3, |node, _| node)?;
    cluster.start().await?;
    let shell = Shell::at(cluster.folder(), &cluster.servers());
    shell.ok(&["topic", "create", "numbers", "--partitions", "9"]);
    let leader = cluster.leader().await?.to_string();

    let plan = shell.json(&["node", "drain", &leader, "--dry-run"]);
    let moved: u64 =
        plan["homes_by_node"].as_object().context("homes")?.values().filter_map(Value::as_u64).sum();
    ensure!(moved == 3 && plan["node"]["homes"] == 3, "{plan}");
    ensure!(plan["homes_by_node"][&leader].is_null(), "{plan}");
    ensure!(plan["successor"].as_u64().is_some_and(|next| next.to_string() != leader), "{plan}");
    ensure!(plan["against"].is_null() && plan["node"]["state"] == "serving", "{plan}");
    let said = shell.ok(&["node", "drain", &leader, "--dry-run"]);
    for part in [" to n", " would lead", "keeps its vote", "against it  nothing", "nothing was changed"] {
        ensure!(said.contains(part), "`{part}` is missing in: {said}");
    }

    let error = shell.error(&["cluster", "raft", "voters", "1"]);
    ensure!(error["code"] == "CONSENT_MISSING" && error["exit_code"] == 2, "{error}");
    let objection = "with 1 voter instead of 3 the cluster outlives the loss of 0, not of 1";
    ensure!(error["message"].as_str().is_some_and(|text| text.starts_with(objection)), "{error}");
    ensure!(shell.json(&["cluster", "health"])["wanted_voters"] == 3, "it was not asked");
    ensure!(shell.json(&["cluster", "raft", "voters", "1", "--yes"])["wanted_voters"] == 1, "it is meant");
    // More voters are no risk.
    ensure!(shell.json(&["cluster", "raft", "voters", "3"])["wanted_voters"] == 3, "as before");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_says_so_and_refuses_what_it_cannot_do() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(3, |node, _| node)?;
    cluster.start().await?;
    let shell = Shell::at(cluster.folder(), cluster.nodes[0].grpc());
    let leads = |shell: &Shell| -> anyhow::Result<bool> {
        let health: Value = serde_json::from_slice(&shell.run(&["cluster", "health", "-o", "json"]).stdout)?;
        Ok(health["checks"][0]["ok"] == true)
    };
    ensure!(leads(&shell)?, "somebody leads");
    cluster.node(2).kill();
    cluster.node(3).kill();
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let lost = async {
        while leads(&shell)? {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(OVER_A_MINUTE, lost).await??;
    for node in shell.json(&["node", "list"])["nodes"].as_array().context("a list")? {
        let state = if node["id"] == 1 { "serving" } else { "unknown" };
        ensure!(node["state"] == state && node["leader"] == false, "{node}");
    }
    // Nothing of it is in the log of a leader that is alone, where it could come to life later.
    let refused = shell.run(&["topic", "create", "never", "--timeout", "20s", "-o", "json"]);
    let told: Value = serde_json::from_slice(&refused.stderr)?;
    ensure!(told["error"]["code"] == "METADATA_UNAVAILABLE", "{told}");
    ensure!(told["error"]["may_have_happened"] == false, "{told}");

    cluster.node(1).kill();
    cluster.node(1).start_and_wait(Duration::from_millis(1)).await?;
    // It is not ready, and tells how things stand.
    let told = async {
        while !cluster.node(1).log().contains("it waits for a majority of the voters") {
            looks.tick().await;
        }
    };
    tokio::time::timeout(OVER_A_MINUTE, told).await?;
    ensure!(!leads(&shell)?, "nobody leads");
    cluster.node(2).start().await?;
    shell.ok(&["topic", "create", "now"]);
    ensure!(shell.json(&["topic", "list"])["topics"].as_array().map(Vec::len) == Some(1), "one was made");
    Ok(())
}
