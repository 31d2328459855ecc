use std::path::Path;

use streamhouse_types::error_code::ErrorCode;

use crate::harness::{Node, Session, batch, config};

async fn write(dir: &Path, values: &[&str]) {
    let mut node = Node::start(dir).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    for value in values {
        session.send(0, batch(&[value])).await;
        session.acked().await;
    }
    drop(session);
    node.stop().await;
}

#[track_caller]
fn refusal(result: Result<Node, streamhouse_server::StartError>) -> String {
    match result {
        Ok(_) => panic!("the node started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_restart_keeps_every_acknowledged_record() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &["a", "b"]).await;
    write(dir.path(), &["c"]).await;
    let mut node = Node::start(dir.path()).await;
    assert_eq!(node.values("orders", 0, 0).await, ["a", "b", "c"]);
    node.stop().await;
}

#[tokio::test]
async fn the_addresses_are_written_down_while_the_node_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::start(dir.path()).await;
    let file = dir.path().join("endpoints.json");
    let text = std::fs::read_to_string(&file).expect("written");
    let endpoints: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert_eq!(endpoints["grpc"], node.running.addresses().grpc.to_string());
    assert_eq!(endpoints["http"], node.running.addresses().http.to_string());
    assert_eq!(endpoints["kafka"], node.running.addresses().kafka.to_string());
    node.stop().await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::start(dir.path()).await;
    let text = refusal(Node::with(config(dir.path(), &[])).await);
    assert!(text.contains("already in use by pid"), "{text}");
    node.stop().await;
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    write(ours.path(), &["a"]).await;
    write(theirs.path(), &["b"]).await;
    let store = format!("file://{}", theirs.path().join("store").display());
    let text = refusal(Node::with(config(ours.path(), &[("store.url", &store)])).await);
    assert!(text.contains("belongs to cluster") && text.contains("store.url"), "{text}");
}

#[tokio::test]
async fn another_node_id_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &["a"]).await;
    let error = Node::with(config(dir.path(), &[("node.id", "2")])).await.err().expect("refused");
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("belongs to node 1"), "{text}");
}

#[tokio::test]
async fn a_wiped_data_directory_does_not_begin_a_new_cluster_over_the_old_one() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &["a"]).await;
    std::fs::remove_dir_all(dir.path().join("raft")).expect("wiped");
    let text = refusal(Node::with(config(dir.path(), &[])).await);
    assert!(text.contains("holds cluster") && text.contains("restore"), "{text}");
}

#[tokio::test]
async fn a_store_that_lost_its_objects_is_not_taken_for_empty() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &["a"]).await;
    let empty = tempfile::tempdir().expect("a folder");
    let store = format!("file://{}", empty.path().display());
    let text = refusal(Node::with(config(dir.path(), &[("store.url", &store)])).await);
    assert!(text.contains("is empty") && text.contains("store.url"), "{text}");
}

#[tokio::test]
async fn an_empty_directory_founds_a_cluster_only_where_it_may() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = refusal(Node::with(config(dir.path(), &[("cluster.bootstrap", "false")])).await);
    assert!(text.contains("cluster.bootstrap"), "{text}");
}

#[tokio::test]
async fn a_data_directory_that_lost_a_part_is_damaged_and_no_bug_of_the_node() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), &["a"]).await;
    let code = async || Node::with(config(dir.path(), &[])).await.err().expect("refused").code();
    let log = dir.path().join("raft").join("log");
    std::fs::rename(&log, dir.path().join("kept")).expect("moved away");
    assert_eq!(code().await, ErrorCode::StorageCorrupt);
    std::fs::rename(dir.path().join("kept"), &log).expect("moved back");
    std::fs::write(dir.path().join("raft").join("identity"), "garbage").expect("written");
    assert_eq!(code().await, ErrorCode::StorageCorrupt);
}
