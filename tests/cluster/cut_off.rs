//! A node that alone cannot reach the store.

use anyhow::ensure;
use streamhouse_client::NodeState;
use streamhouse_tests::campaign::Campaign;
use streamhouse_tests::faulty::FaultyCluster;

use super::as_it_is;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_alone_cannot_reach_the_store_gives_its_homes_to_others_until_it_can_again()
-> anyhow::Result<()> {
    let mut site = FaultyCluster::with_ways_to_store(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "alone").await?;
    let leader = site.cluster.leader().await?;
    for number in [leader % 3 + 1, leader] {
        campaign.more(500).await?;
        site.cut_store(number)?;
        // All partitions are written to, so this comes only when what lay at the node is stored by others.
        site.cluster.until("without the node", |health| health.nodes_serving == 2).await?;
        campaign.more(3_000).await?;
        let health = site.cluster.connect().await?.admin().health().await?;
        let store = health.checks.iter().find(|check| check.name == "store").expect("it is checked");
        ensure!(!store.ok && store.evidence.contains(&format!("node {number} ")), "{health:?}");
        ensure!(health.partitions_without_home == 0, "{health:?}");
        let nodes = site.cluster.connect().await?.admin().nodes().await?;
        let alone = nodes.iter().find(|node| node.id.get() == u64::from(number)).expect("it is listed");
        ensure!(alone.state == NodeState::CutOff && alone.homes == 0, "{nodes:?}");
        site.mend();
        site.cluster.well().await?;
    }
    campaign.end(&site.cluster).await
}
