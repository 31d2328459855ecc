//! Several nodes with one log, and what each tells about them.

use super::{
    Arc, Code, ErrorCode, Fake, Log, Mutex, Partition, Request, Response, Running, Status, StreamHouse,
    ToClient, status, v1,
};

/// Nodes 1 to n. Partition p is at home on node 1 + p mod n.
pub struct Cluster {
    nodes: Vec<Fake>,
    running: Vec<Running>,
}

impl Cluster {
    pub async fn start(nodes: u64, partitions: u32) -> Self {
        let homes = (0..partitions).map(|partition| v1::PartitionHome {
            partition,
            node_id: 1 + u64::from(partition) % nodes,
            epoch: 1,
        });
        let log = Log {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            next_producer: 1,
            homes: homes.collect(),
            ..Log::default()
        };
        let first = Fake::node(1, log);
        let mut cluster = Self { nodes: vec![first.clone()], running: Vec::new() };
        cluster.nodes.extend((2..=nodes).map(|id| first.beside(id)));
        for node in &cluster.nodes {
            let running = node.listen().await;
            node.log.lock().addresses.insert(node.id, running.address);
            cluster.running.push(running);
        }
        cluster
    }

    pub fn node(&self, id: u64) -> &Fake {
        &self.nodes[usize::try_from(id - 1).expect("few")]
    }

    pub fn running(&self, id: u64) -> &Running {
        &self.running[usize::try_from(id - 1).expect("few")]
    }

    pub fn log(&self) -> &Arc<Mutex<Log>> {
        &self.nodes[0].log
    }

