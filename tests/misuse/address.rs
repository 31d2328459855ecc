//! A node that tells the others an address at which nobody reaches it.

use streamhouse_client::{NodeId, NodeInfo};

use super::*;

async fn seen_by(leader: &StreamHouse, node: NodeId) -> anyhow::Result<NodeInfo> {
    Ok(leader.admin().node(node).await?.node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_is_given_homes_once_the_metadata_log_reaches_it_and_not_before()
-> anyhow::Result<()> {
    let mut town = Town::of(3).await?;
    let leader = town.cluster.leader().await?;
    let number = leader % 3 + 1;
    let node = NodeId::new(number.into());
    let led = StreamHouse::connect(town.cluster.node(leader).grpc()).await?;
    ensure!(town.cluster.node(number).stop()?.success(), "{}", town.cluster.node(number).log());
    let stopped = seen_by(&led, node).await?;
    // What it lacks then.
    led.admin().create_topic(NewTopic::new("since").partitions(6), Mode::Apply).await?;

    // It reaches the others, and the leader does not reach it. Held, so that nobody else comes to listen there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut unreached = at(&town.store(), &town.cluster.folder().join(format!("n{number}")))
        .argument(format!("--node.id={number}"))
        .argument(format!("--cluster.seeds={}", town.cluster.internal(leader)))
        .argument(format!("--listeners.advertised-internal={}", silent.local_addr()?));
    ensure!(!unreached.start_and_wait(Duration::from_millis(1)).await?, "nothing reaches it");
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let waits = async {
        while !unreached.log().contains("the node is not ready: it waits for a majority of the voters") {
            looks.tick().await;
            let seen = seen_by(&led, node).await?;
            ensure!(seen.homes == 0 && seen.incarnation == stopped.incarnation, "{seen:?}, was {stopped:?}");
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(OVER_A_MINUTE, waits).await.context("it never said that it waits")??;
    ensure!(unreached.stop()?.success(), "{}", unreached.log());

    town.cluster.node(number).start().await?;
    let given = async {
        while seen_by(&led, node).await?.homes == 0 {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(OVER_A_MINUTE, given).await.context("it was never given a home")??;
    town.house = town.cluster.connect().await?;
    town.is_unharmed().await
}
