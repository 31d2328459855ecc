//! Consumer groups: members come, share out partitions, and go.

use bytes::Bytes;
use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_types::batch::Compression;

use crate::harness::{Client, House, batch, produce, records, text};

const SESSION_MS: i32 = 10_000;

pub(crate) fn joining(group: &str, member: &str, version: i16) -> g::JoinGroupRequestData {
    let protocol = g::JoinGroupRequestProtocol {
        name: text("range"),
        metadata: Bytes::from_static(b"topics"),
        ..Default::default()
    };
    g::JoinGroupRequestData {
        group_id: text(group),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: if version >= 1 { 60_000 } else { -1 },
        member_id: text(member),
        protocol_type: text("consumer"),
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// Joins as a newcomer, with a second try under the id that newer versions are given by the first.
async fn join(client: &mut Client, group: &str, version: i16) -> g::JoinGroupResponseData {
    let first = client.call(&joining(group, "", version), version).await;
    if version < 4 {
        return first;
    }
    assert_eq!((first.error_code, first.generation_id), (79, -1));
    assert_ne!(first.member_id.as_str(), "");
    client.call(&joining(group, first.member_id.as_str(), version), version).await
}

pub(crate) fn syncing(
    group: &str,
    joined: &g::JoinGroupResponseData,
    assigned: &[&str],
) -> g::SyncGroupRequestData {
    let assignment = |member: &&str| g::SyncGroupRequestAssignment {
        member_id: text(member),
        assignment: Bytes::from(format!("partitions of {member}")),
        ..Default::default()
    };
    g::SyncGroupRequestData {
        group_id: text(group),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: assigned.iter().map(assignment).collect(),
        ..Default::default()
    }
}

pub(crate) async fn beat(
    client: &mut Client,
    group: &str,
    joined: &g::JoinGroupResponseData,
    version: i16,
) -> i16 {
    let request = g::HeartbeatRequestData {
        group_id: text(group),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    client.call(&request, version).await.error_code
}

fn leaving(group: &str, member: &KafkaString, version: i16) -> g::LeaveGroupRequestData {
    let mut request = g::LeaveGroupRequestData { group_id: text(group), ..Default::default() };
    if version >= 3 {
        request.members = vec![g::MemberIdentity { member_id: member.clone(), ..Default::default() }];
    } else {
        request.member_id = member.clone();
    }
    request
}

pub(crate) async fn leave(client: &mut Client, group: &str, member: &KafkaString, version: i16) -> i16 {
    let answer = client.call(&leaving(group, member, version), version).await;
    match answer.members.first() {
        Some(left) => {
            assert_eq!(answer.error_code, 0);
            left.error_code
        }
        None => answer.error_code,
    }
}

/// The group with its one member, who leads it and has everything.
pub(crate) async fn alone(client: &mut Client, group: &str, version: i16) -> g::JoinGroupResponseData {
    let joined = join(client, group, version).await;
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id), "{version}");
    let me = joined.member_id.to_string();
    let synced = client.call(&syncing(group, &joined, &[&me]), version.min(5)).await;
    assert_eq!(synced.error_code, 0);
    assert_eq!(synced.assignment, Bytes::from(format!("partitions of {me}")));
    joined
}

#[tokio::test]
async fn a_member_joins_beats_and_leaves_in_every_version() {
    let house = House::start().await;
    let mut client = house.connect();
    for version in 0..=9 {
        let group = format!("group-{version}");
        let joined = alone(&mut client, &group, version).await;
        assert_eq!(joined.generation_id, 1);
        assert_eq!(joined.protocol_name.as_ref().map(|name| name.as_str()), Some("range"));
        assert_eq!(joined.protocol_type.is_some(), version >= 7);
        let [only] = &joined.members[..] else { panic!("one member") };
        assert_eq!((&only.member_id, &only.metadata[..]), (&joined.member_id, &b"topics"[..]));
        assert_eq!(beat(&mut client, &group, &joined, version.min(4)).await, 0);
        let stale = g::JoinGroupResponseData { generation_id: 9, ..joined.clone() };
        assert_eq!(beat(&mut client, &group, &stale, version.min(4)).await, 22);
        assert_eq!(leave(&mut client, &group, &joined.member_id, version.min(5)).await, 0);
        assert_eq!(leave(&mut client, &group, &joined.member_id, version.min(5)).await, 25);
        assert_eq!(beat(&mut client, &group, &joined, version.min(4)).await, 25);
    }
}

#[tokio::test]
async fn what_no_group_takes_is_refused() {
    let house = House::start().await;
    let mut client = house.connect();
    let nameless = joining("", "", 3);
    assert_eq!(client.call(&nameless, 3).await.error_code, 24);
    let hasty = g::JoinGroupRequestData { session_timeout_ms: 5, ..joining("g", "", 3) };
    assert_eq!(client.call(&hasty, 3).await.error_code, 26);
    let negative = g::JoinGroupRequestData { session_timeout_ms: -1, ..joining("g", "", 3) };
    assert_eq!(client.call(&negative, 3).await.error_code, 26);
    let unknown = joining("g", "nobody", 5);
    let refused = client.call(&unknown, 5).await;
    assert_eq!((refused.error_code, refused.member_id.as_str()), (25, "nobody"));
    alone(&mut client, "g", 3).await;
    let mut stranger = joining("g", "", 3);
    stranger.protocols[0].name = text("sticky");
    assert_eq!(client.call(&stranger, 3).await.error_code, 23);
}

#[tokio::test]
async fn a_parked_join_holds_up_nothing_and_answers_keep_their_order() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let (mut first, mut second, mut reader) = (house.connect(), house.connect(), house.connect());
    let leader = alone(&mut first, "g", 5).await;
    let asked = second.call(&joining("g", "", 5), 5).await;
    let id = asked.member_id.to_string();
    // It waits until the first member comes again.
    let join = second.send(&joining("g", &id, 5), 5).await;
    let append = second.send(&produce("t", batch(Compression::None, 1, &["behind a join"])), 9).await;
    let fetched = reader.fetch("t", 0, 60_000).await;
    assert_eq!(records(&fetched), [(0, "behind a join".to_owned())]);
    while beat(&mut first, "g", &leader, 4).await != 27 {
        tokio::task::yield_now().await;
    }
    let again = first.call(&joining("g", leader.member_id.as_str(), 5), 5).await;
    assert_eq!((again.error_code, again.generation_id, again.members.len()), (0, 2, 2));
    let (number, joined) = second.receive::<g::JoinGroupRequestData>(5).await;
    assert_eq!((number, joined.error_code, joined.generation_id), (join, 0, 2));
    assert_eq!((&joined.leader, joined.members.len()), (&leader.member_id, 0));
    let (number, appended) = second.receive::<g::ProduceRequestData>(9).await;
    assert_eq!((number, appended.responses[0].partition_responses[0].error_code), (append, 0));
    // A follower's sync waits for the leader's.
    second.send(&syncing("g", &joined, &[]), 5).await;
    let both = [again.member_id.to_string(), id.clone()];
    let synced = first.call(&syncing("g", &again, &[&both[0], &both[1]]), 5).await;
    assert_eq!(synced.assignment, Bytes::from(format!("partitions of {}", both[0])));
    let (_, synced) = second.receive::<g::SyncGroupRequestData>(5).await;
    assert_eq!(synced.assignment, Bytes::from(format!("partitions of {id}")));
    assert_eq!(synced.protocol_name.map(|name| name.to_string()), Some("range".to_owned()));
}