    /// The addresses of these nodes as a person writes them.
    pub fn addresses(&self, ids: impl IntoIterator<Item = u64>) -> String {
        let addresses = ids.into_iter().map(|id| self.running(id).address.to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// A client that was told of one node.
    pub async fn connect(&self) -> StreamHouse {
        StreamHouse::connect(&self.addresses([1])).await.expect("the node listens")
    }

    /// A node is a reader from now on, which nobody tells of.
    pub fn make_reader(&self, id: u64) {
        self.node(id).state.lock().is_reader = true;
        self.log().lock().addresses.remove(&id);
    }

    /// Kills a node. The others go on to tell of it, as they do for as long as its lease lasts.
    pub fn stop(&mut self, id: u64) {
        self.running[usize::try_from(id - 1).expect("few")].stop();
        self.node(id).forget_pending();
    }

    /// Starts a node where it was.
    pub async fn restart(&mut self, id: u64) {
        let address = self.running(id).address;
        let running = self.node(id).listen_on(address).await;
        self.running[usize::try_from(id - 1).expect("few")] = running;
    }

    /// A partition has another home from now on; nobody is told.
    pub fn move_quietly(&self, partition: u32, to: u64) -> v1::PartitionHome {
        let mut log = self.log().lock();
        let home = &mut log.homes[partition as usize];
        *home = v1::PartitionHome { partition, node_id: to, epoch: home.epoch + 1 };
        *home
    }

    /// A partition has another home from now on, and all sessions are told.
    pub fn move_home(&self, partition: u32, to: u64) {
        let home = self.move_quietly(partition, to);
        let (_, nodes) = self.log().lock().routing();
        let redirect = ToClient::Redirect(v1::Redirect { homes: vec![home], nodes });
        self.nodes.iter().for_each(|node| node.say(&redirect));
    }
}

fn node(id: u64) -> v1::Node {
    v1::Node {
        id,
        state: v1::NodeState::Draining.into(),
        role: "broker".to_owned(),
        zone: "a".to_owned(),
        voter: true,
        homes: 7,
        last_heard: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        ..Default::default()
    }
}

impl Fake {
    /// Notes a change with its request id; scripted refusals come first.
    fn change(&self, request_id: &str) -> Result<(), Status> {
        self.log.lock().requests.push((self.id, request_id.to_owned()));
        match self.state.lock().acts.pop_front() {
            Some(super::Act::Nack(code)) => Err(status(code)),
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Fake {
    async fn get_info(
        &self,
        _request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        Ok(Response::new(v1::GetInfoResponse {
            version: "fake".to_owned(),
            node_id: self.id,
            ..Default::default()
        }))
    }

    async fn get_routing(
        &self,
        _request: Request<v1::GetRoutingRequest>,
    ) -> Result<Response<v1::GetRoutingResponse>, Status> {
        self.asked.send_modify(|asked| *asked += 1);
        let (homes, nodes) = self.log.lock().routing();
        if nodes.is_empty() {
            return Err(Status::new(Code::Unimplemented, "an older server"));
        }
        let reader = self.state.lock().is_reader;
        Ok(Response::new(v1::GetRoutingResponse { nodes, homes, reader }))
    }

    async fn list_held_back_clients(
        &self,
        _request: Request<v1::ListHeldBackClientsRequest>,
    ) -> Result<Response<v1::ListHeldBackClientsResponse>, Status> {
        Ok(Response::new(v1::ListHeldBackClientsResponse { node_id: self.id, clients: Vec::new() }))
    }

    async fn list_nodes(
        &self,
        _request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Ok(Response::new(v1::ListNodesResponse { nodes: vec![node(1), node(2)] }))
    }

    async fn describe_node(
        &self,
        request: Request<v1::DescribeNodeRequest>,
    ) -> Result<Response<v1::DescribeNodeResponse>, Status> {
        let id = request.into_inner().node_id;
        let homes = vec![v1::NodeHome { topic: "t".to_owned(), partition: 3, epoch: 2 }];
        Ok(Response::new(v1::DescribeNodeResponse { node: Some(node(id)), homes }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let request = request.into_inner();
        self.change(&request.request_id)?;
        let state = if request.validate_only { v1::NodeState::Serving } else { v1::NodeState::Draining };
        let node = v1::Node { state: state.into(), ..node(request.node_id) };
        Ok(Response::new(v1::DrainNodeResponse { node: Some(node), ..Default::default() }))
    }

    async fn undrain_node(
        &self,
        request: Request<v1::UndrainNodeRequest>,
    ) -> Result<Response<v1::UndrainNodeResponse>, Status> {
        let request = request.into_inner();
        self.change(&request.request_id)?;
        Ok(Response::new(v1::UndrainNodeResponse { node: Some(node(request.node_id)) }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let request = request.into_inner();
        self.change(&request.request_id)?;
        let homes_to_move = if request.validate_only { 4 } else { 5 };
        Ok(Response::new(v1::RemoveNodeResponse { homes_to_move, voters: vec![1, 2] }))
    }

    async fn get_health(
        &self,
        _request: Request<v1::GetHealthRequest>,
    ) -> Result<Response<v1::GetHealthResponse>, Status> {
        let check = v1::HealthCheck {
            name: "nodes".to_owned(),
            fix: "start node 3".to_owned(),
            ..Default::default()
        };
        Ok(Response::new(v1::GetHealthResponse { checks: vec![check], leader_id: 2, ..Default::default() }))
    }

    async fn get_raft_status(
        &self,
        _request: Request<v1::GetRaftStatusRequest>,
    ) -> Result<Response<v1::GetRaftStatusResponse>, Status> {
        let member = v1::RaftMember { node_id: 2, voter: true, matched_index: Some(9), ..Default::default() };
        Ok(Response::new(v1::GetRaftStatusResponse { term: 4, members: vec![member], ..Default::default() }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let to = request.into_inner().node_id;
        Ok(Response::new(v1::TransferLeaderResponse { leader_id: if to == 0 { 3 } else { to } }))
    }

    async fn set_voters(
        &self,
        request: Request<v1::SetVotersRequest>,
    ) -> Result<Response<v1::SetVotersResponse>, Status> {
        let request = request.into_inner();
        self.change(&request.request_id)?;
        match request.voters {
            1 | 3 | 5 => Ok(Response::new(v1::SetVotersResponse {})),
            _ => Err(status(ErrorCode::InvalidArgument)),
        }
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        let home = v1::HomeMove { topic: "t".to_owned(), partition: 1, from_node: 0, to_node: 2 };
        let moves = if request.into_inner().validate_only { vec![home] } else { Vec::new() };
        let nodes = vec![v1::NodeLoad { node_id: 2, homes_before: 0, homes_after: 1 }];
        Ok(Response::new(v1::RebalanceResponse { nodes, moves }))
    }
}
