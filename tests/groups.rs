//! Consumer groups over the real binary: members share, fall silent and take over; what they commit stays.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use streamhouse_client::{GroupInfo, GroupState, Mode, NewTopic, StreamHouse};
use streamhouse_tests::node::{Node, binary};

/// For so long a state may not come, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 4;

/// A node, and what talks to it.
struct House {
    folder: tempfile::TempDir,
    node: Node,
}

impl House {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut node = Node::new(&folder.path().join(".streamhouse"));
        node.start().await.expect("the node starts");
        Self { folder, node }
    }

    async fn client(&self) -> StreamHouse {
        StreamHouse::connect(self.node.grpc()).await.expect("the node answers")
    }

    async fn topic(&self, name: &str, partitions: u32) {
        let topic = NewTopic::new(name).partitions(partitions);
        self.client().await.admin().create_topic(topic, Mode::Apply).await.expect("the topic is made");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .args(["--server", self.node.grpc()])
            .current_dir(self.folder.path())
            .env_remove("STREAMHOUSE_SERVER")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}: {said}\n{}", output.status, self.node.log());
        String::from_utf8(output.stdout).expect("results are text")
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let words: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&words)).expect("one JSON document")
    }

    /// The error of a command that has to fail.
    #[track_caller]
    fn error(&self, args: &[&str]) -> Value {
        let words: Vec<&str> = args.iter().copied().chain(["-o", "json", "-q"]).collect();
        let output = self.run(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        let document: Value =
            serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{args:?}: {said}"));
        assert_eq!(document["error"]["exit_code"].as_i64(), output.status.code().map(i64::from), "{said}");
        document["error"].clone()
    }

    /// Writes so many records to a partition.
    fn produce(&self, topic: &str, partition: u32, records: u32) {
        let partition = partition.to_string();
        let mut child = self
            .command(&["produce", topic, "--partition", &partition, "-q"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines: String = (0..records).map(|number| format!("record {number}\n")).collect();
        let mut input = child.stdin.take().expect("stdin is piped");
        input.write_all(lines.as_bytes()).expect("the lines are taken");
        drop(input);
        assert!(child.wait().expect("the command ends").success());
    }

    /// A member that goes on until it is stopped.
    fn member(&self, name: &str, topic: &str, group: &str) -> Member {
        let output = self.folder.path().join(name);
        let child = self
            .command(&["consume", topic, "--group", group, "--follow", "-o", "json"])
            .stdout(File::create(&output).expect("a file for the records"))
            .stderr(File::create(output.with_extension("err")).expect("a file for the talk"))
            .spawn()
            .expect("the binary runs");
        Member { child, output }
    }

    /// Waits until the group is as it should be.
    async fn until(&self, group: &str, what: &str, is_so: impl Fn(&GroupInfo) -> bool) -> GroupInfo {
        let admin = self.client().await.admin();
        let mut last = None;
        let wait = async {
            loop {
                match admin.describe_group(group).await {
                    Ok(found) if is_so(&found) => return found,
                    found => last = Some(found),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{group}: {what} within {PATIENCE:?}: {last:?}\n{}", self.node.log()),
        }
    }

    /// Waits until all that was committed is all that there is.
    async fn caught_up(&self, group: &str, records: u64) {
        let committed = |group: &GroupInfo| -> u64 {
            group.partitions.iter().filter_map(|partition| partition.committed).map(|at| at.get()).sum()
        };
        self.until(group, "everything is committed", |group| committed(group) == records).await;
    }
}

/// A running `consume --group`.
struct Member {
    child: Child,
    output: PathBuf,
}

impl Member {
    /// Partition and offset of each record that it printed whole.
    fn printed(&self) -> Vec<(u64, u64)> {
        printed(&self.output)
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Asks it to end, as Ctrl-C does.
    fn interrupt(&mut self) -> Option<i32> {
        let asked = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        assert!(asked.expect("kill runs").success());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn printed(output: &Path) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(output).expect("records are text");
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let place = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("one object a line");
        (record["partition"].as_u64().expect("a number"), record["offset"].as_u64().expect("a number"))
    };
    whole.lines().map(place).collect()
}

/// How many partitions each member reads, the fewest first.
fn shares(group: &GroupInfo) -> Vec<usize> {
    let mut shares: Vec<usize> = group.members.iter().map(|member| member.assigned.len()).collect();
    shares.sort_unstable();
    shares
}

fn is_shared(group: &GroupInfo, expected: &[usize]) -> bool {
    group.state == GroupState::Stable && shares(group) == expected
}

#[tokio::test]
async fn members_share_a_topic_and_one_takes_over_from_one_that_is_killed() {
    let house = House::start().await;
    house.topic("shared", PARTITIONS).await;
    let write = |records| (0..PARTITIONS).for_each(|partition| house.produce("shared", partition, records));
    let all = |records: u64| -> BTreeSet<(u64, u64)> {
        (0..u64::from(PARTITIONS))
            .flat_map(|partition| (0..records).map(move |offset| (partition, offset)))
            .collect()
    };
    write(50);
    let mut first = house.member("first", "shared", "readers");
    house.until("readers", "one member reads everything", |group| is_shared(group, &[4])).await;
    house.caught_up("readers", 200).await;
    assert_eq!(first.printed().into_iter().collect::<BTreeSet<_>>(), all(50));

    let mut second = house.member("second", "shared", "readers");
    house.until("readers", "two members share", |group| is_shared(group, &[2, 2])).await;
    write(50);
    house.caught_up("readers", 400).await;
    let (one, other) = (first.printed(), second.printed());
    assert_eq!((one.len(), other.len()), (300, 100), "a record goes to one of them, once");
    assert_eq!(one.into_iter().chain(other).collect::<BTreeSet<_>>(), all(100));

    second.kill();
    write(50);
    house.until("readers", "the one that is left reads everything", |group| is_shared(group, &[4])).await;
    house.caught_up("readers", 600).await;
    let read: Vec<_> = first.printed().into_iter().chain(second.printed()).collect();
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), all(150));

    assert_eq!(first.interrupt(), Some(130));
    let left = house.until("readers", "nobody is left", |group| group.members.is_empty()).await;
    assert_eq!((left.state, left.lag_records), (GroupState::Empty, 0));
}

#[tokio::test]
async fn what_is_committed_survives_a_restart_and_the_lag_is_told() {
    let mut house = House::start().await;
    house.topic("orders", 1).await;
    house.produce("orders", 0, 100);
    let consume = ["consume", "orders", "--group", "billing", "-o", "json"];
    let first = house.ok(&[&consume[..], &["-n", "40"]].concat());
    assert_eq!(first.lines().count(), 40);
    // The time of the cluster goes on with what is written.
    house.produce("orders", 0, 1);

    let check = |house: &House| {
        let document = house.json(&["group", "describe", "billing"]);
        let group = &document["groups"][0];
        assert_eq!(
            (group["state"].as_str(), group["lag_records"].as_u64()),
            (Some("empty"), Some(61)),
            "{group}"
        );
        let row = &group["partitions"][0];
        assert_eq!(
            (row["committed"].as_u64(), row["high_watermark"].as_u64()),
            (Some(40), Some(101)),
            "{row}"
        );
    };
    check(&house);
    house.until("billing", "the lag has an age", |group| !group.behind.is_zero()).await;
    let far = house.run(&["group", "describe", "billing", "--max-lag", "60"]);
    assert_eq!(far.status.code(), Some(7), "{}", String::from_utf8_lossy(&far.stderr));
    house.ok(&["group", "describe", "billing", "--max-lag", "61"]);
    house.ok(&["group", "describe", "billing", "--max-lag", "1h"]);

    house.node.kill();
    house.node.start().await.expect("it starts again");
    check(&house);
    let rest = house.ok(&consume);
    let offsets =
        rest.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object")["offset"].as_u64());
    assert_eq!(offsets.collect::<Vec<_>>(), (40..101).map(Some).collect::<Vec<_>>());
    let listed = house.json(&["group", "list"]);
    assert_eq!(
        (listed["groups"][0]["id"].as_str(), listed["groups"][0]["lag_records"].as_u64()),
        (Some("billing"), Some(0))
    );
    assert!(house.ok(&["group", "list"]).contains("billing"));
}

#[tokio::test]
async fn a_group_without_members_is_moved_and_deleted_and_one_with_members_is_not() {
    let house = House::start().await;
    house.topic("orders", 2).await;
    (0..2).for_each(|partition| house.produce("orders", partition, 10));
    let committed = |house: &House| -> Vec<Option<u64>> {
        let document = house.json(&["group", "describe", "billing"]);
        let rows = document["groups"][0]["partitions"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["committed"].as_u64()).collect()
    };
    house.ok(&["consume", "orders", "--group", "billing"]);
    assert_eq!(committed(&house), [Some(10), Some(10)]);

    let plan = house.json(&["group", "seek", "billing", "--to", "start", "--dry-run"]);
    assert_eq!(plan["applied"], false);
    assert_eq!(
        (plan["partitions"][0]["from"].as_u64(), plan["partitions"][0]["to"].as_u64()),
        (Some(10), Some(0))
    );
    assert_eq!(committed(&house), [Some(10), Some(10)], "a dry run moves nothing");
    assert_eq!(house.error(&["group", "seek", "billing", "--to", "start"])["code"], "CONSENT_MISSING");
    let one = ["group", "seek", "billing", "--to", "4", "--topic", "orders", "--partition", "1", "--yes"];
    assert_eq!(house.json(&one)["applied"], true);
    assert_eq!(committed(&house), [Some(10), Some(4)]);
    house.ok(&["group", "seek", "billing", "--by=-3", "--yes"]);
    assert_eq!(committed(&house), [Some(7), Some(1)]);
    house.ok(&["group", "seek", "billing", "--to", "@now", "--topic", "orders", "--yes"]);
    assert_eq!(committed(&house), [Some(10), Some(10)]);
    house.ok(&["group", "seek", "billing", "--to", "-2", "--topic", "orders", "--yes"]);
    assert_eq!(committed(&house), [Some(8), Some(8)]);
    house.ok(&["group", "seek", "billing", "--to", "end", "--yes"]);
    house.ok(&["group", "seek", "fresh", "--to", "+3", "--topic", "orders", "--yes"]);
    assert!(house.ok(&["consume", "orders", "--group", "fresh"]).lines().count() == 14);
    let wrong = house.error(&["group", "seek", "billing", "--to", "start", "--topic", "orderz", "--yes"]);
    assert_eq!(
        (&wrong["code"], &wrong["did_you_mean"]),
        (&Value::from("TOPIC_NOT_FOUND"), &Value::from("orders"))
    );

    let mut member = house.member("member", "orders", "billing");
    house.until("billing", "it has a member", |group| is_shared(group, &[2])).await;
    for refused in [
        &["group", "seek", "billing", "--to", "start", "--yes"][..],
        &["group", "delete", "billing", "--yes"],
    ] {
        let error = house.error(refused);
        assert_eq!((error["code"].as_str(), error["exit_code"].as_i64()), (Some("GROUP_NOT_EMPTY"), Some(4)));
    }
    assert_eq!(house.error(&["group", "delete", "billing", "--dry-run"])["code"], "GROUP_NOT_EMPTY");
    assert_eq!(member.interrupt(), Some(130));
    house.until("billing", "the member is gone", |group| group.members.is_empty()).await;
    house.ok(&["group", "delete", "billing", "--dry-run"]);
    house.ok(&["group", "delete", "billing", "--yes"]);
    let gone = house.error(&["group", "describe", "billing"]);
    assert_eq!((gone["code"].as_str(), gone["exit_code"].as_i64()), (Some("GROUP_NOT_FOUND"), Some(3)));
    assert_eq!(house.error(&["group", "describe", "fresj"])["did_you_mean"], "fresh");
}

#[tokio::test]
async fn what_is_said_of_groups_is_said_well() {
    let house = House::start().await;
    house.topic("orders", 1).await;
    let several = house.error(&["consume", "orders", "billing"]);
    assert_eq!(several["code"], "USAGE");
    let unknown = house.error(&["consume", "orderz", "--group", "billing"]);
    assert_eq!(
        (&unknown["code"], &unknown["did_you_mean"]),
        (&Value::from("TOPIC_NOT_FOUND"), &Value::from("orders"))
    );
    assert_eq!(
        house.error(&["group", "seek", "nobody", "--to", "start", "--yes"])["code"],
        "GROUP_NOT_FOUND"
    );
    assert_eq!(house.error(&["consume", "orders", "--group", ""])["exit_code"], 2);
}