#[tokio::test]
async fn a_connection_that_closes_takes_its_parked_join_with_it() {
    let house = House::start().await;
    let mut first = house.connect();
    let leader = alone(&mut first, "g", 3).await;
    let mut second = house.connect();
    second.send(&joining("g", "", 3), 3).await;
    // Once the first is told of the newcomer, its join is parked.
    while beat(&mut first, "g", &leader, 3).await != 27 {
        tokio::task::yield_now().await;
    }
    drop(second);
    // Long before the time it had to come back in.
    let again = first.call(&joining("g", leader.member_id.as_str(), 3), 3).await;
    assert_eq!((again.error_code, again.members.len()), (0, 1));
}

pub(crate) type Committed<'a> = (&'a str, i32, i64, Option<&'a str>);

pub(crate) fn committing(
    group: &str,
    who: Option<&g::JoinGroupResponseData>,
    all: &[Committed<'_>],
) -> g::OffsetCommitRequestData {
    let topic = |(topic, partition_index, offset, metadata): &Committed<'_>| g::OffsetCommitRequestTopic {
        name: text(topic),
        partitions: vec![g::OffsetCommitRequestPartition {
            partition_index: *partition_index,
            committed_offset: *offset,
            committed_metadata: metadata.map(text),
            ..Default::default()
        }],
        ..Default::default()
    };
    g::OffsetCommitRequestData {
        group_id: text(group),
        generation_id_or_member_epoch: who.map_or(-1, |who| who.generation_id),
        member_id: who.map_or_else(KafkaString::default, |who| who.member_id.clone()),
        topics: all.iter().map(topic).collect(),
        ..Default::default()
    }
}

