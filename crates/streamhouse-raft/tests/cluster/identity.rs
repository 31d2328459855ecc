//! Two clusters that come across each other.

use streamhouse_raft::ProposeError;
use streamhouse_types::NodeId;

use crate::nodes::{Cluster, create, eventually, has_topic, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_with_the_same_node_ids_at_swapped_addresses_do_not_mix() {
    let two = NodeId::new(2);
    let mut ours = Cluster::named([1; 16], 3, settings()).await;
    let mut theirs = Cluster::named([2; 16], 3, settings()).await;
    for (cluster, topic) in [(&ours, "ours"), (&theirs, "theirs")] {
        cluster.bootstrap().await;
        cluster.prepare().await;
        cluster.create(topic).await;
        cluster.assert_agreement().await;
    }
    ours.stop(two).await;
    theirs.stop(two).await;
    let (our_address, their_address) = (ours.addresses[&two], theirs.addresses[&two]);
    ours.start_at(two, their_address).await;
    theirs.start_at(two, our_address).await;
    // Each leader now talks to the other cluster's node 2, and each node 2 asks around in its own.
    for (cluster, topic) in [(&ours, "ours-too"), (&theirs, "theirs-too")] {
        for number in 0..10 {
            cluster.create(&format!("{topic}-{number}")).await;
        }
    }
    for (cluster, own, foreign) in [(&ours, "ours", "theirs"), (&theirs, "theirs", "ours")] {
        let node = cluster.node(two);
        assert!(has_topic(node, own) && !has_topic(node, foreign));
        assert!(!has_topic(node, &format!("{foreign}-too-0")), "it took entries of another cluster");
    }
    for cluster in [&ours, &theirs] {
        let address = cluster.address(two);
        eventually("its new address to be known", || async {
            cluster.leader().await.set_address(two, &address).await.ok()
        })
        .await;
        cluster.assert_agreement().await;
        assert_eq!(cluster.node(two).state().cluster(), Some(cluster.id));
        assert_eq!(cluster.node(two).state().topics().count(), 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_leader_is_refused_by_name() {
    let ours = Cluster::named([1; 16], 1, settings()).await;
    let foreign = Cluster::named([2; 16], 1, settings()).await;
    let one = NodeId::new(1);
    let address = ours.address(one);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("it listens");
    let mut client = streamhouse_proto::internal::raft_service_client::RaftServiceClient::new(channel);
    let mut request = tonic::Request::new(streamhouse_proto::internal::ReadIndexRequest { to: 1 });
    let text = foreign.id.to_string().parse().expect("plain text");
    request.metadata_mut().insert(streamhouse_raft::CLUSTER_METADATA, text);
    let refused = client.read_index(request).await.expect_err("another cluster");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    for name in [foreign.id, ours.id] {
        assert!(refused.message().contains(&name.to_string()), "{refused}");
    }
    let propose = ours.node(one).propose(vec![create("none")]).await.remove(0);
    assert!(matches!(propose, Err(ProposeError::NotHappened { leader: None })), "{propose:?}");
}
