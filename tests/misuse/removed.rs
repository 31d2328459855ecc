//! A node that was taken out of its cluster stops, whether the metadata log still reaches it or not.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_drained_and_removed_stops_and_is_not_let_in_again() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(4, as_it_is)?;
    cluster.start().await?;
    cluster.well().await?;
    let leader = cluster.leader().await?;
    let other = cluster.node(leader % 4 + 1).grpc().to_owned();
    let number = leader.to_string();
    check(&run(&other, &["node", "drain", &number, "--wait"])?, 0, &[]);
    check(&run(&other, &["node", "remove", &number, "--yes"])?, 0, &[]);
    let removed = cluster.node(leader);
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let ends = async {
        while !removed.has_ended()? {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(OVER_A_MINUTE, ends).await.context("it goes on")??;
    let status = removed.wait()?;
    ensure!(status.code() == Some(4), "{status}: {}", removed.log());
    ensure!(removed.log().contains("error[NODE_REFUSED]"), "{}", removed.log());
    let error = removed.start().await.err().context("it was let in again")?.to_string();
    ensure!(error.contains("stopped with exit status: 4:\n") && error.contains("NODE_REFUSED"), "{error}");
    cluster.until_seen_by(&other, "well without it", |health| health.healthy && health.nodes == 3).await?;
    Ok(())
}
