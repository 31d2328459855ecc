//! Settings of topics that are kept for what will obey them.

use streamhouse_metadata::codec::{decode_command, decode_snapshot, encode_command, encode_snapshot};
use streamhouse_metadata::{
    Command, CreateTopic, DirectoryId, FeatureLevel, FeatureRange, MemberRefusal, OtherSettings, Outcome,
    Refusal, SettingEdits, SettingError, SettingSource, SettingStep, State,
};
use streamhouse_types::{NodeId, TopicId};

use crate::world::{World, create};

/// A world whose nodes all know such settings.
fn upgraded() -> World {
    at(FeatureLevel::KEPT_SETTINGS)
}

fn at(level: FeatureLevel) -> World {
    let mut world = World::new();
    let features = FeatureRange { min: FeatureLevel::FIRST, max: level };
    let (node, directory) = (NodeId::new(1), DirectoryId::from_bytes([1; 16]));
    world.done(Command::AdmitNode { node, directory, features, version: String::new() });
    world.done(Command::RaiseFeatureLevel { level });
    world
}

fn with(kept: &[(&str, &str)]) -> Command {
    let kept = kept.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Command::CreateTopicWith { create: create("kept", 2), kept: kept.collect() }
}

fn alter(name: &str, value: Option<&str>) -> Command {
    let changes = vec![(name.to_owned(), value.map(str::to_owned))];
    Command::AlterTopic { request: [0; 16], topic: TopicId::new(1), changes, validate_only: false }
}

fn edit(steps: &[(&str, SettingStep)], others: OtherSettings) -> Command {
    let steps = steps.iter().map(|(name, step)| ((*name).to_owned(), step.clone())).collect();
    Command::EditTopic {
        level: FeatureLevel::EDITED_SETTINGS,
        request: [0; 16],
        topic: TopicId::new(1),
        edits: SettingEdits { steps, others },
        validate_only: false,
    }
}

fn append(words: &str) -> SettingStep {
    SettingStep::Append(words.to_owned())
}

fn subtract(words: &str) -> SettingStep {
    SettingStep::Subtract(words.to_owned())
}

fn value(state: &State, topic: u64, name: &str) -> String {
    let settings = state.topic(TopicId::new(topic)).expect("the topic").settings().list();
    settings.into_iter().find(|setting| setting.name == name).expect("the setting").value
}

fn snapshot(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_snapshot(state, &mut bytes).expect("memory takes all");
    bytes
}

#[test]
fn a_topic_keeps_what_it_is_made_with_and_what_it_is_given() {
    let mut world = upgraded();
    let made = world.apply(with(&[("cleanup.policy", "compact"), ("retention.ms", "5")])).outcome;
    assert_eq!(made, Outcome::TopicCreated { topic: TopicId::new(2) });
    assert_eq!(value(&world.state, 2, "cleanup.policy"), "compact");
    assert!(!world.state.topic(TopicId::new(2)).expect("the topic").settings().deletes());
    world.done(alter("retention.ms", Some("7")));
    assert_eq!(value(&world.state, 1, "retention.ms"), "7");
    world.done(alter("retention.ms", None));
    assert_eq!(value(&world.state, 1, "retention.ms"), "-1");
    for bad in [("cleanup.policy", "none"), ("no.such.setting", "1")] {
        let refused = world.changes_nothing(with(&[bad]));
        assert!(matches!(refused, Outcome::Refused(Refusal::Setting(_))), "{refused:?}");
    }
}

#[test]
fn kept_settings_survive_a_snapshot_and_count_in_the_digest() {
    let mut world = upgraded();
    let without = snapshot(&world.state);
    assert_eq!(without[8], 2, "nothing is kept: the release before can read it");
    world.apply(with(&[("cleanup.policy", "compact")]));
    let state = world.state.clone();
    let bytes = snapshot(&state);
    assert_eq!(bytes[8], 3);
    let read = decode_snapshot(&bytes).expect("it reads back");
    assert_eq!((&read, read.hash()), (&state, state.hash()));
    let mut plain = upgraded();
    plain.apply(Command::CreateTopic(create("kept", 2)));
    assert_ne!(plain.state.hash(), state.hash());
}

