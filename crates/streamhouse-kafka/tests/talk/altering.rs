//! Settings of topics, changed.

use kacrab_protocol::generated as g;
use kacrab_protocol::generated::{
    alter_configs_request as whole, incremental_alter_configs_request as stepwise,
};
use streamhouse_broker::BrokerSettings;
use streamhouse_broker::metadata::FeatureLevel;
use streamhouse_kafka::Presentation;

use crate::harness::{Client, House, Plot, text};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Settings with their new values.
type Values<'a> = &'a [(&'a str, Option<&'a str>)];

/// Sets the settings of a resource, and puts the others back; returns the error.
async fn replace(client: &mut Client, (kind, name): (i8, &str), settings: Values<'_>, version: i16) -> i16 {
    let configs = settings.iter().map(|(name, value)| whole::AlterableConfig {
        name: text(name),
        value: value.map(text),
        ..Default::default()
    });
    let resource = whole::AlterConfigsResource {
        resource_type: kind,
        resource_name: text(name),
        configs: configs.collect(),
        ..Default::default()
    };
    let request = g::AlterConfigsRequestData { resources: vec![resource], ..Default::default() };
    let done = client.call(&request, version).await.responses.remove(0);
    assert_eq!((done.resource_type, done.resource_name.as_str()), (kind, name));
    assert_eq!(done.error_message.is_some(), done.error_code != 0);
    done.error_code
}

fn steps(kind: i8, name: &str, edits: &[(&str, i8, Option<&str>)]) -> stepwise::AlterConfigsResource {
    let configs = edits.iter().map(|(name, step, value)| stepwise::AlterableConfig {
        name: text(name),
        config_operation: *step,
        value: value.map(text),
        ..Default::default()
    });
    stepwise::AlterConfigsResource {
        resource_type: kind,
        resource_name: text(name),
        configs: configs.collect(),
        ..Default::default()
    }
}

/// Changes settings of a topic one by one; returns the error and its text.
async fn edit(client: &mut Client, topic: &str, edits: &[(&str, i8, Option<&str>)]) -> (i16, String) {
    edit_of(client, (2, topic), edits).await
}

/// The same for any resource.
async fn edit_of(
    client: &mut Client,
    (kind, name): (i8, &str),
    edits: &[(&str, i8, Option<&str>)],
) -> (i16, String) {
    let request = g::IncrementalAlterConfigsRequestData {
        resources: vec![steps(kind, name, edits)],
        ..Default::default()
    };
    let done = client.call(&request, 1).await.responses.remove(0);
    (done.error_code, done.error_message.map(|message| message.to_string()).unwrap_or_default())
}

/// A setting of topic `t`.
async fn described(client: &mut Client, name: &str) -> g::DescribeConfigsResourceResult {
    let resource = g::DescribeConfigsResource {
        resource_type: 2,
        resource_name: text("t"),
        configuration_keys: Some(vec![text(name)]),
        ..Default::default()
    };
    let request = g::DescribeConfigsRequestData {
        resources: vec![resource],
        include_synonyms: true,
        ..Default::default()
    };
    client.call(&request, 4).await.results.remove(0).configs.remove(0)
}

/// The value of a setting of topic `t`, and where it comes from.
async fn setting(client: &mut Client, name: &str) -> (String, i8) {
    let config = described(client, name).await;
    (config.value.expect("a value").to_string(), config.config_source)
}

