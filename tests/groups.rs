//! Consumer groups over the real binary: members share, fall silent and take over; what they commit stays.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;
use streamhouse_client::{GroupInfo, GroupState, Mode, NewTopic, PartitionIndex, Record, StreamHouse};
use streamhouse_consumer::{GroupConsumer, GroupEvent};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::house::House;

/// For so long a state may not come, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);
const PARTITIONS: u32 = 4;

async fn client(house: &House) -> StreamHouse {
    StreamHouse::connect(house.node.grpc()).await.expect("the node answers")
}

async fn make_topic(house: &StreamHouse, name: &str, partitions: u32) {
    let topic = NewTopic::new(name).partitions(partitions);
    house.admin().create_topic(topic, Mode::Apply).await.expect("the topic is made");
}

/// Writes so many records to a partition.
#[track_caller]
fn produce(house: &House, topic: &str, partition: u32, records: u32) {
    let lines: String = (0..records).map(|number| format!("record {number}\n")).collect();
    let written = house.produce(&[topic, "--partition", &partition.to_string(), "-q"], lines.as_bytes());
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
}

/// A member that goes on until it is stopped.
fn member(house: &House, name: &str, topic: &str, group: &str) -> Member {
    let output = house.path().join(name);
    let child = house
        .command(&["consume", topic, "--group", group, "--follow", "-o", "json"])
        .stdout(File::create(&output).expect("a file for the records"))
        .stderr(File::create(output.with_extension("err")).expect("a file for the talk"))
        .spawn()
        .expect("the binary runs");
    Member { child, output }
}

/// Waits until the group is as it should be.
async fn until(
    house: &StreamHouse,
    group: &str,
    what: &str,
    is_so: impl Fn(&GroupInfo) -> bool,
) -> GroupInfo {
    let admin = house.admin();
    let mut last = None;
    let wait = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            match admin.describe_group(group).await {
                Ok(found) if is_so(&found) => return found,
                found => last = Some(found),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(found) => found,
        Err(_) => panic!("{group}: {what} within {PATIENCE:?}: {last:?}"),
    }
}

/// Waits until all that was committed is all that there is.
async fn caught_up(house: &StreamHouse, group: &str, records: u64) {
    let committed = |group: &GroupInfo| -> u64 {
        group.partitions.iter().filter_map(|partition| partition.committed).map(|at| at.get()).sum()
    };
    until(house, group, "everything is committed", |group| committed(group) == records).await;
}

/// Waits until the lag of a group has an age. The time of a cluster goes on with what is written.
async fn aged(house: &House, client: &StreamHouse, group: &str) {
    make_topic(client, "clock", 1).await;
    let aging = async {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            produce(house, "clock", 0, 1);
            let found = client.admin().describe_group(group).await.expect("it is there");
            if !found.behind.is_zero() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, aging).await.expect("time goes on");
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
    let client = client(&house).await;
    make_topic(&client, "shared", PARTITIONS).await;
    let write = |records| (0..PARTITIONS).for_each(|partition| produce(&house, "shared", partition, records));
    let all = |records: u64| -> BTreeSet<(u64, u64)> {
        (0..u64::from(PARTITIONS))
            .flat_map(|partition| (0..records).map(move |offset| (partition, offset)))
            .collect()
    };
    write(50);
    let mut first = member(&house, "first", "shared", "readers");
    until(&client, "readers", "one member reads everything", |group| is_shared(group, &[4])).await;
    caught_up(&client, "readers", 200).await;
    assert_eq!(first.printed().into_iter().collect::<BTreeSet<_>>(), all(50));

    let mut second = member(&house, "second", "shared", "readers");
    until(&client, "readers", "two members share", |group| is_shared(group, &[2, 2])).await;
    write(50);
    caught_up(&client, "readers", 400).await;
    let (one, other) = (first.printed(), second.printed());
    assert_eq!((one.len(), other.len()), (300, 100), "a record goes to one of them, once");
    assert_eq!(one.into_iter().chain(other).collect::<BTreeSet<_>>(), all(100));

    second.kill();
    write(50);
    until(&client, "readers", "the one that is left reads everything", |group| is_shared(group, &[4])).await;
    caught_up(&client, "readers", 600).await;
    let read: Vec<_> = first.printed().into_iter().chain(second.printed()).collect();
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), all(150));

    assert_eq!(first.interrupt(), Some(130));
    let left = until(&client, "readers", "nobody is left", |group| group.members.is_empty()).await;
    assert_eq!((left.state, left.lag_records), (GroupState::Empty, 0));
}

