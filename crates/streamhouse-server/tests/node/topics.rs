use streamhouse_proto::v1;

use crate::harness::{Node, Session, batch, config, reason};

#[tokio::test]
async fn topics_are_listed_page_by_page_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    for name in ["b2", "a1", "b1", "c1", "b3"] {
        node.create(name, 1).await;
    }
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListTopicsRequest { page_size: 2, page_token, name_prefix: "b".into() };
        let page = node.topics.list_topics(request).await.expect("a page").into_inner();
        found.push(page.topics.into_iter().map(|topic| topic.name).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, [vec!["b1", "b2"], vec!["b3"]]);
    node.stop().await;
}

#[tokio::test]
async fn a_topic_is_made_changed_and_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let create = v1::CreateTopicRequest {
        name: "orders".into(),
        partitions: 3,
        settings: [("max.message.bytes".to_owned(), "2048".to_owned())].into(),
        request_id: "67e55044-10b1-426f-9247-bb680e5fe0c8".into(),
        validate_only: false,
    };
    let made =
        node.topics.create_topic(create.clone()).await.expect("made").into_inner().topic.expect("a topic");
    assert_eq!((made.partition_count, made.partitions.len()), (3, 3));
    let setting =
        made.settings.iter().find(|setting| setting.name == "max.message.bytes").expect("a setting");
    assert_eq!((setting.value.as_str(), setting.source()), ("2048", v1::SettingSource::Topic));
    // The same request again gets its first answer, another one is refused.
    let again = node.topics.create_topic(create.clone()).await.expect("its answer").into_inner();
    assert_eq!(again.topic.map(|topic| topic.id), Some(made.id));
    let other = v1::CreateTopicRequest { request_id: String::new(), ..create };
    let status = node.topics.create_topic(other).await.expect_err("it exists");
    assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::AlreadyExists, "TOPIC_EXISTS"));

    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(0, batch(&["a"])).await;
    session.acked().await;
    let grow = v1::AddPartitionsRequest { name: "orders".into(), total: 5, ..Default::default() };
    node.topics.add_partitions(grow).await.expect("grown");
    session.send(4, batch(&["b"])).await;
    assert_eq!(session.acked().await.base_offset, 0);
    let described = node.topics.describe_topic(v1::DescribeTopicRequest { name: "orders".into() }).await;
    let described = described.expect("described").into_inner().topic.expect("a topic");
    assert_eq!((described.partition_count, described.records), (5, 2));
    assert!(described.stored_bytes > 0);
    assert!(described.partitions[0].last_append.is_some() && described.partitions[1].last_append.is_none());

    let delete = v1::DeleteTopicRequest { name: "orders".into(), ..Default::default() };
    node.topics.delete_topic(delete).await.expect("deleted");
    let status = node.topics.describe_topic(v1::DescribeTopicRequest { name: "orders".into() }).await;
    assert_eq!(status.expect_err("gone").code(), tonic::Code::NotFound);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn what_is_only_checked_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let check = |partitions| v1::CreateTopicRequest {
        name: "orders".into(),
        partitions,
        validate_only: true,
        ..Default::default()
    };
    let would =
        node.topics.create_topic(check(3)).await.expect("possible").into_inner().topic.expect("a topic");
    assert_eq!(would.partition_count, 3);
    assert_eq!(
        node.topics.create_topic(check(10_001)).await.expect_err("too many").code(),
        tonic::Code::InvalidArgument
    );
    let listed =
        node.topics.list_topics(v1::ListTopicsRequest::default()).await.expect("a page").into_inner();
    assert!(listed.topics.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn names_and_settings_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    for name in ["", "..", "a/b", "a b", &"a".repeat(250)] {
        let request = v1::CreateTopicRequest { name: name.to_owned(), ..Default::default() };
        let status = node.topics.create_topic(request).await.expect_err("refused");
        assert_eq!(reason(&status), "INVALID_NAME", "{name:?}");
    }
    let request = v1::CreateTopicRequest {
        name: "orders".into(),
        settings: [("cleanup.policy".to_owned(), "shred".to_owned())].into(),
        ..Default::default()
    };
    let status = node.topics.create_topic(request).await.expect_err("refused");
    assert_eq!(reason(&status), "INVALID_SETTING");
    assert!(status.message().contains("cleanup.policy"), "{}", status.message());
    node.stop().await;
}

#[tokio::test]
async fn a_topic_cannot_allow_larger_batches_than_the_node_takes() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("store.url", "memory:///"), ("limits.max_batch_bytes", "64KiB")];
    let mut node = Node::with(config(dir.path(), &settings)).await.expect("started");
    let create = |bytes: &str| v1::CreateTopicRequest {
        name: "orders".into(),
        settings: [("max.message.bytes".to_owned(), bytes.to_owned())].into(),
        ..Default::default()
    };
    let status = node.topics.create_topic(create("65537")).await.expect_err("refused");
    assert_eq!(reason(&status), "INVALID_SETTING");
    node.topics.create_topic(create("65536")).await.expect("made");
    let change = v1::SettingChange { name: "max.message.bytes".into(), value: Some("65537".into()) };
    let alter = v1::AlterTopicRequest { name: "orders".into(), changes: vec![change], ..Default::default() };
    assert_eq!(reason(&node.topics.alter_topic(alter).await.expect_err("refused")), "INVALID_SETTING");
    node.stop().await;
}
