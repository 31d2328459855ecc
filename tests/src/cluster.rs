//! Several broker processes that form one cluster over one store.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use streamhouse_client::{ClusterHealth, StreamHouse};
use tempfile::TempDir;

use crate::node::Node;

/// How long a cluster may take to be well, on a machine that does other things too.
const WELL_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A cluster of processes.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    /// By number, from 1.
    pub nodes: Vec<Node>,
}

/// What each node is given besides its own name and addresses.
pub type Shape = fn(Node, u32) -> Node;

impl Cluster {
    /// A cluster of `count` nodes over a store in a folder of its own; nothing runs yet.
    ///
    /// # Errors
    /// When there is no folder or no free port.
    pub fn new(count: u32, shape: Shape) -> anyhow::Result<Self> {
        let internal = free_addresses(count)?;
        let seeds = seeds(&internal);
        Self::on_folder(&internal, |_| seeds.clone(), shape)
    }

    /// As [`new`](Self::new), of nodes that know nothing but a name, which stands for the first of them; that one founds.
    ///
    /// # Errors
    /// When there is no folder or no free port.
    pub fn with_one_name(count: u32, shape: Shape) -> anyhow::Result<Self> {
        let internal = free_addresses(count)?;
        let seeds = |number| match number {
            1 => format!("--cluster.seeds={},localhost:{}", internal[0], internal[0].port()),
            _ => format!("--cluster.seeds=localhost:{}", internal[0].port()),
        };
        Self::on_folder(&internal, seeds, shape)
    }

    fn on_folder(
        internal: &[SocketAddr],
        seeds: impl Fn(u32) -> String,
        shape: Shape,
    ) -> anyhow::Result<Self> {
        Self::of(u32::try_from(internal.len())?, |folder, number| {
            let node = node(folder, number)
                .internal(&internal[number as usize - 1].to_string())
                .argument(seeds(number))
                .argument(format!("--store=file://{}", folder.join("store").display()));
            shape(node, number)
        })
    }

    /// A cluster of `count` nodes, each described by its number from 1, in a folder of their own; nothing runs yet.
    ///
    /// # Errors
    /// When there is no folder.
    pub(crate) fn of(count: u32, describe: impl Fn(&Path, u32) -> Node) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let nodes = (1..=count).map(|number| describe(folder.path(), number)).collect();
        Ok(Self { folder, nodes })
    }

    /// The folder of everything.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the node of this number listens for the others.
    #[must_use]
    pub fn internal(&self, number: u32) -> &str {
        self.nodes[number as usize - 1].internal_address()
    }

    /// Starts all nodes and waits until the cluster is well.
    ///
    /// # Errors
    /// When a node stops instead, or the cluster is not well in time.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let starting = self.nodes.iter_mut().map(Node::start);
        futures::future::try_join_all(starting).await?;
        self.well().await?;
        Ok(())
    }

    /// The gRPC addresses of all nodes, as a client takes them.
    #[must_use]
    pub fn servers(&self) -> String {
        self.nodes.iter().map(Node::grpc).collect::<Vec<_>>().join(",")
    }

    /// A client that knows all nodes.
    ///
    /// # Errors
    /// When none answers.
    pub async fn connect(&self) -> anyhow::Result<StreamHouse> {
        Ok(StreamHouse::connect(&self.servers()).await?)
    }

    /// The node of this number.
    pub fn node(&mut self, number: u32) -> &mut Node {
        &mut self.nodes[number as usize - 1]
    }

    /// Waits until all nodes take requests, there are as many voters as wanted, and every partition has a home.
    ///
    /// # Errors
    /// When that does not come in time; the message holds what was found last and the logs.
    pub async fn well(&self) -> anyhow::Result<ClusterHealth> {
        let nodes = self.nodes.len();
        self.until("well", |health| health.healthy && health.nodes_serving as usize == nodes).await
    }

    /// Waits until the cluster says of itself what is wanted.
    ///
    /// # Errors
    /// When that does not come in time.
    pub async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&ClusterHealth) -> bool,
    ) -> anyhow::Result<ClusterHealth> {
        self.until_seen_by(&self.servers(), what, wanted).await
    }

    /// Waits until these servers, separated by commas, say of the cluster what is wanted.
    ///
    /// # Errors
    /// When that does not come in time.
    pub async fn until_seen_by(
        &self,
        servers: &str,
        what: &str,
        wanted: impl Fn(&ClusterHealth) -> bool,
    ) -> anyhow::Result<ClusterHealth> {
        let deadline = tokio::time::Instant::now() + WELL_WITHIN;
        let mut looks = tokio::time::interval(LOOK);
        let mut last = None;
        while tokio::time::Instant::now() < deadline {
            looks.tick().await;
            let Ok(house) = StreamHouse::connect(servers).await else { continue };
            match house.admin().health().await {
                Ok(health) if wanted(&health) => return Ok(health),
                found => last = Some(found),
            }
        }
        let logs: String = self.nodes.iter().map(Node::log).collect();
        bail!("not {what} within {WELL_WITHIN:?}: {last:?}\n{logs}")
    }

    /// The number of the node that leads.
    ///
    /// # Errors
    /// When nobody does in time.
    pub async fn leader(&self) -> anyhow::Result<u32> {
        let health = self.until("led", |health| health.leader.is_some()).await?;
        u32::try_from(health.leader.context("it leads")?.get()).context("few nodes")
    }
}

/// A node with this number and a data directory in this folder.
pub(crate) fn node(folder: &Path, number: u32) -> Node {
    Node::new(&folder.join(format!("n{number}"))).argument(format!("--node.id={number}"))
}

/// The argument that tells a node where the others are.
pub(crate) fn seeds(told: &[SocketAddr]) -> String {
    let told: Vec<String> = told.iter().map(SocketAddr::to_string).collect();
    format!("--cluster.seeds={}", told.join(","))
}

/// As many addresses of this machine.
fn free_addresses(count: u32) -> anyhow::Result<Vec<SocketAddr>> {
    (0..count).map(|_| free_address(IpAddr::from(Ipv4Addr::LOCALHOST))).collect()
}

/// A port of this address that is free now, and stays so while nobody listens at it: the system takes none of these for
/// connections, and no two of one process are the same.
pub(crate) fn free_address(address: IpAddr) -> anyhow::Result<SocketAddr> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let number = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT)?;
        if TcpListener::bind((address, port)).is_ok() {
            return Ok(SocketAddr::new(address, port));
        }
    }
    bail!("no port is free at {address}")
}
