//! A node whose disk has no room left.
//!
//! The disk is filled without root and without touching the machine's own: the node may write no file longer than a limit
//! (RLIMIT_FSIZE), so its log meets an end as on a full disk. Being set on the running process, it comes at any moment.

use anyhow::ensure;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use streamhouse_tests::campaign::Campaign;
use streamhouse_tests::faulty::FaultyCluster;
use streamhouse_tests::node::Node;

/// No file of the node may grow beyond this; its log does within seconds, what it says about it has room.
const ROOM: u64 = 96 << 10;

fn told_instead_of_killed(node: Node, _number: u32) -> Node {
    node.survives_file_limits()
}

/// Leaves no room on the disk of a node.
fn fill_disk(node: &Node) -> anyhow::Result<()> {
    let pid = i32::try_from(node.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(ROOM), maximum: Some(ROOM) })?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_full_disk_stops_and_says_so_and_the_others_go_on() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, told_instead_of_killed).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "full").await?;
    campaign.more(500).await?;
    let leader = site.cluster.leader().await?;
    for number in [leader % 3 + 1, leader] {
        fill_disk(site.cluster.node(number))?;
        // It goes on until its log meets the end of the disk.
        while !site.cluster.node(number).has_ended()? {
            campaign.more(100).await?;
        }
        let status = site.cluster.node(number).wait()?;
        let log = site.cluster.node(number).log();
        ensure!(status.code() == Some(6), "{status}: {log}");
        ensure!(log.contains("error[DISK_FULL]") && log.contains("hint: free space on the disk"), "{log}");
        campaign.more(500).await?;
        // Room was made.
        site.cluster.node(number).start().await?;
        site.cluster.well().await?;
    }
    campaign.end(&site.cluster).await
}
