//! What goes wrong when a cluster is set up or operated wrongly: each time an error that names the fix, and nothing is
//! harmed.

#[path = "misuse/address.rs"]
mod address;
#[path = "misuse/directory.rs"]
mod directory;
#[path = "misuse/removed.rs"]
mod removed;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::stream::{self, BoxStream, StreamExt as _};
use streamhouse_client::{Mode, NewTopic, Position, Record, StreamHouse};
use streamhouse_faults::{Fault, FaultPlan, FaultServer, Op, OpPlan, ServerOptions};
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::node_service_client::NodeServiceClient;
use streamhouse_proto::internal::node_service_server::{NodeService, NodeServiceServer};
use streamhouse_proto::internal::raft_service_client::RaftServiceClient;
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::faulty::on_store;
use streamhouse_tests::node::{Node, binary};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming};

/// Longer than a new node looks for its cluster.
const OVER_A_MINUTE: Duration = Duration::from_secs(100);

/// What an operator's command said.
fn run(house: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(binary());
    command.args(["--server", house]).args(arguments).env_remove("STREAMHOUSE_SERVER");
    Ok(command.output()?)
}

/// Ends in an error with this code, whose text holds all of this.
#[track_caller]
fn check(output: &Output, exit: i32, holds: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    for part in holds {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

/// Starts a node that is not let in; it ends with this code, and what it says holds all of this.
async fn not_let_in(node: &mut Node, exit: i32, holds: &[&str]) -> anyhow::Result<()> {
    let error = match node.start_and_wait(OVER_A_MINUTE).await {
        Ok(_) => anyhow::bail!("it was let in:\n{}", node.log()),
        Err(error) => error.to_string(),
    };
    ensure!(error.contains(&format!("stopped with exit status: {exit}:\n")), "{error}");
    for part in holds {
        ensure!(error.contains(part), "`{part}` is missing in: {error}");
    }
    Ok(())
}

fn as_it_is(node: Node, _number: u32) -> Node {
    node
}

fn at(store: &Path, data: &Path) -> Node {
    Node::new(data).argument(format!("--store=file://{}", store.display()))
}

/// A cluster with something in it that must not come to harm.
struct Town {
    cluster: Cluster,
    house: StreamHouse,
}

impl Town {
    async fn of(nodes: u32) -> anyhow::Result<Self> {
        let mut cluster = Cluster::new(nodes, as_it_is)?;
        cluster.start().await?;
        let house = cluster.connect().await?;
        house.admin().create_topic(NewTopic::new("kept").partitions(3), Mode::Apply).await?;
        house.topic("kept").append(vec![Record::new("before")]).await?;
        Ok(Self { cluster, house })
    }

    /// All nodes that there were are there and no others, and what was written can be read and written on.
    async fn is_unharmed(&self) -> anyhow::Result<()> {
        let health = self.cluster.well().await?;
        ensure!(health.nodes as usize == self.cluster.nodes.len(), "{health:?}");
        self.house.topic("kept").append(vec![Record::new("after")]).await?;
        kept(&self.house, &["before", "after"]).await
    }

    fn store(&self) -> std::path::PathBuf {
        self.cluster.folder().join("store")
    }
}

/// All of these can be read.
async fn kept(house: &StreamHouse, wanted: &[&str]) -> anyhow::Result<()> {
    let records = house.topic("kept").read(Position::Start).open().await?.records();
    let values: Vec<_> = records.map(|record| record.map(|record| record.value)).collect().await;
    let values = values.into_iter().collect::<Result<Vec<_>, _>>()?;
    for wanted in wanted {
        ensure!(values.iter().flatten().any(|value| value == wanted), "no `{wanted}` in {values:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_even_number_of_voters_is_refused_at_start_and_later() -> anyhow::Result<()> {
    let town = Town::of(1).await?;
    let why = ["there cannot be 2 voters", "name 1, 3 or 5"];
    let mut node = Node::new(&town.cluster.folder().join("even")).argument("--cluster.voters=2");
    not_let_in(&mut node, 2, &["cluster.voters", why[0], why[1]]).await?;
    check(&run(&town.cluster.servers(), &["cluster", "raft", "voters", "2"])?, 2, &why);
    let health = town.cluster.well().await?;
    ensure!(health.wanted_voters == 3 && health.voters == 1, "{health:?}");
    town.is_unharmed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_breaks_the_quorum_is_refused() -> anyhow::Result<()> {
    let mut town = Town::of(3).await?;
    let servers = town.cluster.servers();
    town.cluster.node(3).kill();
    town.cluster.until("noticed", |health| health.nodes_serving == 2).await?;
    let lost = ["error[QUORUM_AT_RISK]", "node 3 has stopped, is dead or leaves", "streamhouse node list"];
    check(&run(&servers, &["cluster", "raft", "transfer", "3"])?, 4, &lost);
    let why =
        ["error[QUORUM_AT_RISK]", "node 2 has one of 3 votes", "Add a node or bring the others back first"];
    check(&run(&servers, &["node", "remove", "2", "--plan"])?, 4, &why);
    check(&run(&servers, &["node", "remove", "2", "--yes"])?, 4, &why);
    town.cluster.node(3).start().await?;
    town.is_unharmed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_cluster_on_the_prefix_of_another_is_refused() -> anyhow::Result<()> {
    let town = Town::of(1).await?;
    let folder = town.cluster.folder();
    let mut second = at(&town.store(), &folder.join("second"));
    let fix = ["error[CLUSTER_MISMATCH]", "is empty, but the store", "name another prefix in store.url"];
    not_let_in(&mut second, 4, &fix).await?;
    // One that has a cluster already, and is given the wrong store.
    let mut other = at(&folder.join("other-store"), &folder.join("other"));
    other.start().await?;
    ensure!(other.stop()?.success(), "{}", other.log());
    let mut other = at(&town.store(), &folder.join("other"));
    let fix = ["error[CLUSTER_MISMATCH]", "belongs to cluster", "Check node.data_dir and store.url"];
    not_let_in(&mut other, 4, &fix).await?;
    // It was not harmed either.
    let mut other = at(&folder.join("other-store"), &folder.join("other"));
    other.start().await?;
    town.is_unharmed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_found_at_once_the_slower_is_told_what_to_do() -> anyhow::Result<()> {
    // Neither can leave its mark before both have looked for one.
    let plan =
        FaultPlan::from([(Op::Put, OpPlan { faults: [(Fault::SlowDown, 1.0)].into(), ..OpPlan::default() })]);
    let store = FaultServer::start(ServerOptions { plan, ..ServerOptions::default() }).await?;
    let folder = tempfile::tempdir()?;
    let founder = |name: &str| on_store(Node::new(&folder.path().join(name)), &store, "shared");
    let (mut one, mut other) = (founder("one"), founder("other"));
    let both_have_looked = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        let count = |op: Op| store.faults().counters().requests.get(&op).copied().unwrap_or_default();
        // Each lists the place, and again before it asks for its own mark.
        while count(Op::Head) < 2 || count(Op::List) < 4 {
            looks.tick().await;
        }
        store.faults().set_plan(FaultPlan::new());
    };
    let both_have_looked = tokio::time::timeout(OVER_A_MINUTE, both_have_looked);
    let (first, second, looked) = tokio::join!(one.start(), other.start(), both_have_looked);
    looked.context("they never looked")?;
    // Either sees the mark of the other, or both do.
    let slower: Vec<String> =
        [first, second].into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    ensure!(!slower.is_empty(), "both have the place");
    for error in slower {
        ensure!(error.contains("stopped with exit status: 4:\n"), "{error}");
        let fix = ["name another prefix in store.url", "empty node.data_dir", "cluster.seeds"];
        for part in ["error[CLUSTER_MISMATCH]", "at the same time"].into_iter().chain(fix) {
            ensure!(error.contains(part), "`{part}` is missing in: {error}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_of_another_cluster_than_the_stores_is_refused() -> anyhow::Result<()> {
    let (town, other) = (Town::of(1).await?, Town::of(1).await?);
    let folder = town.cluster.folder();
    let seed = format!("--cluster.seeds={}", other.cluster.internal(1));
    let fix = ["error[CLUSTER_MISMATCH]", "one of them is of another cluster"];
    let mut stray = at(&town.store(), &folder.join("stray")).argument("--node.id=2").argument(&seed);
    not_let_in(&mut stray, 4, &fix).await?;
    town.is_unharmed().await?;
    other.is_unharmed().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_store_than_the_clusters_is_refused_before_it_is_a_member() -> anyhow::Result<()>
{
    let town = Town::of(1).await?;
    let folder = town.cluster.folder();
    let seed = format!("--cluster.seeds={}", town.cluster.internal(1));
    let mut stray =
        at(&folder.join("empty-store"), &folder.join("stray")).argument("--node.id=2").argument(&seed);
    let fix = ["error[CLUSTER_MISMATCH]", "the store of node 2 is empty", "Check store.url"];
    not_let_in(&mut stray, 4, &fix).await?;
    ensure!(!folder.join("empty-store").join("wal").exists(), "it wrote to the store");
    let mut reader = at(&folder.join("empty-store"), &folder.join("reader"))
        .argument("--node.id=9")
        .argument("--node.roles=reader")
        .argument(&seed);
    let fix = ["error[CLUSTER_MISMATCH]", "but the store", "Check store.url"];
    not_let_in(&mut reader, 4, &fix).await?;
    let mut stray = at(&town.store(), &folder.join("another")).argument("--node.id=2").argument(&seed);
    stray.start().await?;
    ensure!(stray.stop()?.success(), "{}", stray.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_at_which_nobody_answers_are_named_after_a_minute() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Held, so that nobody else comes to listen there; never accepted, so that nobody answers either.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let seed = silent.local_addr()?.to_string();
    let mut lonely = at(&folder.path().join("store"), &folder.path().join("lonely"))
        .argument("--node.id=2")
        .argument(format!("--cluster.seeds={seed}"));
    let fix = ["error[UNREACHABLE]", &seed, "cluster.seeds names the internal addresses of the other nodes"];
    not_let_in(&mut lonely, 6, &fix).await?;
    ensure!(!folder.path().join("store").join("wal").exists(), "it wrote to the store");
    Ok(())
}

/// The way to a leader, by which every node seems to have a clock that is off by some time.
struct OffClock {
    leader: String,
    off: i64,
}

fn only_joining<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only joining goes this way"))
}

#[tonic::async_trait]
impl NodeService for OffClock {
    type HeartbeatStream = BoxStream<'static, Result<pb::BeatAnswer, Status>>;
    type FollowStream = BoxStream<'static, Result<pb::FollowResponse, Status>>;

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let mut request = request.into_inner();
        request.now_ms += self.off;
        let leader = NodeServiceClient::connect(format!("http://{}", self.leader)).await;
        leader.map_err(|error| Status::unavailable(error.to_string()))?.join(request).await
    }

    async fn heartbeat(
        &self,
        _: Request<Streaming<pb::Beat>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        only_joining()
    }

    async fn follow(
        &self,
        _: Request<Streaming<pb::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        only_joining()
    }

    async fn readers(&self, _: Request<pb::ReadersRequest>) -> Result<Response<pb::ReadersResponse>, Status> {
        only_joining()
    }

    async fn confirm(&self, _: Request<pb::ConfirmRequest>) -> Result<Response<pb::ConfirmResponse>, Status> {
        only_joining()
    }

    async fn leader_view(
        &self,
        _: Request<pb::LeaderViewRequest>,
    ) -> Result<Response<pb::LeaderViewResponse>, Status> {
        only_joining()
    }

    async fn change_members(
        &self,
        _: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersResponse>, Status> {
        only_joining()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_an_hour_off_is_not_let_in() -> anyhow::Result<()> {
    let town = Town::of(1).await?;
    let folder = town.cluster.folder();
    for (name, hours) in [("fast", 1), ("slow", -1)] {
        let way = TcpListener::bind("127.0.0.1:0").await?;
        let seed = way.local_addr()?;
        let off = OffClock { leader: town.cluster.internal(1).to_owned(), off: hours * 3_600_000 };
        let accepted = stream::unfold(way, |way| async move {
            let accepted = way.accept().await.map(|(stream, _)| stream);
            Some((accepted, way))
        });
        let service = tonic::transport::Server::builder().add_service(NodeServiceServer::new(off));
        let serving = tokio::spawn(service.serve_with_incoming(accepted));
        let mut node = at(&town.store(), &folder.join(name))
            .argument("--node.id=2")
            .argument(format!("--cluster.seeds={seed}"));
        let fix = ["error[CLOCK_SKEW]", "the clock of node 2 is", "s away", "Set the clock of that machine"];
        not_let_in(&mut node, 4, &fix).await?;
        serving.abort();
    }
    town.is_unharmed().await?;
    // With its clock set right it may come.
    let seed = town.cluster.internal(1);
    let mut node = at(&town.store(), &folder.join("fast"))
        .argument("--node.id=2")
        .argument(format!("--cluster.seeds={seed}"));
    node.start().await.context("a node with the right time")
}

/// Asks the node for its vote until it says what it thinks of that.
async fn ask_for_vote(node: u64, address: &str) -> Status {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    loop {
        looks.tick().await;
        let Ok(mut client) = RaftServiceClient::connect(format!("http://{address}")).await else { continue };
        let request = pb::VoteRequest { to: node, ..Default::default() };
        match client.vote(request).await {
            Ok(answer) => return Status::ok(format!("{answer:?}")),
            // It listens, and its listener does not serve yet.
            Err(status)
                if status.code() == tonic::Code::Unavailable && status.message().contains("error") => {}
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_directory_was_lost_does_not_vote_for_who_lacks_what_it_had() -> anyhow::Result<()> {
    let mut town = Town::of(3).await?;
    // The second node lacks what the others acknowledge now.
    town.cluster.node(2).kill();
    let late = async {
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        // What was on its way to the second node may be lost.
        while town.house.topic("kept").append(vec![Record::new("late")]).await.is_err() {
            tries.tick().await;
        }
    };
    tokio::time::timeout(OVER_A_MINUTE, late).await?;
    town.cluster.node(1).kill();
    town.cluster.node(3).kill();
    let data = town.cluster.folder().join("n3");
    std::fs::remove_dir_all(&data)?;
    std::fs::create_dir(&data)?;
    let [first, second, third] = &mut town.cluster.nodes[..] else { unreachable!("three nodes") };
    let address = third.internal_address().to_owned();
    let others = async {
        // The second and the empty one would be a majority.
        let refused = ask_for_vote(3, &address).await;
        ensure!(refused.code() == tonic::Code::Unavailable, "{refused}");
        ensure!(refused.message().contains("not let into a cluster yet"), "{refused}");
        second.start_and_wait(Duration::from_millis(1)).await?;
        first.start().await
    };
    let third_ends = not_let_in(third, 4, &["NODE_REFUSED"]);
    let (others, third_ends) = tokio::join!(others, third_ends);
    others?;
    third_ends?;
    let house = town.cluster.connect().await?;
    kept(&house, &["late"]).await
}

#[tokio::test]
async fn a_cluster_of_dev_that_does_not_start_says_what_its_node_said() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, taken) = (folder.path().display().to_string(), TcpListener::bind("127.0.0.1:0").await?);
    let (free, http) = ("127.0.0.1:0", taken.local_addr()?.to_string());
    let dev = |http: &str, more: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["dev", "--nodes", "2", "--data-dir", &data, "--kafka-addr", free, "--grpc-addr", free]);
        command.args(["--internal-addr", free, "--http-addr", http]).args(more).output()
    };
    let why = ["node 1 did not start: `listeners.http` cannot listen on", "port 0 picks a free one"];
    check(&dev(&http, &[])?, 2, &why);
    let said = dev(free, &["--store", "memory://"])?;
    check(&said, 2, &["error[INVALID_SETTING]: node", "every node would have a store of its own"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_another_listener_is_told_as_that_and_nothing_is_said_twice() -> anyhow::Result<()> {
    let town = Town::of(1).await?;
    let node = &town.cluster.nodes[0];
    let what = "is no gRPC listener of a StreamHouse node that runs: ";
    for address in [node.kafka(), node.http(), node.internal_address()] {
        let output = run(address, &["topic", "list"])?;
        check(
            &output,
            6,
            &["error[UNREACHABLE]", &format!("what answers at {address} {what}"), "gRPC address"],
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!said.contains(&format!("{what} ")) && said.matches(address).count() == 1, "{said}");
        ensure!(said.matches("transport error").count() <= 1, "{said}");
    }
    let waits = "the node is not part of a cluster yet";
    let lost =
        [("kafka", node.kafka()), ("http", node.http()), ("grpc", node.grpc())].map(|(name, address)| {
            let node = at(&town.store(), &town.cluster.folder().join(name))
                .argument("--node.id=2")
                .argument(format!("--cluster.seeds={address}"));
            (node, address)
        });
    let said = lost.map(|(mut node, address)| async move {
        let said = logged(&mut node, waits).await?;
        anyhow::Ok((address, said))
    });
    for (address, said) in futures::future::try_join_all(said).await? {
        let line = said.lines().find(|line| line.contains(waits)).context("it says why")?;
        let what = "what answers there is not the listener that nodes have for each other (";
        ensure!(line.contains(what) && !line.contains("()"), "{line}");
        ensure!(line.matches(address).count() == 1, "{line}");
        ensure!(line.matches("transport error").count() <= 1, "{line}");
    }
    town.is_unharmed().await
}

/// Starts a node that has to wait, and waits until its log holds this.
async fn logged(node: &mut Node, part: &str) -> anyhow::Result<String> {
    ensure!(!node.start_and_wait(Duration::from_millis(100)).await?, "it was let in");
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let found = async {
        loop {
            looks.tick().await;
            let log = node.log();
            if log.contains(part) {
                return log;
            }
        }
    };
    tokio::time::timeout(OVER_A_MINUTE, found).await.context("it never said so")
}
