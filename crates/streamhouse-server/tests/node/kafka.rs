//! The Kafka port of a node, by hand.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Node, Session, batch, config};

/// Sends a request and takes its answer without the head.
async fn call(io: &mut TcpStream, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    frame.extend((-1_i16).to_be_bytes());
    frame.extend(body);
    let length = i32::try_from(frame.len()).expect("short").to_be_bytes();
    io.write_all(&[&length[..], &frame].concat()).await.expect("written");
    let length = io.read_i32().await.expect("an answer");
    assert_eq!(io.read_i32().await.expect("its number"), 7);
    let mut answer = vec![0; usize::try_from(length - 4).expect("a length")];
    io.read_exact(&mut answer).await.expect("a whole answer");
    answer
}

/// A text in the plain form.
fn text(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).expect("short").to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

/// Metadata in version 1: of all topics.
const ALL: &[u8] = &[0xff; 4];

#[tokio::test]
async fn a_kafka_client_finds_the_node_and_reads_what_was_written_over_grpc() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(0, batch(&["hello kafka"])).await;
    session.acked().await;
    drop(session);
    let address = node.running.addresses().kafka;
    let mut io = TcpStream::connect(address).await.expect("connected");

    // One broker: its number, host and port.
    let metadata = call(&mut io, 3, 1, ALL).await;
    let port = i32::from(address.port()).to_be_bytes();
    let broker =
        [&1_i32.to_be_bytes()[..], &1_i32.to_be_bytes(), &text(&address.ip().to_string()), &port].concat();
    assert_eq!(metadata[..broker.len()], broker[..]);
    assert!(metadata.windows(8).any(|window| window == text("orders")));

    // Fetch in version 4: replica, wait, least, most, isolation; one topic with one partition from offset 0.
    let mut fetch = Vec::new();
    for number in [-1_i32, 100, 1, 1 << 20] {
        fetch.extend(number.to_be_bytes());
    }
    fetch.push(0);
    fetch.extend(1_i32.to_be_bytes());
    fetch.extend(text("orders"));
    fetch.extend(1_i32.to_be_bytes());
    fetch.extend(0_i32.to_be_bytes());
    fetch.extend(0_i64.to_be_bytes());
    fetch.extend((1_i32 << 20).to_be_bytes());
    let fetched = call(&mut io, 1, 4, &fetch).await;
    assert!(fetched.windows(11).any(|window| window == b"hello kafka"), "{fetched:?}");

    node.stop().await;
    assert_eq!(io.read(&mut [0; 1]).await.unwrap_or(0), 0, "the node is gone and its connection is not");
}

#[tokio::test]
async fn clients_are_told_the_advertised_address() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("store.url", "memory:///"), ("listeners.advertised_kafka", "kafka.example:19092")];
    let node = Node::with(config(dir.path(), &settings)).await.expect("started");
    let mut io = TcpStream::connect(node.running.addresses().kafka).await.expect("connected");
    let metadata = call(&mut io, 3, 1, ALL).await;
    let told = [&text("kafka.example")[..], &19_092_i32.to_be_bytes()].concat();
    assert!(metadata.windows(told.len()).any(|window| window == told));
    node.stop().await;
}