#[tokio::test]
async fn what_is_committed_survives_a_restart_and_the_lag_is_told() {
    let mut house = House::start().await;
    let client = client(&house).await;
    make_topic(&client, "orders", 1).await;
    produce(&house, "orders", 0, 100);
    let consume = ["consume", "orders", "--group", "billing", "-o", "json"];
    let first = house.ok(&[&consume[..], &["-n", "40"]].concat());
    assert_eq!(first.lines().count(), 40);
    let check = |house: &House| {
        let document = house.json(&["group", "describe", "billing"]);
        let group = &document["groups"][0];
        assert_eq!(
            (group["state"].as_str(), group["lag_records"].as_u64()),
            (Some("empty"), Some(60)),
            "{group}"
        );
        let row = &group["partitions"][0];
        assert_eq!(
            (row["committed"].as_u64(), row["high_watermark"].as_u64()),
            (Some(40), Some(100)),
            "{row}"
        );
    };
    check(&house);
    aged(&house, &client, "billing").await;
    let far = house.run(&["group", "describe", "billing", "--max-lag", "59"]);
    assert_eq!(far.status.code(), Some(7), "{}", String::from_utf8_lossy(&far.stderr));
    house.ok(&["group", "describe", "billing", "--max-lag", "60"]);
    house.ok(&["group", "describe", "billing", "--max-lag", "1h"]);

    house.node.kill();
    house.node.start().await.expect("it starts again");
    check(&house);
    let rest = house.ok(&consume);
    let offsets =
        rest.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object")["offset"].as_u64());
    assert_eq!(offsets.collect::<Vec<_>>(), (40..100).map(Some).collect::<Vec<_>>());
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
    let client = client(&house).await;
    make_topic(&client, "orders", 2).await;
    (0..2).for_each(|partition| produce(&house, "orders", partition, 10));
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

    let mut member = member(&house, "member", "orders", "billing");
    until(&client, "billing", "it has a member", |group| is_shared(group, &[2])).await;
    for refused in [
        &["group", "seek", "billing", "--to", "start", "--yes"][..],
        &["group", "delete", "billing", "--yes"],
    ] {
        let error = house.error(refused);
        assert_eq!((error["code"].as_str(), error["exit_code"].as_i64()), (Some("GROUP_NOT_EMPTY"), Some(4)));
    }
    assert_eq!(house.error(&["group", "delete", "billing", "--dry-run"])["code"], "GROUP_NOT_EMPTY");
    assert_eq!(member.interrupt(), Some(130));
    until(&client, "billing", "the member is gone", |group| group.members.is_empty()).await;
    house.ok(&["group", "delete", "billing", "--dry-run"]);
    house.ok(&["group", "delete", "billing", "--yes"]);
    let gone = house.error(&["group", "describe", "billing"]);
    assert_eq!((gone["code"].as_str(), gone["exit_code"].as_i64()), (Some("GROUP_NOT_FOUND"), Some(3)));
    assert_eq!(house.error(&["group", "describe", "fresj"])["did_you_mean"], "fresh");
}

#[tokio::test]
async fn what_is_said_of_groups_is_said_well() {
    let house = House::start().await;
    let client = client(&house).await;
    make_topic(&client, "orders", 1).await;
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

/// What the members of a group were given, and what they are to be given.
struct Reading {
    consumer: GroupConsumer,
    seen: BTreeSet<(u32, u64)>,
}

impl Reading {
    /// Reads on until the group was given so many records of each partition.
    async fn up_to(&mut self, records: u64) {
        let wanted = u64::from(PARTITIONS) * records;
        let read = async {
            while self.seen.len() as u64 != wanted {
                let event = self.consumer.next().await.expect("it stays a member");
                if let GroupEvent::Batch { batch, .. } = event {
                    let partition = batch.partition().get();
                    self.seen.extend(
                        (batch.offsets().start.get()..batch.offsets().end.get()).map(|at| (partition, at)),
                    );
                }
            }
        };
        let late = tokio::time::timeout(PATIENCE, read).await.is_err();
        assert!(!late, "{} of {wanted} records within {PATIENCE:?}", self.seen.len());
    }
}

async fn write(house: &StreamHouse, topic: &str, records: u64) {
    let producer = house.topic(topic).producer().build().await.expect("a producer");
    for number in 0..records {
        for partition in 0..PARTITIONS {
            let record = Record::new(format!("{number}")).partition(PartitionIndex::new(partition));
            drop(producer.send(record).await.expect("taken"));
        }
    }
    producer.close().await.expect("everything is durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_where_it_was_when_its_coordinator_is_killed() {
    let mut cluster = Cluster::new(3, |node, _| node).expect("a cluster");
    cluster.start().await.expect("it is well");
    let client = cluster.connect().await.expect("a node answers");
    make_topic(&client, "orders", PARTITIONS).await;
    write(&client, "orders", 50).await;
    let consumer = GroupConsumer::builder(&client, "billing").topics(["orders"]).join();
    let mut reading = Reading { consumer, seen: BTreeSet::new() };
    reading.up_to(50).await;
    reading.consumer.commit().await.expect("committed");
    let before = until(&client, "billing", "the group is stable", |group| is_shared(group, &[4])).await;
    let coordinator = before.coordinator.expect("somebody looks after it").get();

    let victim = u32::try_from(coordinator).expect("one of three");
    cluster.node(victim).kill();
    write(&client, "orders", 50).await;
    reading.up_to(100).await;
    let elsewhere = |group: &GroupInfo| {
        group.coordinator.is_some_and(|node| node.get() != coordinator) && is_shared(group, &[4])
    };
    let after = until(&client, "billing", "another node looks after it", elsewhere).await;
    assert!(after.generation >= before.generation, "{before:?} {after:?}");
    assert_eq!(reading.seen.len(), 400, "nothing is given that is not there");
    reading.consumer.close().await.expect("committed, and left");
    let left = until(&client, "billing", "nobody is left", |group| group.members.is_empty()).await;
    assert_eq!((left.lag_records, left.state), (0, GroupState::Empty));
}

#[tokio::test]
async fn members_that_are_killed_with_their_node_do_not_hold_the_group() {
    let mut house = House::start().await;
    make_topic(&client(&house).await, "orders", 1).await;
    produce(&house, "orders", 0, 10);
    let mut member = member(&house, "member", "orders", "billing");
    caught_up(&client(&house).await, "billing", 10).await;
    member.kill();
    house.node.kill();
    house.node.start().await.expect("it starts again");
    assert_eq!(house.error(&["group", "delete", "billing", "--yes"])["code"], "GROUP_NOT_EMPTY");
    let left =
        until(&client(&house).await, "billing", "nobody is left", |group| group.members.is_empty()).await;
    assert_eq!(left.lag_records, 0, "what was committed stays");
    house.ok(&["group", "delete", "billing", "--yes"]);
}
