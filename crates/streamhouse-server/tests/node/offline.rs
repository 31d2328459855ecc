use streamhouse_env::Env;
use streamhouse_proto::v1;
use streamhouse_proto::v1::storage_service_client::StorageServiceClient;
use streamhouse_server::Offline;

use crate::harness::{Node, Session, batch, config};

async fn written(dir: &std::path::Path) -> Node {
    let mut node = Node::start(dir).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    for value in ["a", "b", "c"] {
        session.send(0, batch(&[value])).await;
        session.acked().await;
    }
    session.finish();
    node
}

#[tokio::test]
async fn a_stopped_cluster_tells_the_same_as_a_running_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = written(dir.path()).await;
    let address = format!("http://{}", node.running.addresses().grpc);
    let mut client = StorageServiceClient::connect(address).await.expect("connected");
    let running = client.summary(v1::StorageSummaryRequest {}).await.expect("a summary").into_inner();
    let mut faults = client.verify(v1::VerifyRequest { deep: true }).await.expect("a stream").into_inner();
    let mut last = v1::VerifyResponse::default();
    while let Some(found) = faults.message().await.expect("progress") {
        assert!(found.faults.is_empty(), "{:?}", found.faults);
        last = found;
    }
    assert!(last.done);
    assert_eq!((last.records_checked, last.objects_checked), (3, last.objects_total));
    drop(client);
    node.stop().await;

    let offline = Offline::open(&config(dir.path(), &[]), Env::system()).await.expect("opened");
    assert_eq!(offline.summary().await.expect("a summary"), running);
    let mut found = Vec::new();
    offline
        .verify(v1::VerifyRequest { deep: true }, |progress| found.push(progress))
        .await
        .expect("verified");
    assert_eq!(found.last(), Some(&last));
}

#[tokio::test]
async fn an_object_that_is_gone_or_damaged_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    written(dir.path()).await.stop().await;
    let mut objects = Vec::new();
    collect(&dir.path().join("store"), &mut objects);
    objects.sort();
    assert_eq!(objects.len(), 3, "{objects:?}");
    let id = objects[0].file_stem().expect("a name").to_string_lossy().into_owned();
    let offline = Offline::open(&config(dir.path(), &[]), Env::system()).await.expect("opened");
    let object = offline.inspect(&id).await.expect("inspected");
    assert_eq!((object.state.as_str(), object.extents.len()), ("referenced", 1));
    assert_eq!((object.extents[0].topic.as_str(), object.extents[0].runs.len()), ("orders", 1));

    std::fs::remove_file(&objects[0]).expect("removed");
    let mut bytes = std::fs::read(&objects[1]).expect("read");
    let middle = usize::try_from(object.extents[0].position).expect("small") + 65;
    bytes[middle] ^= 1;
    std::fs::write(&objects[1], bytes).expect("written");
    let mut faults = Vec::new();
    offline
        .verify(v1::VerifyRequest { deep: true }, |found| faults.extend(found.faults))
        .await
        .expect("verified");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.topic == "orders" || fault.topic.is_empty()), "{faults:?}");
}

#[tokio::test]
async fn a_running_node_is_not_looked_at_behind_its_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = Node::start(dir.path()).await;
    let error = Offline::open(&config(dir.path(), &[]), Env::system()).await.err().expect("refused");
    assert!(error.to_string().contains("already in use by pid"), "{error}");
    node.stop().await;
}

fn collect(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "wal") {
            found.push(path);
        }
    }
}
