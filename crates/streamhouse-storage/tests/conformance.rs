//! What every store must do, run on all of them: memory, a folder, S3.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use streamhouse_env::{Connection, Env, Listener, Net, TcpNet};
use streamhouse_faults::{FaultServer, ServerOptions};
use streamhouse_storage::{
    Blob, BlobError, Key, Layout, LocalBlob, Payload, Prefix, RemoteBlob, StoreSettings, open_blob,
};
use streamhouse_types::{ClusterId, LogIndex, NodeId};

/// Runs a check on every store. Each gets a fresh one.
async fn on_every_store<F: Future<Output = ()>>(check: impl Fn(&'static str, Arc<dyn Blob>) -> F) {
    check("memory", Arc::new(RemoteBlob::new(Arc::new(InMemory::new()), ""))).await;
    check("memory with a prefix", Arc::new(RemoteBlob::new(Arc::new(InMemory::new()), "deep/prefix"))).await;
    let dir = tempfile::tempdir().expect("temp dir");
    check("file", Arc::new(LocalBlob::open(dir.path().join("store")).await.expect("open"))).await;
    for url in ["s3://bucket", "s3://bucket/deep/prefix"] {
        let server = FaultServer::start(ServerOptions::default()).await.expect("start");
        check("s3", open_blob(&s3_settings(&server, url), &Env::system()).await.expect("open")).await;
    }
    let server = FaultServer::start(ServerOptions::default()).await.expect("start");
    let env = Env { net: Arc::new(OwnSockets), ..Env::system() };
    check("s3 over own sockets", open_blob(&s3_settings(&server, "s3://bucket"), &env).await.expect("open"))
        .await;
}

/// The machine's sockets, given out as if they were not.
#[derive(Debug)]
struct OwnSockets;

#[async_trait::async_trait]
impl Net for OwnSockets {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        TcpNet.listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        TcpNet.connect(address).await
    }

    fn is_machine(&self) -> bool {
        false
    }
}