#[test]
fn while_older_nodes_may_be_there_such_settings_are_refused_as_they_refuse_them() {
    let mut world = World::new();
    let unsupported = SettingError::Unsupported { name: "retention.ms".to_owned() };
    let refused = Outcome::Refused(Refusal::Setting(unsupported));
    assert_eq!(world.changes_nothing(alter("retention.ms", Some("7"))), refused);
    assert_eq!(world.changes_nothing(alter("retention.ms", Some("no number"))), refused);
    let refused = world.changes_nothing(with(&[("retention.ms", "7")]));
    assert!(matches!(refused, Outcome::MemberRefused(MemberRefusal::LevelTooLow { .. })), "{refused:?}");
}

#[test]
fn settings_that_came_later_are_refused_until_every_node_knows_them() {
    let name = "segment.jitter.ms";
    let mut world = upgraded();
    let unsupported = SettingError::Unsupported { name: name.to_owned() };
    let refused = Outcome::Refused(Refusal::Setting(unsupported));
    assert_eq!(world.changes_nothing(alter(name, Some("7"))), refused);
    assert_eq!(world.changes_nothing(with(&[("retention.ms", "7"), (name, "7")])), refused);
    let level = FeatureLevel::MORE_SETTINGS;
    let changes = vec![(name.to_owned(), Some("7".to_owned()))];
    let (request, topic) = ([0; 16], TopicId::new(1));
    let alter_at = Command::AlterTopicAt { level, request, topic, changes, validate_only: false };
    let kept = vec![(name.to_owned(), "8".to_owned())];
    let create_at = Command::CreateTopicAt { level, create: create("kept", 2), kept };
    for command in [&alter_at, &create_at] {
        let refused = world.changes_nothing(command.clone());
        assert!(matches!(refused, Outcome::MemberRefused(MemberRefusal::LevelTooLow { .. })), "{refused:?}");
    }
    let mut world = at(level);
    // What a release before can read it refuses at any level, and so do all.
    assert_eq!(world.changes_nothing(alter(name, Some("7"))), refused);
    assert_eq!(world.changes_nothing(with(&[(name, "7")])), refused);
    world.done(alter_at);
    assert_eq!(value(&world.state, 1, name), "7");
    world.apply(create_at);
    assert_eq!(value(&world.state, 2, name), "8");
}

#[test]
fn edits_go_by_what_is_set_when_they_are_applied() {
    let mut world = at(FeatureLevel::EDITED_SETTINGS);
    let (policy, jitter) = ("cleanup.policy", "segment.jitter.ms");
    for (step, expected) in [
        (append("compact"), "delete,compact"),
        (append(" delete ,compact,"), "delete,compact"),
        (subtract("delete"), "compact"),
        (subtract("delete"), "compact"),
        (append("delete"), "compact,delete"),
    ] {
        world.done(edit(&[(policy, step)], OtherSettings::Keep));
        assert_eq!(value(&world.state, 1, policy), expected);
    }
    world.done(edit(&[(jitter, SettingStep::Set("7".to_owned()))], OtherSettings::Reset));
    let values = |world: &World| [policy, jitter].map(|name| value(&world.state, 1, name));
    assert_eq!(values(&world), ["delete", "7"]);
    world.done(edit(&[(policy, append("compact")), (jitter, SettingStep::Reset)], OtherSettings::Keep));
    assert_eq!(values(&world), ["delete,compact", "0"]);
    let not_a_list = |name: &str| SettingError::NotAList { name: name.to_owned() };
    let unsupported = SettingError::Unsupported { name: "no.such".to_owned() };
    for (name, error) in [
        (jitter, not_a_list(jitter)),
        ("max.message.bytes", not_a_list("max.message.bytes")),
        ("no.such", unsupported),
    ] {
        let refused = Outcome::Refused(Refusal::Setting(error));
        let steps = [(policy, subtract("delete")), (name, append("1"))];
        assert_eq!(world.changes_nothing(edit(&steps, OtherSettings::Keep)), refused);
    }
    let refused = world.changes_nothing(edit(&[(policy, append("burn"))], OtherSettings::Keep));
    assert!(matches!(refused, Outcome::Refused(Refusal::Setting(SettingError::Value { .. }))), "{refused:?}");
}