pub(crate) async fn commit(
    client: &mut Client,
    request: &g::OffsetCommitRequestData,
    version: i16,
) -> Vec<i16> {
    let answer = client.call(request, version).await;
    answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
}

/// What a group has committed of partitions of `t`, in version 7.
async fn committed(
    client: &mut Client,
    group: &str,
    partitions: Option<&[i32]>,
) -> Vec<(i32, i64, Option<String>)> {
    let topics = partitions.map(|indices| {
        let (name, partition_indexes) = (text("t"), indices.to_vec());
        vec![g::OffsetFetchRequestTopic { name, partition_indexes, ..Default::default() }]
    });
    let request = g::OffsetFetchRequestData { group_id: text(group), topics, ..Default::default() };
    let answer = client.call(&request, 7).await;
    assert_eq!(answer.error_code, 0);
    let all = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    let told = all.map(|told| {
        assert_eq!(told.error_code, 0);
        (told.partition_index, told.committed_offset, told.metadata.map(|metadata| metadata.to_string()))
    });
    told.collect()
}

#[tokio::test]
async fn offsets_come_back_as_they_were_committed() {
    let house = House::start().await;
    house.topic("t", 4, &[]).await;
    let mut client = house.connect();
    let long = "x".repeat(4_097);
    let all = [
        ("t", 0, 7, Some("note")),
        ("t", 1, 8, Some("")),
        ("t", 2, 9, None),
        ("t", 3, 1, Some(long.as_str())),
        ("t", 4, 1, None),
        ("none", 0, 1, None),
        ("t", 3, -3, None),
    ];
    for version in 2..=9 {
        let codes = commit(&mut client, &committing("g", None, &all), version).await;
        assert_eq!(codes, [0, 0, 0, 12, 3, 3, 0], "{version}");
    }
    let note = |note: &str| Some(note.to_owned());
    let expected = vec![(0, 7, note("note")), (1, 8, note("")), (2, 9, note(""))];
    assert_eq!(committed(&mut client, "g", None).await, expected);
    let nothing = |index| (index, -1, note(""));
    assert_eq!(
        committed(&mut client, "g", Some(&[2, 3, 9])).await,
        [(2, 9, note("")), nothing(3), nothing(9)]
    );
    assert_eq!(committed(&mut client, "nobody", Some(&[0])).await, [nothing(0)]);
    assert_eq!(committed(&mut client, "nobody", None).await, []);
}