#[tokio::test]
async fn settings_are_replaced_as_a_whole() {
    let house = House::start().await;
    house.topic("t", 1, &[("max.message.bytes", "2000")]).await;
    let mut client = house.connect();
    for version in 0..=2 {
        let stamped = [("message.timestamp.type", Some("LogAppendTime"))];
        assert_eq!(replace(&mut client, (2, "t"), &stamped, version).await, 0);
        assert_eq!(setting(&mut client, "message.timestamp.type").await, ("LogAppendTime".to_owned(), 1));
        assert_eq!(setting(&mut client, "max.message.bytes").await, ("1048588".to_owned(), 5));
        let limited = [("max.message.bytes", Some("3000"))];
        assert_eq!(replace(&mut client, (2, "t"), &limited, version).await, 0);
        assert_eq!(setting(&mut client, "message.timestamp.type").await, ("CreateTime".to_owned(), 5));
        assert_eq!(setting(&mut client, "max.message.bytes").await, ("3000".to_owned(), 1));
    }
    let refused: [(i8, &str, Values<'_>, i16); 12] = [
        (2, "t", &[("max.message.bytes", Some("4000")), ("no.such", Some("1"))], 40),
        (2, "t", &[("max.message.bytes", Some("lots"))], 40),
        (2, "t", &[("max.message.bytes", None)], 42),
        (2, "t", &[("max.message.bytes", Some("4000")), ("max.message.bytes", Some("4000"))], 42),
        (2, "missing", &[("max.message.bytes", Some("4000"))], 3),
        (2, "no/name", &[("max.message.bytes", Some("4000"))], 17),
        (4, "1", &[("num.partitions", Some("4"))], 40),
        (4, "1", &[], 0),
        (4, "2", &[("num.partitions", Some("4"))], 42),
        (8, "1", &[], 42),
        (32, "billing", &[("consumer.session.timeout.ms", Some("1000"))], 40),
        (99, "t", &[], 42),
    ];
    for (kind, name, settings, code) in refused {
        assert_eq!(replace(&mut client, (kind, name), settings, 2).await, code, "{kind} {name} {settings:?}");
    }
    // What was refused in part was refused as a whole.
    assert_eq!(setting(&mut client, "max.message.bytes").await, ("3000".to_owned(), 1));
    assert_eq!(replace(&mut client, (2, "t"), &[], 2).await, 0);
    assert_eq!(setting(&mut client, "max.message.bytes").await, ("1048588".to_owned(), 5));
}

#[tokio::test]
async fn of_two_replacements_at_a_time_one_is_undone_as_a_whole() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    house.log.pair_edits();
    let (mut one, mut other) = (house.connect(), house.connect());
    let limited = [("max.message.bytes", Some("3000"))];
    let stamped = [("message.timestamp.type", Some("LogAppendTime"))];
    let both =
        tokio::join!(replace(&mut one, (2, "t"), &limited, 2), replace(&mut other, (2, "t"), &stamped, 2));
    assert_eq!(both, (0, 0));
    let sources =
        [setting(&mut one, "max.message.bytes").await.1, setting(&mut one, "message.timestamp.type").await.1];
    assert!(sources == [1, 5] || sources == [5, 1], "{sources:?}");
}

#[tokio::test]
async fn single_settings_are_set_and_put_back() {
    let house = House::start().await;
    house.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut client = house.connect();
    let most = "max.message.bytes";
    for version in 0..=1 {
        for (step, value, expected) in [(SET, Some("3000"), ("3000", 1)), (DELETE, None, ("1048588", 5))] {
            let resources = vec![steps(2, "t", &[(most, step, value)])];
            let request = g::IncrementalAlterConfigsRequestData { resources, ..Default::default() };
            let answer = client.call(&request, version).await;
            assert_eq!(answer.responses[0].error_code, 0);
            let (value, source) = expected;
            assert_eq!(setting(&mut client, most).await, (value.to_owned(), source));
        }
    }
    assert_eq!(setting(&mut client, "message.timestamp.type").await, ("LogAppendTime".to_owned(), 1));
    for (name, value, code) in [
        ("segment.jitter.ms", "5", 0),
        ("compression.gzip.level", "9", 0),
        ("compression.gzip.level", "0", 40),
        ("compression.gzip.level", "-1", 0),
    ] {
        assert_eq!(edit(&mut client, "t", &[(name, SET, Some(value))]).await.0, code, "{name}={value}");
    }
    assert_eq!(setting(&mut client, "segment.jitter.ms").await, ("5".to_owned(), 1));
    assert_eq!(setting(&mut client, "compression.gzip.level").await, ("-1".to_owned(), 1));
    for step in [SET, APPEND, SUBTRACT] {
        assert_eq!(edit(&mut client, "t", &[(most, step, None)]).await.0, 42, "{step}");
    }
    for step in [APPEND, SUBTRACT] {
        let (code, message) = edit(&mut client, "t", &[(most, step, Some("3000"))]).await;
        assert_eq!((code, message.contains(most)), (40, true), "{message}");
    }
    assert_eq!(edit(&mut client, "t", &[(most, 4, Some("3000"))]).await.0, 42);
    assert_eq!(edit(&mut client, "t", &[(most, SET, Some("1")), (most, DELETE, None)]).await.0, 42);
    assert_eq!(edit(&mut client, "missing", &[(most, SET, Some("3000"))]).await.0, 3);
    let (code, message) = edit(&mut client, "t", &[("no.such", SET, Some("1"))]).await;
    assert_eq!((code, message.contains("no.such")), (40, true), "{message}");
    let (code, message) = edit(&mut client, "t", &[("no.such", DELETE, None)]).await;
    assert_eq!((code, message.contains("no.such")), (40, true), "{message}");
}

