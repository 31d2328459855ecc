//! Consumer groups over gRPC, spoken by hand.

use streamhouse_proto::v1;
use streamhouse_proto::v1::group_service_client::GroupServiceClient;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::harness::{Node, Session, batch, reason};

type Client = GroupServiceClient<Channel>;

async fn client(node: &Node) -> Client {
    let address = format!("http://{}", node.running.addresses().grpc);
    let channel = Channel::from_shared(address).expect("an address").connect().await.expect("connected");
    GroupServiceClient::new(channel)
}

fn join(group: &str, member: &str) -> v1::JoinGroupRequest {
    let protocol = v1::GroupProtocol { name: "range".into(), metadata: SUBSCRIPTION.into() };
    v1::JoinGroupRequest {
        group_id: group.into(),
        member_id: member.into(),
        client_id: "by-hand".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// Topic "orders".
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff";
/// Partition 1 of "orders".
const ASSIGNMENT: &[u8] = b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";

/// Joins as a new member, once the node looks after groups; the id that it is told to join with.
async fn new_id(client: &mut Client, group: &str) -> String {
    loop {
        let status = client.join_group(join(group, "")).await.expect_err("a new member needs an id");
        let info = status.get_details_error_info().expect("error info");
        if info.reason == "MEMBER_ID_REQUIRED" {
            return info.metadata["member_id"].clone();
        }
        assert_eq!(info.metadata["retryable"], "true", "{status}");
    }
}

/// A group of one member in its first generation.
async fn member(client: &mut Client, group: &str) -> v1::GroupMemberRef {
    let id = new_id(client, group).await;
    let joined = client.join_group(join(group, &id)).await.expect("joined").into_inner();
    assert_eq!((&joined.member_id, &joined.leader_id, joined.generation), (&id, &id, 1));
    assert_eq!((joined.protocol.as_str(), joined.members.len()), ("range", 1));
    assert_eq!(&joined.members[0].metadata[..], SUBSCRIPTION);
    let who = v1::GroupMemberRef { id: id.clone(), instance_id: None, generation: 1 };
    let assignment = v1::GroupAssignment { member_id: id, assignment: ASSIGNMENT.into() };
    let sync = v1::SyncGroupRequest {
        group_id: group.into(),
        member: Some(who.clone()),
        assignments: vec![assignment],
        ..Default::default()
    };
    let synced = client.sync_group(sync).await.expect("synced").into_inner();
    assert_eq!(&synced.assignment[..], ASSIGNMENT);
    who
}

async fn describe(client: &mut Client, group: &str) -> v1::Group {
    let request = v1::DescribeGroupRequest { group_id: group.into() };
    client.describe_group(request).await.expect("described").into_inner().group.expect("a group")
}

fn commit(topic: &str, partition: u32, offset: u64) -> v1::OffsetToCommit {
    let metadata = Some("note".to_owned());
    v1::OffsetToCommit { topic: topic.into(), partition, offset, epoch: None, metadata }
}

#[tokio::test]
async fn a_member_joins_commits_is_described_and_leaves() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 2).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(1, batch(&["a", "b", "c", "d", "e"])).await;
    session.acked().await;
    let mut client = client(&node).await;
    let who = member(&mut client, "billing").await;

    let beat = |generation| v1::HeartbeatRequest {
        group_id: "billing".into(),
        member: Some(v1::GroupMemberRef { generation, ..who.clone() }),
    };
    client.heartbeat(beat(1)).await.expect("it is there");
    let status = client.heartbeat(beat(7)).await.expect_err("another generation");
    assert_eq!(reason(&status), "ILLEGAL_GENERATION");

    let offsets = vec![commit("orders", 1, 3), commit("orders", 9, 3), commit("nothing", 0, 3)];
    let request = v1::CommitOffsetsRequest { group_id: "billing".into(), member: Some(who.clone()), offsets };
    let committed = client.commit_offsets(request.clone()).await.expect("committed").into_inner();
    let codes: Vec<_> = committed.results.iter().map(|result| result.code).collect();
    assert_eq!(codes, [0, tonic::Code::NotFound as i32, tonic::Code::NotFound as i32]);
    let outside = v1::CommitOffsetsRequest { member: None, ..request };
    client.commit_offsets(outside).await.expect_err("only members commit");

    let place = |partition| v1::TopicPartition { topic: "orders".into(), partition };
    let partitions = vec![place(0), place(1)];
    let request = v1::FetchOffsetsRequest { group_id: "billing".into(), partitions };
    let found = client.fetch_offsets(request).await.expect("found").into_inner().offsets;
    let found: Vec<_> =
        found.into_iter().map(|found| (found.partition, found.offset, found.metadata)).collect();
    assert_eq!(found, [(0, None, None), (1, Some(3), Some("note".to_owned()))]);

    let group = describe(&mut client, "billing").await;
    assert_eq!(
        (group.state(), group.protocol.as_str(), group.lag_records),
        (v1::GroupState::Stable, "range", 2)
    );
    let described = &group.members[0];
    assert_eq!(
        (&described.id, described.client_id.as_str(), described.host.as_str()),
        (&who.id, "by-hand", "127.0.0.1")
    );
    assert_eq!(
        (&described.topics[..], &described.assigned[..]),
        (&["orders".to_owned()][..], &[place(1)][..])
    );
    let row = &group.partitions[0];
    assert_eq!(
        (row.partition, row.committed_offset, row.lag_records, row.high_watermark),
        (1, Some(3), Some(2), 5)
    );
    assert_eq!(row.member_id, who.id);

    let leaving = v1::LeavingMember { id: who.id.clone(), instance_id: None };
    let leave = v1::LeaveGroupRequest { group_id: "billing".into(), members: vec![leaving] };
    let left = client.leave_group(leave).await.expect("left").into_inner();
    assert_eq!(left.results.iter().map(|result| result.code).collect::<Vec<_>>(), [0]);
    let status = client.heartbeat(beat(1)).await.expect_err("it is gone");
    assert_eq!(reason(&status), "UNKNOWN_MEMBER");
    assert_eq!(describe(&mut client, "billing").await.state(), v1::GroupState::Empty);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn groups_are_listed_moved_and_deleted_but_not_under_their_members() {
    use v1::group_seek::To;
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 2).await;
    let mut client = client(&node).await;
    member(&mut client, "busy").await;
    let start = v1::Position { at: Some(v1::position::At::Start(v1::position::Start {})) };
    let seek = |group: &str, to| v1::SeekGroupRequest {
        group_id: group.into(),
        seeks: vec![v1::GroupSeek { topic: "orders".into(), partition: None, to }],
        ..Default::default()
    };
    for group in ["b1", "b2", "b3"] {
        let sought =
            client.seek_group(seek(group, Some(To::Position(start)))).await.expect("moved").into_inner();
        let offsets: Vec<_> = sought.partitions.iter().map(|row| (row.from_offset, row.to_offset)).collect();
        assert_eq!(offsets, [(None, Some(0)), (None, Some(0))]);
    }
    let status =
        client.seek_group(seek("busy", Some(To::Position(start)))).await.expect_err("it has a member");
    assert_eq!(reason(&status), "GROUP_NOT_EMPTY");
    let status = client.seek_group(seek("b1", None)).await.expect_err("where to is missing");
    assert_eq!(reason(&status), "INVALID_ARGUMENT");
    let status = client.seek_group(seek("new", Some(To::By(1)))).await.expect_err("nothing to count from");
    assert_eq!(reason(&status), "INVALID_POSITION");
    let status = client.seek_group(seek("", Some(To::By(1)))).await.expect_err("no group");
    assert_eq!(reason(&status), "INVALID_GROUP_ID");

    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListGroupsRequest { page_size: 2, page_token, id_prefix: "b".into() };
        let page = client.list_groups(request).await.expect("a page").into_inner();
        pages.push(page.groups.into_iter().map(|group| group.id).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec!["b1", "b2"], vec!["b3", "busy"]]);

    let delete = |group: &str, validate_only| v1::DeleteGroupRequest {
        group_id: group.into(),
        validate_only,
        ..Default::default()
    };
    for validate_only in [true, false] {
        let status = client.delete_group(delete("busy", validate_only)).await.expect_err("it has a member");
        assert_eq!(reason(&status), "GROUP_NOT_EMPTY");
        client.delete_group(delete("b1", validate_only)).await.expect("deleted");
    }
    let status = client.delete_group(delete("b1", false)).await.expect_err("it is gone");
    assert_eq!(reason(&status), "GROUP_NOT_FOUND");
    node.stop().await;
}
