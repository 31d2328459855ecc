//! The server as a client sees it: over HTTP, byte by byte.

use std::net::SocketAddr;

use streamhouse_faults::{Command, Fault, FaultServer, Op, ServerOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One request on a connection of its own; what came back until the end, and whether it ended well.
async fn send(address: SocketAddr, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    let length = body.len();
    let request = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("send");
    stream.write_all(body).await.expect("send");
    let mut reply = Vec::new();
    // A connection that is cut gives what came before.
    let _ = stream.read_to_end(&mut reply).await;
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n").map_or(reply.len(), |at| at + 4);
    let body = reply.split_off(end);
    (String::from_utf8_lossy(&reply).to_lowercase(), body)
}

async fn put(server: &FaultServer, key: &str, body: &[u8]) -> String {
    send(server.address(), &format!("PUT /bucket/{key} HTTP/1.1\r\nif-none-match: *"), body).await.0
}

async fn get(server: &FaultServer, key: &str, range: &str) -> (String, Vec<u8>) {
    send(server.address(), &format!("GET /bucket/{key} HTTP/1.1\r\nrange: bytes={range}"), b"").await
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or("none")
}

async fn start() -> FaultServer {
    FaultServer::start(ServerOptions::default()).await.expect("start")
}

fn stored(server: &FaultServer, key: &str) -> bool {
    server.objects().get("bucket", key).flatten().is_some()
}

#[tokio::test]
async fn what_is_put_can_be_read_in_ranges_and_not_be_put_again() {
    let server = start().await;
    assert_eq!(status(&put(&server, "k", b"0123456789").await), "200");
    assert_eq!(status(&put(&server, "k", b"other").await), "412");
    let (head, body) = get(&server, "k", "2-5").await;
    assert_eq!((status(&head), &body[..]), ("206", &b"2345"[..]));
    assert!(head.contains("content-range: bytes 2-5/10"), "{head}");
    assert_eq!(status(&get(&server, "k", "10-12").await.0), "416");
    assert_eq!(status(&get(&server, "missing", "0-1").await.0), "404");
}

#[tokio::test]
async fn of_many_who_create_one_key_at_once_one_wins() {
    let server = start().await;
    let puts = (0..16u8).map(|n| {
        let server = &server;
        async move { status(&put(server, "k", &[n; 1_000]).await).to_owned() }
    });
    let answers = futures::future::join_all(puts).await;
    assert_eq!(answers.iter().filter(|answer| *answer == "200").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "412").count(), 15, "{answers:?}");
}

#[tokio::test]
async fn writes_fail_before_and_after_they_are_done() {
    let server = start().await;
    let cases = [
        (Fault::FailBefore, "500", false),
        (Fault::FailAfter, "500", true),
        (Fault::SlowDown, "503", false),
        (Fault::Deny, "403", false),
        (Fault::CutBefore, "none", false),
        (Fault::CutAfter, "none", true),
    ];
    for (fault, expected, done) in cases {
        let key = format!("{fault:?}");
        server.faults().push_next(Op::Put, fault, 1);
        assert_eq!(status(&put(&server, &key, b"x").await), expected, "{fault:?}");
        assert_eq!(stored(&server, &key), done, "{fault:?}");
        assert_eq!(server.faults().counters().faults.get(&fault), Some(&1));
    }
}

#[tokio::test]
async fn reads_come_short_cut_or_wrong() {
    let server = start().await;
    put(&server, "k", b"0123456789").await;
    for (fault, announced, expected) in [
        (Fault::Truncate, 5, &b"01234"[..]),
        (Fault::CutBody, 10, b"01234"),
        (Fault::Garble, 10, b"0123446789"),
    ] {
        server.faults().push_next(Op::Get, fault, 1);
        let (head, body) = get(&server, "k", "0-9").await;
        assert!(head.contains(&format!("content-length: {announced}")), "{fault:?}: {head}");
        assert_eq!(body, expected, "{fault:?}");
    }
}

#[tokio::test]
async fn a_stopped_server_takes_requests_and_does_them_when_it_goes_on() {
    let server = start().await;
    server.faults().stop();
    let (head, ()) = tokio::join!(put(&server, "k", b"x"), async {
        while server.faults().counters().requests.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!stored(&server, "k"));
        server.faults().resume();
    });
    assert_eq!(status(&head), "200");
}

#[tokio::test]
async fn a_refusing_server_comes_back_at_the_same_address() {
    let server = start().await;
    put(&server, "k", b"x").await;
    server.faults().refuse();
    while TcpStream::connect(server.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.faults().accept();
    while TcpStream::connect(server.address()).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&server, "k", "0-0").await.1, b"x");
}

#[tokio::test]
async fn a_listing_pages_through_a_prefix() {
    let server = start().await;
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        put(&server, key, b"x").await;
    }
    let list = |more: &str| {
        let head = format!("GET /bucket?list-type=2&prefix=a%2F&max-keys=2{more} HTTP/1.1");
        let address = server.address();
        async move { String::from_utf8(send(address, &head, b"").await.1).expect("xml") }
    };
    let first = list("").await;
    assert!(first.contains("<Key>a/1</Key>") && first.contains("<Key>a/2</Key>"), "{first}");
    assert!(!first.contains("a/3") && first.contains("<IsTruncated>true</IsTruncated>"), "{first}");
    let second = list("&continuation-token=a%2F2").await;
    assert!(second.contains("<Key>a/3</Key>") && !second.contains("b/1"), "{second}");
    assert!(second.contains("<IsTruncated>false</IsTruncated>"), "{second}");
    assert!(list("&start-after=a%2F2").await.contains("<Key>a/3</Key>"));
}

#[tokio::test]
async fn faults_are_controlled_over_http() {
    let server = start().await;
    let control: SocketAddr = server
        .control_url()
        .trim_start_matches("http://")
        .trim_end_matches("/_faults")
        .parse()
        .expect("address");
    let command = serde_json::to_vec(&Command::Next { op: Op::Put, fault: Fault::FailAfter, count: 1 });
    let (head, _) = send(control, "POST /_faults HTTP/1.1", &command.expect("plain data")).await;
    assert_eq!(status(&head), "200");
    assert_eq!(status(&put(&server, "k", b"x").await), "500");
    let (_, report) = send(control, "GET /_faults HTTP/1.1", b"").await;
    let report: serde_json::Value = serde_json::from_slice(&report).expect("json");
    assert_eq!(report["faults"]["fail_after"], 1);
    assert_eq!((&report["objects"], &report["bytes"]), (&1.into(), &1.into()));
    assert_eq!(status(&send(control, "POST /_faults HTTP/1.1", b"{\"stpo\": 1}").await.0), "400");
}
