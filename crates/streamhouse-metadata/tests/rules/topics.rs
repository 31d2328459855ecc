//! Topics are made, changed and deleted; a repeated request gets its first answer.

use streamhouse_metadata::{
    Command, CreateTopic, Outcome, Refusal, SettingError, TimestampType, TopicSettings,
};
use streamhouse_types::{PartitionId, PartitionIndex, TopicId, TopicName};

use crate::world::{World, create, p, row};

fn created(topic: u64) -> Outcome {
    Outcome::TopicCreated { topic: TopicId::new(topic) }
}

fn delete(topic: u64, request: u8) -> Command {
    Command::DeleteTopic { request: [request; 16], topic: TopicId::new(topic), validate_only: false }
}

fn grow(topic: u64, total: u32, request: u8) -> Command {
    let topic = TopicId::new(topic);
    Command::AddPartitions { request: [request; 16], topic, total, validate_only: false }
}

fn alter(name: &str, value: Option<&str>) -> Command {
    let changes = vec![(name.to_owned(), value.map(str::to_owned))];
    Command::AlterTopic { request: [0; 16], topic: TopicId::new(1), changes, validate_only: false }
}

#[test]
fn a_name_is_given_once_and_a_recreated_one_is_a_new_topic() {
    let mut world = World::new();
    world.append(1, row(p(0), 1));
    let exists = Outcome::Refused(Refusal::TopicExists { topic: TopicId::new(1) });
    assert_eq!(world.changes_nothing(Command::CreateTopic(create("orders", 1))), exists);
    let deleted = world.apply(delete(1, 0));
    assert_eq!(deleted.changes.deleted, [p(0), p(1), p(2), p(3)]);
    assert_eq!(world.outcome(Command::CreateTopic(create("orders", 1))), created(2));
    assert!(world.state.partition(p(0)).is_none());
    let name: TopicName = "orders".parse().unwrap();
    let fresh = world.state.topic_by_name(&name).unwrap();
    assert_eq!(fresh.partition(PartitionIndex::new(0)).unwrap().high_watermark().get(), 0);
}

#[test]
fn topics_are_listed_by_name() {
    let mut world = World::new();
    world.outcome(Command::CreateTopic(create("zebra", 1)));
    world.outcome(Command::CreateTopic(create("apple", 1)));
    let names: Vec<_> = world.state.topics().map(|topic| topic.name().to_string()).collect();
    assert_eq!(names, ["apple", "orders", "zebra"]);
    let after: TopicName = "b".parse().unwrap();
    let names: Vec<_> = world.state.topics_after(&after).map(|topic| topic.name().to_string()).collect();
    assert_eq!(names, ["orders", "zebra"]);
    let after: TopicName = "orders".parse().unwrap();
    assert_eq!(world.state.topics_after(&after).count(), 1);
}

#[test]
fn a_repeated_request_gets_its_first_answer() {
    let mut world = World::new();
    let request = CreateTopic { request: [5; 16], ..create("new", 1) };
    assert_eq!(world.outcome(Command::CreateTopic(request.clone())), created(2));
    assert_eq!(world.changes_nothing(Command::CreateTopic(request.clone())), created(2));
    world.done(delete(2, 6));
    assert_eq!(
        world.changes_nothing(Command::CreateTopic(request)),
        created(2),
        "a late copy makes no topic"
    );
    assert_eq!(world.changes_nothing(delete(2, 6)), Outcome::Done);
}

#[test]
fn a_refused_request_does_not_happen_later() {
    let mut world = World::new();
    let request = CreateTopic { request: [5; 16], ..create("orders", 1) };
    let refused = world.outcome(Command::CreateTopic(request.clone()));
    world.done(delete(1, 0));
    assert_eq!(world.changes_nothing(Command::CreateTopic(request)), refused);
}

#[test]
fn a_request_id_stands_for_one_request() {
    let mut world = World::new();
    world.outcome(Command::CreateTopic(CreateTopic { request: [5; 16], ..create("new", 1) }));
    let other = CreateTopic { request: [5; 16], ..create("newer", 1) };
    let reused = Outcome::Refused(Refusal::RequestReused);
    assert_eq!(world.changes_nothing(Command::CreateTopic(other)), reused);
    assert_eq!(world.changes_nothing(delete(1, 5)), reused);
}

#[test]
fn validation_answers_and_changes_nothing() {
    let mut world = World::new();
    let check = |name, partitions| {
        Command::CreateTopic(CreateTopic {
            request: [5; 16],
            validate_only: true,
            ..create(name, partitions)
        })
    };
    assert_eq!(world.changes_nothing(check("new", 1)), created(2));
    let exists = Outcome::Refused(Refusal::TopicExists { topic: TopicId::new(1) });
    assert_eq!(world.changes_nothing(check("orders", 1)), exists);
    let topic = TopicId::new(1);
    let request = [5; 16];
    assert_eq!(
        world.changes_nothing(Command::DeleteTopic { request, topic, validate_only: true }),
        Outcome::Done
    );
    let grown = Command::AddPartitions { request, topic, total: 5, validate_only: true };
    assert_eq!(world.changes_nothing(grown), Outcome::Done);
    let changes = vec![("max.message.bytes".to_owned(), Some("2048".to_owned()))];
    let altered = Command::AlterTopic { request, topic, changes, validate_only: true };
    assert_eq!(world.changes_nothing(altered), Outcome::Done);
    let real = CreateTopic { request: [5; 16], ..create("new", 1) };
    assert_eq!(world.outcome(Command::CreateTopic(real)), created(2), "a validation is not remembered");
}

