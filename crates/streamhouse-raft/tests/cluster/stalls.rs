//! Followers that fall silent.

use streamhouse_types::NodeId;

use crate::nodes::{Cluster, create, eventually, settings, topic_count};

async fn assert_caught_up(cluster: &Cluster, node: NodeId, topics: usize) {
    eventually("the silent follower to catch up", || async {
        (topic_count(cluster.node(node)) == topics).then_some(())
    })
    .await;
    cluster.assert_agreement().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_follower_holds_up_nobody_and_catches_up_when_it_is_back() {
    let cluster = Cluster::ready(settings()).await;
    let (_, followers) = cluster.roles().await;
    let silent = followers[0];
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != silent).collect();
    for other in &others {
        cluster.stall(*other, silent).await;
    }
    for topic in 0..100 {
        cluster.create(&format!("meanwhile-{topic}")).await;
    }
    assert_eq!(topic_count(cluster.node(silent)), 0, "nothing reached it");
    for other in &others {
        cluster.resume(*other, silent).await;
    }
    assert_caught_up(&cluster, silent, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_follows_again() {
    let cluster = Cluster::ready(settings()).await;
    for round in 0..2 {
        let (away, others) = cluster.roles().await;
        cluster.isolate(away).await;
        let new = eventually("another leader", || async {
            others.iter().find(|id| cluster.node(**id).is_leader()).copied()
        })
        .await;
        for topic in 0..20 {
            let name = format!("without-{round}-{topic}");
            eventually("a commit", || async {
                cluster.node(new).propose(vec![create(&name)]).await.remove(0).ok()
            })
            .await;
        }
        cluster.rejoin(away).await;
        assert_caught_up(&cluster, away, (round + 1) * 20).await;
    }
}