#[tokio::test]
async fn what_is_set_to_its_default_is_told_as_set_until_it_is_taken_back() {
    let house = House::start().await;
    house.topic("t", 1, &[("retention.ms", "-1")]).await;
    let mut client = house.connect();
    let (retention, most) = ("retention.ms", "max.message.bytes");
    let synonyms = |config: g::DescribeConfigsResourceResult| -> Vec<(String, String, i8)> {
        let told = config.synonyms.into_iter().map(|synonym| {
            let value = synonym.value.expect("a value").to_string();
            (synonym.name.to_string(), value, synonym.source)
        });
        told.collect()
    };
    let of_the_topic = (retention.to_owned(), "-1".to_owned(), 1);
    let default = ("log.retention.ms".to_owned(), "-1".to_owned(), 5);
    let config = described(&mut client, retention).await;
    assert_eq!(config.config_source, 1);
    assert_eq!(synonyms(config), [of_the_topic, default.clone()]);
    assert_eq!(edit(&mut client, "t", &[(most, SET, Some("1048588")), (retention, DELETE, None)]).await.0, 0);
    assert_eq!(setting(&mut client, most).await, ("1048588".to_owned(), 1));
    let config = described(&mut client, retention).await;
    assert_eq!(config.config_source, 5);
    assert_eq!(synonyms(config), [default]);
    assert_eq!(replace(&mut client, (2, "t"), &[(retention, Some("-1"))], 2).await, 0);
    assert_eq!(setting(&mut client, most).await, ("1048588".to_owned(), 5));
    assert_eq!(setting(&mut client, retention).await, ("-1".to_owned(), 1));
}

#[tokio::test]
async fn each_resource_is_answered_and_a_check_changes_nothing() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    house.topic("u", 1, &[]).await;
    let mut client = house.connect();
    let limit = [("max.message.bytes", SET, Some("3000"))];
    let mut request = g::IncrementalAlterConfigsRequestData {
        resources: vec![
            steps(2, "t", &limit),
            steps(2, "missing", &limit),
            steps(2, "t", &[("max.message.bytes", SET, Some("lots"))]),
            steps(2, "u", &limit),
        ],
        validate_only: true,
        ..Default::default()
    };
    let answered = client.call(&request, 1).await.responses;
    let told: Vec<_> = answered.iter().map(|done| (done.resource_name.as_str(), done.error_code)).collect();
    assert_eq!(told, [("t", 42), ("missing", 3), ("t", 42), ("u", 0)]);
    request.resources = vec![steps(2, "t", &limit)];
    assert_eq!(client.call(&request, 1).await.responses[0].error_code, 0);
    assert_eq!(setting(&mut client, "max.message.bytes").await, ("1048588".to_owned(), 5));
    request.validate_only = false;
    assert_eq!(client.call(&request, 1).await.responses[0].error_code, 0);
    assert_eq!(setting(&mut client, "max.message.bytes").await, ("3000".to_owned(), 1));
}

#[tokio::test]
async fn lists_take_and_lose_words() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let policy = "cleanup.policy";
    for (step, words, expected) in [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "delete", "compact"),
        (APPEND, " delete ,compact", "compact,delete"),
    ] {
        assert_eq!(edit(&mut client, "t", &[(policy, step, Some(words))]).await.0, 0);
        assert_eq!(setting(&mut client, policy).await.0, expected);
    }
    for words in ["burn", "Compact"] {
        let (code, message) = edit(&mut client, "t", &[(policy, APPEND, Some(words))]).await;
        assert_eq!((code, message.contains("any of compact, delete")), (40, true), "{message}");
    }
    assert_eq!(edit(&mut client, "t", &[(policy, SET, Some("compact,compact"))]).await.0, 40);
    assert_eq!(setting(&mut client, policy).await, ("compact,delete".to_owned(), 1));
    // No policy at all is one: nothing goes by itself.
    assert_eq!(edit(&mut client, "t", &[(policy, SUBTRACT, Some("compact,delete"))]).await.0, 0);
    assert_eq!(setting(&mut client, policy).await, (String::new(), 1));
    assert_eq!(edit(&mut client, "t", &[(policy, APPEND, Some("compact"))]).await.0, 0);
    assert_eq!(edit(&mut client, "t", &[(policy, SET, Some(""))]).await.0, 0);
    assert_eq!(setting(&mut client, policy).await, (String::new(), 1));
    assert_eq!(edit(&mut client, "t", &[(policy, DELETE, None)]).await.0, 0);
    assert_eq!(setting(&mut client, policy).await, ("delete".to_owned(), 5));
}

