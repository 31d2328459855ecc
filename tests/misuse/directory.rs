//! A data directory that is not what the node left there.

use std::io;

use streamhouse_client::NodeId;

use super::*;

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let from = entry?.path();
        let to = to.join(from.file_name().expect("an entry has a name"));
        if from.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            std::fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Waits until the leader knows that the node has its whole log.
async fn has_acknowledged_all(leader: &StreamHouse, node: NodeId) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let acknowledged = async {
        loop {
            looks.tick().await;
            let status = leader.admin().raft_status().await?;
            let member = status.members.iter().find(|member| member.node == node).context("a member")?;
            if member.matched_index == Some(status.last_log_index) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(OVER_A_MINUTE, acknowledged).await.context("the leader never heard of it")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_older_copy_of_its_directory_stops_and_the_others_go_on() -> anyhow::Result<()> {
    let mut town = Town::of(3).await?;
    let leader = town.cluster.leader().await?;
    let (number, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let (data, copy) = (town.cluster.folder().join(format!("n{number}")), town.cluster.folder().join("copy"));
    ensure!(town.cluster.node(number).stop()?.success(), "{}", town.cluster.node(number).log());
    copy_folder(&data, &copy)?;
    town.cluster.node(number).start().await?;
    town.cluster.well().await?;
    for topic in 0..10 {
        town.house.admin().create_topic(NewTopic::new(format!("since-{topic}")), Mode::Apply).await?;
    }
    town.house.topic("kept").append(vec![Record::new("since")]).await?;
    let led = StreamHouse::connect(town.cluster.node(leader).grpc()).await?;
    has_acknowledged_all(&led, NodeId::new(number.into())).await?;
    ensure!(town.cluster.node(number).stop()?.success(), "{}", town.cluster.node(number).log());
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&copy, &data)?;

    let fix = ["error[NODE_REFUSED]", "it is an older copy", "streamhouse node remove", "under a new id"];
    not_let_in(town.cluster.node(number), 4, &fix).await?;
    for other in [leader, third] {
        let house = StreamHouse::connect(town.cluster.node(other).grpc()).await?;
        house.topic("kept").append(vec![Record::new(format!("through {other}"))]).await?;
        kept(&house, &["before", "since", &format!("through {other}")]).await?;
    }

    // What it says is to be done helps.
    check(&run(town.cluster.node(leader).grpc(), &["node", "remove", &number.to_string(), "--yes"])?, 0, &[]);
    *town.cluster.node(number) = at(&town.store(), &town.cluster.folder().join("n4"))
        .argument("--node.id=4")
        .argument(format!("--cluster.seeds={}", town.cluster.internal(leader)));
    town.cluster.node(number).start().await?;
    town.house = town.cluster.connect().await?;
    town.is_unharmed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_without_its_identity_is_refused_until_that_is_back() -> anyhow::Result<()> {
    let mut town = Town::of(1).await?;
    let identity = town.cluster.folder().join("n1").join("raft").join("identity");
    let node = town.cluster.node(1);
    ensure!(node.stop()?.success(), "{}", node.log());
    let file = std::fs::read(&identity)?;
    std::fs::remove_file(&identity)?;
    let missing = format!("{} is missing, and the directory was in use", identity.display());
    let fix = ["restore this file from a copy", "start it with a new node id and an empty directory"];
    not_let_in(node, 9, &["error[STORAGE_CORRUPT]", &missing, fix[0], fix[1]]).await?;
    ensure!(!identity.exists(), "it has made itself another");
    std::fs::write(&identity, file)?;
    node.start().await?;
    town.house = town.cluster.connect().await?;
    town.is_unharmed().await
}
