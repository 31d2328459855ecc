use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Node, Session, batch};

async fn get(node: &Node, path: &str, accept: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(node.running.addresses().http).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).expect("a body");
    (code, body)
}

#[tokio::test]
async fn a_ready_node_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::in_memory(dir.path()).await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(get(&node, path, "*/*").await, (200, "ok\n".to_owned()), "{path}");
    }
    let (_, verbose) = get(&node, "/readyz?verbose", "*/*").await;
    assert!(verbose.contains("[+] metadata recovered"), "{verbose}");
    let (_, json) = get(&node, "/livez", "application/json").await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    assert_eq!(json["ok"], true);
    assert!(json["checks"].as_array().is_some_and(|checks| checks.len() >= 3), "{json}");
    let (code, _) = get(&node, "/nothing", "*/*").await;
    assert_eq!(code, 404);
    node.running.health().drain();
    assert_eq!(get(&node, "/readyz", "*/*").await.0, 503);
    assert_eq!(get(&node, "/livez", "*/*").await.0, 200);
    node.stop().await;
}

#[tokio::test]
async fn metrics_have_buckets_and_say_what_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(0, batch(&["a"])).await;
    session.acked().await;
    let (code, page) = get(&node, "/metrics", "*/*").await;
    assert_eq!(code, 200);
    for part in [
        "streamhouse_build_info{version=",
        "streamhouse_node_state{state=\"ready\"} 1",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "streamhouse_requests_total{",
        "streamhouse_request_duration_seconds_bucket{",
        "streamhouse_object_store_request_seconds_bucket{",
        "streamhouse_watchdog_stalled_seconds{loop=",
    ] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert!(!page.contains("quantile="), "a histogram without buckets:\n{page}");
    drop(session);
    node.stop().await;
}