#[tokio::test]
async fn a_negative_offset_takes_back_what_was_committed_and_the_earliest_is_kept() {
    let none = || Some(String::new());
    let house = House::start().await;
    house.topic("t", 2, &[]).await;
    let mut client = house.connect();
    let joined = alone(&mut client, "g", 5).await;
    let both = |first, second| [("t", 0, first, None), ("t", 1, second, None)];
    assert_eq!(commit(&mut client, &committing("g", Some(&joined), &both(5, 6)), 5).await, [0, 0]);
    assert_eq!(commit(&mut client, &committing("g", None, &both(-1, -2)), 5).await, [25, 25], "no member");
    assert_eq!(committed(&mut client, "g", None).await, [(0, 5, none()), (1, 6, none())]);
    assert_eq!(commit(&mut client, &committing("g", Some(&joined), &both(-2, 7)), 5).await, [0, 0]);
    assert_eq!(committed(&mut client, "g", None).await, [(0, -2, none()), (1, 7, none())]);
    assert_eq!(commit(&mut client, &committing("g", Some(&joined), &both(-3, 7)), 5).await, [0, 0]);
    assert_eq!(committed(&mut client, "g", None).await, [(1, 7, none())]);
    assert_eq!(commit(&mut client, &committing("g", Some(&joined), &both(8, -1)), 5).await, [0, 0]);
    assert_eq!(committed(&mut client, "g", None).await, [(0, 8, none())]);
}

#[tokio::test]
async fn offsets_are_looked_up_in_every_version_and_for_many_groups() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    assert_eq!(commit(&mut client, &committing("g", None, &[("t", 0, 7, None)]), 2).await, [0]);
    for version in 1..=7 {
        let topic = |name: &str| g::OffsetFetchRequestTopic {
            name: text(name),
            partition_indexes: vec![0],
            ..Default::default()
        };
        let topics = Some(vec![topic("t"), topic("none")]);
        let request = g::OffsetFetchRequestData { group_id: text("g"), topics, ..Default::default() };
        let found: Vec<_> = client.call(&request, version).await.topics;
        let found: Vec<_> = found.iter().map(|topic| topic.partitions[0].committed_offset).collect();
        assert_eq!(found, [7, -1], "{version}");
        let nameless = g::OffsetFetchRequestData { group_id: text(""), ..request };
        let refused = client.call(&nameless, version).await;
        let told = if version >= 2 { refused.error_code } else { refused.topics[0].partitions[0].error_code };
        assert_eq!(told, 24, "{version}");
    }
    for version in 8..=9 {
        let group = |name: &str| g::OffsetFetchRequestGroup { group_id: text(name), ..Default::default() };
        let groups = vec![group("g"), group(""), group("nobody")];
        let groups: Vec<_> =
            groups.into_iter().map(|group| g::OffsetFetchRequestGroup { topics: None, ..group }).collect();
        let request = g::OffsetFetchRequestData { groups, ..Default::default() };
        let found = client.call(&request, version).await.groups;
        let told: Vec<_> = found.iter().map(|group| (group.error_code, group.topics.len())).collect();
        assert_eq!(told, [(0, 1), (24, 0), (0, 0)], "{version}");
        assert_eq!(found[0].topics[0].partitions[0].committed_offset, 7);
    }
}