#[test]
fn a_repeated_edit_gets_its_first_answer() {
    let mut world = at(FeatureLevel::EDITED_SETTINGS);
    let again = |request| match edit(&[("cleanup.policy", append("compact"))], OtherSettings::Keep) {
        Command::EditTopic { level, topic, edits, validate_only, .. } => {
            Command::EditTopic { level, request, topic, edits, validate_only }
        }
        other => other,
    };
    world.done(again([5; 16]));
    world.done(edit(&[("cleanup.policy", subtract("compact"))], OtherSettings::Keep));
    assert_eq!(world.changes_nothing(again([5; 16])), Outcome::Done);
    let mut older = at(FeatureLevel::MORE_SETTINGS);
    let refused = older.changes_nothing(again([0; 16]));
    assert!(matches!(refused, Outcome::MemberRefused(MemberRefusal::LevelTooLow { .. })), "{refused:?}");
}

/// What was set for a topic.
fn set_for(state: &State, topic: u64) -> Vec<&'static str> {
    let settings = state.topic(TopicId::new(topic)).expect("the topic").settings().list();
    let set = settings.into_iter().filter(|setting| setting.source == SettingSource::Topic);
    set.map(|setting| setting.name).collect()
}

#[test]
fn what_is_set_to_its_default_is_remembered_once_every_node_can() {
    let defaults = [("cleanup.policy", "delete"), ("max.message.bytes", "1048588")];
    let steps = defaults.map(|(name, value)| (name, SettingStep::Set(value.to_owned())));
    let create_at = |level| Command::CreateTopicAt {
        level,
        create: create("kept", 2),
        kept: defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    let mut older = at(FeatureLevel::EDITED_SETTINGS);
    older.done(alter("cleanup.policy", Some("delete")));
    older.apply(create_at(FeatureLevel::MORE_SETTINGS));
    assert_eq!((set_for(&older.state, 1), set_for(&older.state, 2)), (vec![], vec![]));
    let mut world = at(FeatureLevel::EDITED_SETTINGS);
    world.done(edit(&steps, OtherSettings::Keep));
    world.apply(create_at(FeatureLevel::EDITED_SETTINGS));
    for topic in [1, 2] {
        assert_eq!(set_for(&world.state, topic), defaults.map(|(name, _)| name));
    }
    let bytes = snapshot(&world.state);
    let read = decode_snapshot(&bytes).expect("it reads back");
    assert_eq!((&read, read.hash()), (&world.state, world.state.hash()));
    world.done(edit(&[("cleanup.policy", SettingStep::Reset)], OtherSettings::Keep));
    assert_eq!(set_for(&world.state, 1), ["max.message.bytes"]);
    world.done(edit(&[], OtherSettings::Reset));
    assert_eq!(set_for(&world.state, 1), [""; 0]);
}

#[test]
fn a_command_of_a_level_that_is_not_known_is_not_read() {
    let create_at = |level| Command::CreateTopicAt { level, create: create("t", 1), kept: Vec::new() };
    let known = create_at(FeatureLevel::NEWEST);
    assert_eq!(decode_command(&encode_command(&known)), Ok(known));
    let later = create_at(FeatureLevel::new(FeatureLevel::NEWEST.get() + 1));
    assert!(decode_command(&encode_command(&later)).is_err());
}

#[test]
fn a_creation_with_kept_settings_keeps_its_bytes() {
    let command = Command::CreateTopicWith {
        create: CreateTopic { request: [0xab; 16], ..create("t", 3) },
        kept: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
    };
    let bytes = encode_command(&command);
    let mut expected = vec![1, 1, 26];
    expected.extend([0xab; 16]);
    expected.extend([1, b't', 3, 0x8c, 0x80, 0x40, 0, 0, 1, 14]);
    expected.extend(b"cleanup.policy\x07compact");
    assert_eq!(bytes, expected);
    assert_eq!(decode_command(&bytes), Ok(command));
}
