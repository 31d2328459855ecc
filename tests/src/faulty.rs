//! A cluster on a store that fails on purpose, with links between the nodes that can be cut.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use streamhouse_faults::{Delay, FaultPlan, FaultServer, Gate, Links, Op, OpPlan, Place, ServerOptions};

use crate::cluster::{Cluster, Shape, free_address, node, seeds};
use crate::node::Node;

/// Three real processes, each at an address of its own, and what stands between them and between them and the store.
#[derive(Debug)]
pub struct FaultyCluster {
    /// The nodes.
    pub cluster: Cluster,
    /// The store; nothing of it fails at first, but each request takes a few milliseconds.
    pub store: FaultServer,
    links: Links,
    _gates: Vec<Gate>,
    /// What stands between each node and the store, where something does.
    ways: Vec<(Links, Gate)>,
}

/// Where the node of this number listens for the others, and from where it speaks to them.
fn own_address(number: u32) -> IpAddr {
    let last = u8::try_from(10 + number).expect("few nodes");
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// Tells a node to keep its records on this S3 server, under this prefix.
#[must_use]
pub fn on_store(node: Node, store: &FaultServer, prefix: &str) -> Node {
    node.argument(format!("--store=s3://bucket/{prefix}"))
        .variable("AWS_ENDPOINT_URL", store.endpoint())
        .variable("AWS_ACCESS_KEY_ID", "tester")
        .variable("AWS_SECRET_ACCESS_KEY", "secret")
        .variable("AWS_REGION", "us-east-1")
        .variable("AWS_ALLOW_HTTP", "true")
}

/// A store in the same building: no faults.
#[must_use]
pub fn calm() -> FaultPlan {
    let delay = Some(Delay { median_ms: 3.0, p99_ms: Some(30.0) });
    let plan = OpPlan { delay, ..OpPlan::default() };
    FaultPlan::from([(Op::Put, plan.clone()), (Op::Get, plan)])
}

impl FaultyCluster {
    /// A cluster of `count` nodes; nothing of it runs yet but store and gates.
    ///
    /// # Errors
    /// When there is no folder or no free port.
    pub async fn new(count: u32, shape: Shape) -> anyhow::Result<Self> {
        Self::with_objects_in(ServerOptions::default().place, count, shape).await
    }

    /// As [`new`](Self::new), with the store's objects in this place.
    ///
    /// # Errors
    /// When there is no folder or no free port.
    pub async fn with_objects_in(place: Place, count: u32, shape: Shape) -> anyhow::Result<Self> {
        let options = ServerOptions { plan: calm(), place, ..ServerOptions::default() };
        let store = FaultServer::start(options).await?;
        Self::of(store, Vec::new(), count, shape).await
    }

    /// As [`new`](Self::new), with a way of its own from each node to the store, that can be cut.
    ///
    /// # Errors
    /// When there is no folder or no free port.
    pub async fn with_ways_to_store(count: u32, shape: Shape) -> anyhow::Result<Self> {
        let store = FaultServer::start(ServerOptions { plan: calm(), ..ServerOptions::default() }).await?;
        let mut ways = Vec::new();
        for _ in 0..count {
            let links = Links::default();
            let gate = links.gate(store.address()).await?;
            ways.push((links, gate));
        }
        Self::of(store, ways, count, shape).await
    }

    async fn of(
        store: FaultServer,
        ways: Vec<(Links, Gate)>,
        count: u32,
        shape: Shape,
    ) -> anyhow::Result<Self> {
        let links = Links::default();
        let (mut bound, mut gates) = (Vec::new(), Vec::new());
        for number in 1..=count {
            let address = free_address(own_address(number))?;
            gates.push(links.gate(address).await?);
            bound.push(address);
        }
        let told: Vec<_> = gates.iter().map(Gate::address).collect();
        let seeds = seeds(&told);
        let cluster = Cluster::of(count, |folder, number| {
            let place = number as usize - 1;
            let node = node(folder, number)
                .internal(&bound[place].to_string())
                .argument(format!("--listeners.advertised-internal={}", told[place]))
                .argument(&seeds);
            let node = on_store(node, &store, "streamhouse");
            let node = match ways.get(place) {
                Some((_, gate)) => node.variable("AWS_ENDPOINT_URL", format!("http://{}", gate.address())),
                None => node,
            };
            shape(node, number)
        })?;
        Ok(Self { cluster, store, links, _gates: gates, ways })
    }

    /// From now on nothing passes between this node and the store.
    ///
    /// # Errors
    /// When it has no way of its own.
    pub fn cut_store(&self, node: u32) -> anyhow::Result<()> {
        let (links, _) = self.ways.get(node as usize - 1).context("each node has a way of its own")?;
        // Whoever dials from this machine speaks from the address that is dialled.
        links.cut(IpAddr::from(Ipv4Addr::LOCALHOST), self.store.address().ip());
        Ok(())
    }

    /// From now on nothing that one node says reaches another.
    pub fn cut(&self, from: u32, to: u32) {
        self.links.cut(own_address(from), own_address(to));
    }

    /// From now on this node and the others do not hear each other.
    pub fn isolate(&self, node: u32) {
        self.mute(node);
        self.deafen(node);
    }

    /// From now on nobody hears this node.
    pub fn mute(&self, node: u32) {
        self.others(node).for_each(|other| self.cut(node, other));
    }

    /// From now on this node hears nobody.
    pub fn deafen(&self, node: u32) {
        self.others(node).for_each(|other| self.cut(other, node));
    }

    /// Makes all links whole.
    pub fn mend(&self) {
        self.links.mend();
        self.ways.iter().for_each(|(links, _)| links.mend());
    }

    fn others(&self, node: u32) -> impl Iterator<Item = u32> {
        let count = u32::try_from(self.cluster.nodes.len()).expect("few nodes");
        (1..=count).filter(move |other| *other != node)
    }
}