#[tokio::test]
async fn only_members_commit_for_a_group_that_has_some() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let joined = alone(&mut client, "g", 5).await;
    let offset = [("t", 0, 3, None)];
    assert_eq!(commit(&mut client, &committing("g", Some(&joined), &offset), 7).await, [0]);
    assert_eq!(commit(&mut client, &committing("g", None, &offset), 7).await, [25]);
    let stale = g::JoinGroupResponseData { generation_id: 7, ..joined.clone() };
    assert_eq!(commit(&mut client, &committing("g", Some(&stale), &offset), 7).await, [22]);
    let delete =
        g::DeleteGroupsRequestData { groups_names: vec![text("g"), text("none")], ..Default::default() };
    for version in 0..=2 {
        let results = client.call(&delete, version).await.results;
        let codes: Vec<_> =
            results.iter().map(|result| (result.group_id.as_str(), result.error_code)).collect();
        assert_eq!(codes, [("g", 68), ("none", 69)]);
    }
    assert_eq!(leave(&mut client, "g", &joined.member_id, 3).await, 0);
    assert_eq!(commit(&mut client, &committing("g", None, &[("t", 0, 4, None)]), 7).await, [0]);
    let forget = |topic: &str| g::OffsetDeleteRequestData {
        group_id: text("g"),
        topics: vec![g::OffsetDeleteRequestTopic {
            name: text(topic),
            partitions: vec![g::OffsetDeleteRequestPartition { partition_index: 0, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    for (topic, code) in [("none", 3), ("t", 0)] {
        let answer = client.call(&forget(topic), 0).await;
        assert_eq!((answer.error_code, answer.topics[0].partitions[0].error_code), (0, code), "{topic}");
    }
    assert_eq!(committed(&mut client, "g", Some(&[0])).await[0].1, -1);
    let nobody = g::OffsetDeleteRequestData { group_id: text("nobody"), ..forget("t") };
    assert_eq!(client.call(&nobody, 0).await.error_code, 69);
    assert_eq!(client.call(&delete, 2).await.results[0].error_code, 0);
}

#[tokio::test]
async fn groups_are_described_and_listed_in_every_version() {
    let house = House::start().await;
    let mut client = house.connect();
    let joined = alone(&mut client, "g", 5).await;
    for version in 0..=6 {
        let request = g::DescribeGroupsRequestData {
            groups: vec![text("g"), text("none"), text("")],
            ..Default::default()
        };
        let [group, none, nameless] = &client.call(&request, version).await.groups[..] else {
            panic!("three groups")
        };
        assert_eq!((group.error_code, group.group_state.as_str()), (0, "Stable"), "{version}");
        assert_eq!((group.protocol_type.as_str(), group.protocol_data.as_str()), ("consumer", "range"));
        let [member] = &group.members[..] else { panic!("one member") };
        assert_eq!(member.member_id, joined.member_id);
        assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("test", "/127.0.0.1"));
        assert_eq!(&member.member_metadata[..], b"topics");
        assert_eq!(
            member.member_assignment,
            Bytes::from(format!("partitions of {}", joined.member_id.as_str()))
        );
        assert_eq!((none.error_code, none.group_state.as_str()), (if version >= 6 { 69 } else { 0 }, "Dead"));
        assert_eq!(nameless.error_code, 24);
    }
    let listed = |answer: g::ListGroupsResponseData| {
        assert_eq!(answer.error_code, 0);
        let groups = answer.groups.into_iter();
        groups.map(|group| (group.group_id.to_string(), group.protocol_type.to_string())).collect::<Vec<_>>()
    };
    let expected = [("g".to_owned(), "consumer".to_owned())];
    for version in 0..=5 {
        let all = client.call(&g::ListGroupsRequestData::default(), version).await;
        assert_eq!(listed(all), expected, "{version}");
    }
    for (states, types, found) in [
        (&["stable", "Empty"][..], &[][..], true),
        (&["Dead"], &[], false),
        (&[], &["Classic"], true),
        (&[], &["consumer"], false),
    ] {
        let request = g::ListGroupsRequestData {
            states_filter: states.iter().map(|state| text(state)).collect(),
            types_filter: types.iter().map(|kind| text(kind)).collect(),
            ..Default::default()
        };
        assert_eq!(listed(client.call(&request, 5).await).len(), usize::from(found), "{states:?} {types:?}");
    }
}

#[tokio::test]
async fn the_coordinator_is_told_and_no_other_node_answers_for_a_group() {
    let house = House::start().await;
    house.neighbour(2, "south");
    let mut client = house.connect();
    let mut elsewhere = None;
    for number in 0..64 {
        let group = format!("g-{number}");
        let key = g::FindCoordinatorRequestData { key: text(&group), ..Default::default() };
        let found = client.call(&key, 2).await;
        assert_eq!(found.error_code, 0);
        match found.node_id {
            1 => assert_eq!(found.host.as_str(), "house.example"),
            _ => {
                assert_eq!((found.node_id, found.host.as_str()), (2, "house-2.example"));
                elsewhere = Some(group);
            }
        }
    }
    let group = elsewhere.expect("one of many groups is looked after by the neighbour");
    assert_eq!(client.call(&joining(&group, "", 3), 3).await.error_code, 16);
    assert_eq!(commit(&mut client, &committing(&group, None, &[]), 7).await, Vec::<i16>::new());
    let nameless =
        g::FindCoordinatorRequestData { coordinator_keys: vec![text(""), text("g")], ..Default::default() };
    let found = client.call(&nameless, 4).await.coordinators;
    assert_eq!(found.iter().map(|found| found.error_code).collect::<Vec<_>>(), [24, 0]);
}