fn s3_settings(server: &FaultServer, url: &str) -> StoreSettings {
    StoreSettings {
        endpoint: Some(server.endpoint()),
        access_key_id: Some("any".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        allow_http: true,
        ..StoreSettings::at(url)
    }
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

fn payload(bytes: &[u8]) -> Payload {
    Payload::from(Bytes::copy_from_slice(bytes))
}

async fn read(blob: &dyn Blob, text: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>, BlobError> {
    blob.get_range(&key(text), range, u64::MAX).await.map(|pieces| pieces.concat())
}

#[tokio::test]
async fn what_is_put_is_read_back() {
    on_every_store(|name, blob| async move {
        let pieces: Vec<Bytes> = (0..100u8).map(|n| Bytes::from(vec![n; 1_000 * usize::from(n)])).collect();
        let whole = pieces.concat();
        blob.put(&key("a/b/c"), &Payload::new(pieces)).await.expect(name);
        let length = whole.len() as u64;
        assert_eq!(read(&*blob, "a/b/c", 0..length).await.expect(name), whole, "{name}");
        for (start, end) in [(0, 1), (1, 2), (999, 1_001), (length - 1, length), (100_000, 2_000_000)] {
            let expected =
                &whole[usize::try_from(start).expect("small")..usize::try_from(end).expect("small")];
            assert_eq!(
                read(&*blob, "a/b/c", start..end).await.expect(name),
                expected,
                "{name}: {start}..{end}"
            );
        }
        assert_eq!(blob.head(&key("a/b/c")).await.expect(name).length, length, "{name}");
    })
    .await;
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    on_every_store(|name, blob| async move {
        blob.put(&key("a"), &payload(b"")).await.expect(name);
        assert_eq!(blob.head(&key("a")).await.expect(name).length, 0, "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_name_is_taken_once() {
    on_every_store(|name, blob| async move {
        blob.put(&key("a"), &payload(b"first")).await.expect(name);
        let error = blob.put(&key("a"), &payload(b"second")).await.expect_err(name);
        assert!(matches!(error, BlobError::AlreadyExists), "{name}: {error:?}");
        assert_eq!(read(&*blob, "a", 0..5).await.expect(name), b"first", "{name}");
    })
    .await;
}

#[tokio::test]
async fn of_many_who_take_one_name_at_once_one_wins() {
    on_every_store(|name, blob| async move {
        let puts = (0..16u8).map(|n| {
            let blob = blob.clone();
            tokio::spawn(async move { blob.put(&key("a"), &payload(&[n; 10_000])).await })
        });
        let mut winners = Vec::new();
        for (n, put) in (0u8..).zip(futures::future::join_all(puts).await) {
            match put.expect("joined") {
                Ok(()) => winners.push(n),
                Err(error) => assert!(matches!(error, BlobError::AlreadyExists), "{name}: {error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "{name}");
        assert_eq!(read(&*blob, "a", 0..10_000).await.expect(name), vec![winners[0]; 10_000], "{name}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_told_so() {
    on_every_store(|name, blob| async move {
        assert!(matches!(blob.head(&key("a")).await, Err(BlobError::NotFound)), "{name}");
        assert!(matches!(read(&*blob, "a", 0..1).await, Err(BlobError::NotFound)), "{name}");
        blob.put(&key("a"), &payload(b"12345")).await.expect(name);
        for range in [5..6, 4..6, 100..200] {
            let read = read(&*blob, "a", range.clone()).await;
            assert!(matches!(read, Err(BlobError::OutOfRange)), "{name}: {range:?}: {read:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_delete_may_be_repeated() {
    on_every_store(|name, blob| async move {
        blob.put(&key("a/b"), &payload(b"x")).await.expect(name);
        blob.delete(&key("a/b")).await.expect(name);
        blob.delete(&key("a/b")).await.expect(name);
        blob.delete(&key("never/was")).await.expect(name);
        assert!(matches!(blob.head(&key("a/b")).await, Err(BlobError::NotFound)), "{name}");
        blob.put(&key("a/b"), &payload(b"y")).await.expect(name);
    })
    .await;
}

/// All keys under a prefix, page by page.
async fn list(blob: &dyn Blob, prefix: &Prefix, after: Option<&str>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut after = after.map(str::to_owned);
    loop {
        let page = blob.list(prefix, after.as_deref()).await.expect("a page");
        keys.extend(page.objects.into_iter().map(|object| object.key.to_string()));
        match page.next_after {
            Some(next) => after = Some(next),
            None => return keys,
        }
    }
}

#[tokio::test]
async fn a_listing_shows_a_prefix_in_order_and_goes_on_after_any_key() {
    on_every_store(|name, blob| async move {
        let (ours, other) = (ClusterId::from_bytes([7; 16]), ClusterId::from_bytes([8; 16]));
        let mut expected = Vec::new();
        for index in [5, 3, 4, 1, 2] {
            for cluster in [ours, other] {
                let key = Layout::new(cluster).snapshot_key(LogIndex::new(index), NodeId::new(1));
                blob.put(&key, &payload(b"x")).await.expect(name);
                if cluster == ours {
                    expected.push(key.to_string());
                }
            }
        }
        blob.put(&Layout::new(ours).marker_key(), &payload(b"x")).await.expect(name);
        expected.sort();
        let prefix = Layout::new(ours).snapshots_prefix();
        assert_eq!(list(&*blob, &prefix, None).await, expected, "{name}");
        assert_eq!(list(&*blob, &prefix, Some(&expected[2])).await, expected[3..], "{name}");
        assert_eq!(list(&*blob, &Prefix::root(), None).await.len(), 11, "{name}");
        assert!(list(&*blob, &Layout::new(ours).wal_prefix(), None).await.is_empty(), "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_listing_of_many_pages_is_complete() {
    on_every_store(|name, blob| async move {
        let keys: Vec<String> = (0..1_050).map(|n| format!("many/{n:06}")).collect();
        let puts = keys.iter().map(|text| {
            let blob = blob.clone();
            async move { blob.put(&key(text), &payload(b"x")).await }
        });
        let done: Vec<_> =
            futures::StreamExt::collect(futures::StreamExt::buffered(futures::stream::iter(puts), 32)).await;
        assert!(done.iter().all(Result::is_ok), "{name}");
        assert_eq!(list(&*blob, &Prefix::root(), None).await, keys, "{name}");
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_url_opens_without_asking_the_network() {
    let env = Env::system();
    let dir = tempfile::tempdir().expect("temp dir");
    let account = |url: &str| StoreSettings {
        access_key_id: Some("account".to_owned()),
        secret_access_key: Some("c2VjcmV0".to_owned()),
        ..StoreSettings::at(url)
    };
    let google = StoreSettings {
        secret_access_key: Some(
            r#"{"type":"service_account","private_key":"","private_key_id":"k","client_email":"a@b","disable_oauth":true}"#
                .to_owned(),
        ),
        ..StoreSettings::at("gs://bucket/prefix")
    };
    for settings in [
        StoreSettings::at("memory://"),
        StoreSettings::local(dir.path()),
        account("s3://bucket"),
        account("s3://bucket/prefix"),
        google,
        account("az://container/prefix"),
    ] {
        let store = streamhouse_storage::open(&settings, &env).await;
        assert!(store.is_ok(), "{}: {:?}", settings.url, store.err());
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_with_the_reason() {
    let env = Env::system();
    for (url, reason) in [
        ("", "is not the URL of a store"),
        ("./folder", "is not the URL of a store"),
        ("http://bucket", "not by `http`"),
        ("s3://", "lacks a bucket"),
        ("s3:///prefix", "lacks a bucket"),
        ("s3://bucket/bad%20prefix", "prefix"),
        ("s3://bucket/../up", ""),
    ] {
        let error = match streamhouse_storage::open(&StoreSettings::at(url), &env).await {
            Ok(_) if reason.is_empty() => continue,
            Ok(_) => panic!("`{url}` opened"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(reason), "{url}: {error}");
    }
}