#[tokio::test]
async fn of_two_edits_of_a_list_at_a_time_none_is_lost() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    house.log.pair_edits();
    let (mut one, mut other) = (house.connect(), house.connect());
    let (appends, subtracts) =
        ([("cleanup.policy", APPEND, Some("compact"))], [("cleanup.policy", SUBTRACT, Some("delete"))]);
    let (appended, subtracted) =
        tokio::join!(edit(&mut one, "t", &appends), edit(&mut other, "t", &subtracts));
    assert_eq!((appended.0, subtracted.0), (0, 0), "{appended:?} {subtracted:?}");
    assert_eq!(setting(&mut one, "cleanup.policy").await.0, "compact");
}

#[tokio::test]
async fn what_is_no_topic_is_refused_by_name_and_with_the_way_to_change_it() {
    let house = House::start().await;
    let mut client = house.connect();
    for (kind, name, setting, code, advice) in [
        (4, "1", "num.partitions", 40, "`topics.default_partitions` in its configuration"),
        (4, "1", "log.retention.ms", 40, "`retention.ms` for each topic"),
        (4, "", "message.max.bytes", 40, "`max.message.bytes` for each topic"),
        (4, "1", "log.cleaner.threads", 40, "sets all that can be set"),
        (4, "2", "num.partitions", 42, "ask each node"),
        (8, "1", "root", 40, "`log.level`"),
        (8, "2", "root", 42, "ask each node"),
        (16, "lag", "interval.ms", 40, "no node asks clients"),
        (32, "billing", "consumer.session.timeout.ms", 40, "`[groups]`"),
        (99, "t", "x", 42, "no settings"),
    ] {
        let (found, message) = edit_of(&mut client, (kind, name), &[(setting, SET, Some("1"))]).await;
        let named = code == 42 || message.contains(&format!("`{setting}`"));
        assert!(
            found == code && named && message.contains(advice),
            "{kind} {name} {setting}: {found} {message}"
        );
    }
    for (kind, name) in [(4, "1"), (4, ""), (8, "1"), (16, "lag"), (32, "billing")] {
        assert_eq!(edit_of(&mut client, (kind, name), &[]).await.0, 0, "{kind} {name}");
    }
}

#[tokio::test]
async fn beside_nodes_of_the_release_before_settings_are_changed_as_these_can() {
    let plot = Plot::at(FeatureLevel::MORE_SETTINGS).await;
    let house = plot.house(1, BrokerSettings::default(), Presentation::Nodes).await;
    house.topic("t", 1, &[("max.message.bytes", "1048588"), ("segment.jitter.ms", "5")]).await;
    let mut client = house.connect();
    let (policy, jitter) = ("cleanup.policy", "segment.jitter.ms");
    assert_eq!(setting(&mut client, "max.message.bytes").await.1, 5, "nobody remembers that it was set");
    assert_eq!(edit(&mut client, "t", &[(policy, APPEND, Some("compact"))]).await.0, 0);
    assert_eq!(setting(&mut client, policy).await, ("delete,compact".to_owned(), 1));
    assert_eq!(edit(&mut client, "t", &[(policy, SET, Some(""))]).await.0, 40);
    assert_eq!(edit(&mut client, "t", &[(jitter, APPEND, Some("6"))]).await.0, 40);
    assert_eq!(replace(&mut client, (2, "t"), &[(jitter, Some("7"))], 2).await, 0);
    assert_eq!(setting(&mut client, policy).await, ("delete".to_owned(), 5));
    assert_eq!(setting(&mut client, jitter).await, ("7".to_owned(), 1));
}