#[track_caller]
fn check_partition_count(command: Command, wanted: u32, current: u32) {
    let refused = Outcome::Refused(Refusal::PartitionCount { wanted, current });
    assert_eq!(World::new().changes_nothing(command), refused);
}

#[test]
fn a_topic_has_1_to_10_000_partitions_and_only_grows() {
    check_partition_count(Command::CreateTopic(create("new", 0)), 0, 0);
    check_partition_count(Command::CreateTopic(create("new", 10_001)), 10_001, 0);
    check_partition_count(grow(1, 4, 0), 4, 4);
    check_partition_count(grow(1, 3, 0), 3, 4);
    check_partition_count(grow(1, u32::MAX, 0), u32::MAX, 4);
    let mut world = World::new();
    world.done(grow(1, 6, 7));
    assert_eq!(world.changes_nothing(grow(1, 6, 7)), Outcome::Done);
    assert_eq!(world.partition(5).id(), p(5));
}

#[test]
fn a_cluster_has_at_most_100_000_partitions() {
    let mut world = World::new();
    for number in 0..9 {
        assert_eq!(
            world
                .state
                .apply(next(&world), &Command::CreateTopic(create(&format!("t{number}"), 10_000)))
                .outcome,
            created(number + 2)
        );
    }
    let limit = Outcome::Refused(Refusal::Limit { what: "partitions".to_owned(), limit: 100_000 });
    let index = next(&world);
    assert_eq!(world.state.apply(index, &Command::CreateTopic(create("last", 10_000))).outcome, limit);
    let index = next(&world);
    assert_eq!(world.state.apply(index, &Command::CreateTopic(create("last", 9_996))).outcome, created(11));
    let index = next(&world);
    assert_eq!(world.state.apply(index, &grow(1, 5, 0)).outcome, limit);
    let index = next(&world);
    assert_eq!(world.state.apply(index, &delete(11, 0)).outcome, Outcome::Done);
    let index = next(&world);
    assert_eq!(world.state.apply(index, &grow(1, 5, 0)).outcome, Outcome::Done);
    assert_eq!(streamhouse_metadata::invariants::check(&world.state), Ok(()));
}

fn next(world: &World) -> streamhouse_types::LogIndex {
    streamhouse_types::LogIndex::new(world.state.applied().get() + 1)
}

#[test]
fn settings_change_under_their_names_all_or_none() {
    let mut world = World::new();
    world.done(alter("max.message.bytes", Some("2048")));
    let settings = |world: &World| world.state.topic(TopicId::new(1)).unwrap().settings().clone();
    assert_eq!(settings(&world).max_message_bytes, 2_048);
    world.done(alter("max.message.bytes", None));
    assert_eq!(settings(&world), TopicSettings::default());
    let unknown = SettingError::Unsupported { name: "retention.bytes".to_owned() };
    let refused = Outcome::Refused(Refusal::Setting(unknown));
    assert_eq!(world.changes_nothing(alter("retention.bytes", Some("1"))), refused);
    let changes = vec![
        ("message.timestamp.type".to_owned(), Some("LogAppendTime".to_owned())),
        ("max.message.bytes".to_owned(), Some("1".to_owned())),
    ];
    let half =
        Command::AlterTopic { request: [0; 16], topic: TopicId::new(1), changes, validate_only: false };
    assert!(matches!(
        world.changes_nothing(half),
        Outcome::Refused(Refusal::Setting(SettingError::Value { .. }))
    ));
    assert_eq!(settings(&world).timestamp_type, TimestampType::Create);
}

#[test]
fn a_topic_is_not_made_with_settings_that_cannot_be() {
    let mut world = World::new();
    let settings = TopicSettings { max_message_bytes: 1, ..TopicSettings::default() };
    let command = Command::CreateTopic(CreateTopic { settings, ..create("new", 1) });
    assert!(matches!(world.changes_nothing(command), Outcome::Refused(Refusal::Setting(_))));
}

#[test]
fn what_is_not_there_is_refused() {
    let mut world = World::new();
    let unknown = Outcome::Refused(Refusal::UnknownTopic);
    assert_eq!(world.changes_nothing(delete(9, 0)), unknown);
    assert_eq!(world.changes_nothing(grow(9, 5, 0)), unknown);
    let partition = PartitionId::new(TopicId::new(1), PartitionIndex::new(4));
    let trim = streamhouse_metadata::TrimPartition { partition, before: Default::default() };
    let unknown = Outcome::Refused(Refusal::UnknownPartition);
    assert_eq!(world.changes_nothing(Command::TrimPartition(trim)), unknown);
}
