use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use openraft::network::NetStreamAppend as _;
use openraft::{BasicNode, EntryPayload, RaftNetworkFactory as _};
use pb::append_entries_response::{Conflict, PartialSuccess, Result as Said, Success};
use pb::raft_service_server::{RaftService, RaftServiceServer};
use streamhouse_env::{Clock, Connection, Listener, Net, TcpNet};
use streamhouse_types::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming, async_trait};

use super::*;
use crate::network::{Acknowledged, Connector, Network};
use crate::types::{Entry, LoggedCommand, Vote, log_id};

/// Time that a test moves by hand.
#[derive(Clone)]
struct HandClock(Arc<watch::Sender<Duration>>);

impl HandClock {
    fn an_hour_passes(&self) {
        self.0.send_modify(|now| *now += Duration::from_secs(3_600));
    }
}

impl fmt::Debug for HandClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandClock")
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Duration {
        *self.0.borrow()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    async fn sleep_until(&self, deadline: Duration) {
        self.0.subscribe().wait_for(|now| *now >= deadline).await.expect("the clock is held");
    }
}

/// What a follower says, one for each request of each stream; nothing more when it runs out.
type Script = Vec<Vec<Said>>;

/// Follows a script instead of a log.
struct Follower {
    streams: AtomicUsize,
    script: Script,
    /// Requests that came in.
    heard: Arc<watch::Sender<usize>>,
}

#[async_trait]
impl RaftService for Follower {
    type AppendStreamStream = BoxStream<'static, Result<pb::AppendEntriesResponse, Status>>;

    async fn append_stream(
        &self,
        request: Request<Streaming<pb::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let stream = self.streams.fetch_add(1, Ordering::SeqCst);
        let mut said = self.script.get(stream).cloned().unwrap_or_default().into_iter();
        let mut messages = request.into_inner();
        let heard = self.heard.clone();
        let (told, answers) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut silent = false;
            while let Ok(Some(_)) = messages.message().await {
                match said.next() {
                    Some(result) => {
                        let _ = told.send(Ok(pb::AppendEntriesResponse { result: Some(result) })).await;
                    }
                    None => silent = true,
                }
                heard.send_modify(|heard| *heard += 1);
            }
            if silent {
                std::future::pending::<()>().await;
            }
        });
        let answers = futures::stream::unfold(answers, |mut answers| async move {
            answers.recv().await.map(|answer| (answer, answers))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn vote(&self, _: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn pre_vote(&self, _: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn install_snapshot(
        &self,
        _: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn transfer_leader(
        &self,
        _: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn read_index(
        &self,
        _: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn propose(&self, _: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// A follower that is served, and the connections that it took.
struct Served {
    address: SocketAddr,
    heard: watch::Receiver<usize>,
    connections: Arc<AtomicUsize>,
}

async fn serve(script: Script) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let heard = Arc::new(watch::Sender::new(0));
    let receiver = heard.subscribe();
    let follower = Follower { streams: AtomicUsize::new(0), script, heard };
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let incoming = TcpListenerStream::new(listener).inspect(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let server = tonic::transport::Server::builder().add_service(RaftServiceServer::new(follower));
    tokio::spawn(async { server.serve_with_incoming(incoming).await });
    Served { address, heard: receiver, connections }
}

async fn peer(served: &Served) -> (Peer, HandClock) {
    let clock = HandClock(Arc::new(watch::Sender::new(Duration::ZERO)));
    let connector = Connector::new(Arc::new(TcpNet), Arc::new(clock.clone()));
    let mut network = Network { connector, node: 1, acknowledged: Acknowledged::default() };
    (network.new_client(2, &BasicNode::new(served.address)).await, clock)
}

/// The request that appends the entry at `index`, of `bytes` bytes.
fn request(index: u64, bytes: usize) -> AppendEntriesRequest<TypeConfig> {
    let command = LoggedCommand::from_bytes(vec![7; bytes].into());
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: index.checked_sub(1).map(|before| log_id(1, before)),
        entries: vec![Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(command) }],
        leader_commit: None,
    }
}

fn requests(count: u64) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static {
    futures::stream::iter((0..count).map(|index| request(index, 10)))
}

/// A network in which nobody is there; counts who asks.
#[derive(Debug, Default)]
struct Nobody(AtomicUsize);

#[async_trait]
impl Net for Nobody {
    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _: &str) -> io::Result<Connection> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

#[tokio::test]
async fn a_follower_that_is_gone_is_left_alone_until_there_is_a_request() {
    let net = Arc::new(Nobody::default());
    let clock = HandClock(Arc::new(watch::Sender::new(Duration::ZERO)));
    let connector = Connector::new(net.clone(), Arc::new(clock));
    let mut network = Network { connector, node: 1, acknowledged: Acknowledged::default() };
    let mut peer = network.new_client(2, &BasicNode::new("127.0.0.1:1")).await;
    let (send, held_back) = mpsc::channel(1);
    let requests = futures::stream::unfold(held_back, |mut held_back| async move {
        held_back.recv().await.map(|request| (request, held_back))
    });
    let option = RPCOption::new(Duration::from_secs(1));
    let mut answers = peer.stream_append(requests.boxed(), option).await.expect("an address");
    for _ in 0..100 {
        assert!(answers.next().now_or_never().is_none(), "there is nothing to be answered");
        tokio::task::yield_now().await;
    }
    assert_eq!(net.0.load(Ordering::SeqCst), 0);
    send.send(request(0, 10)).await.expect("taken");
    assert!(answers.next().await.expect("an answer").is_err());
    assert_eq!(net.0.load(Ordering::SeqCst), 1);
}

async fn answers_to(
    peer: &mut Peer,
    requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
) -> Vec<Answer> {
    let option = RPCOption::new(Duration::from_secs(1));
    let answers = peer.stream_append(requests, option).await.expect("an address").collect();
    tokio::time::timeout(Duration::from_secs(60), answers).await.expect("the stream ends")
}

fn success() -> Said {
    Said::Success(Success {})
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_and_the_connection_is_kept() {
    let served = serve(vec![vec![success(); 40], vec![success(); 40]]).await;
    let (mut peer, _) = peer(&served).await;
    for _ in 0..2 {
        let answers = answers_to(&mut peer, requests(40)).await;
        let matched: Vec<_> =
            answers.into_iter().map(|answer| answer.expect("it works").expect("success")).collect();
        assert_eq!(matched, (0..40).map(|index| Some(log_id(1, index))).collect::<Vec<_>>());
    }
    assert_eq!(served.connections.load(Ordering::SeqCst), 1);
}

/// Sends `requests` to a follower that does not answer; gives how many came there before they were given up.
async fn sent_ahead(
    requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    expected: usize,
) -> usize {
    let mut served = serve(Vec::new()).await;
    let (mut peer, clock) = peer(&served).await;
    let give_up = async {
        served.heard.wait_for(|heard| *heard >= expected).await.expect("it is served");
        clock.an_hour_passes();
    };
    let (answers, ()) = tokio::join!(answers_to(&mut peer, requests), give_up);
    assert!(matches!(&answers[..], [Err(RPCError::Timeout(_))]), "{answers:?}");
    *served.heard.borrow()
}

#[tokio::test]
async fn requests_go_ahead_of_their_answers_but_not_without_bound() {
    assert_eq!(sent_ahead(requests(100), REQUESTS_MAX).await, REQUESTS_MAX);
    let large = futures::stream::iter((0..100).map(|index| request(index, BYTES_MAX / 2)));
    assert_eq!(sent_ahead(large, 2).await, 2, "half a window each");
}

#[tokio::test]
async fn after_a_stall_the_connection_is_made_anew() {
    let mut served = serve(vec![vec![success()], vec![success(); 3]]).await;
    let (mut peer, clock) = peer(&served).await;
    let stall = async {
        served.heard.wait_for(|heard| *heard >= 2).await.expect("it is served");
        clock.an_hour_passes();
    };
    let (answers, ()) = tokio::join!(answers_to(&mut peer, requests(3)), stall);
    assert!(matches!(answers.last(), Some(Err(RPCError::Timeout(_)))), "{answers:?}");
    let answers = answers_to(&mut peer, requests(3)).await;
    assert!(matches!(&answers[..], [Ok(Ok(_)), Ok(Ok(_)), Ok(Ok(_))]), "{answers:?}");
    assert_eq!(served.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_call_that_was_dropped_leaves_no_connection_that_may_be_half_dead() {
    let mut served = serve(vec![Vec::new(), vec![success()]]).await;
    let (mut peer, _) = peer(&served).await;
    tokio::select! {
        answers = answers_to(&mut peer, requests(1)) => panic!("{answers:?}"),
        heard = served.heard.wait_for(|heard| *heard == 1) => drop(heard.expect("it is served")),
    }
    let answers = answers_to(&mut peer, requests(1)).await;
    assert!(matches!(&answers[..], [Ok(Ok(_))]), "{answers:?}");
    assert_eq!(served.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_quiet_log_is_no_stall() {
    let served = serve(vec![vec![success(); 2]]).await;
    let (mut peer, clock) = peer(&served).await;
    let (send, requests) = mpsc::channel(1);
    let requests = futures::stream::unfold(requests, |mut requests| async move {
        requests.recv().await.map(|request| (request, requests))
    });
    let option = RPCOption::new(Duration::from_secs(1));
    let mut answers = peer.stream_append(requests.boxed(), option).await.expect("an address");
    for index in 0..2 {
        send.send(request(index, 10)).await.expect("the stream reads");
        let answer = answers.next().await.expect("no end");
        assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
        clock.an_hour_passes();
        assert!(answers.next().now_or_never().is_none(), "nothing is due");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_success_ends_the_stream() {
    let vote = pb::Vote { term: 9, node_id: 3, committed: true };
    let script = vec![
        vec![Said::Conflict(Conflict {}), success()],
        vec![Said::HigherVote(vote), success()],
        vec![Said::PartialSuccess(PartialSuccess { matching: None }), success()],
    ];
    let served = serve(script).await;
    let (mut peer, _) = peer(&served).await;
    let conflict = answers_to(&mut peer, requests(3).skip(1)).await;
    let expected = StreamAppendError::Conflict(log_id(1, 0));
    assert!(matches!(&conflict[..], [Ok(Err(error))] if *error == expected), "{conflict:?}");
    let higher = answers_to(&mut peer, requests(2)).await;
    let expected = StreamAppendError::HigherVote(Vote::new_committed(9, 3));
    assert!(matches!(&higher[..], [Ok(Err(error))] if *error == expected), "{higher:?}");
    let partial = answers_to(&mut peer, requests(2)).await;
    assert!(matches!(&partial[..], [Ok(Ok(None))]), "{partial:?}");
}

#[tokio::test]
async fn a_follower_that_has_lost_what_it_acknowledged_is_as_good_as_away() {
    let script = vec![
        vec![success(), success()],
        vec![Said::Conflict(Conflict {})],
        vec![Said::Conflict(Conflict {})],
    ];
    let served = serve(script).await;
    let (mut peer, _) = peer(&served).await;
    let kept = answers_to(&mut peer, requests(2)).await;
    assert!(matches!(&kept[..], [Ok(Ok(_)), Ok(Ok(_))]), "{kept:?}");
    let lost = answers_to(&mut peer, requests(3).skip(2)).await;
    assert!(matches!(&lost[..], [Err(RPCError::Unreachable(_))]), "{lost:?}");
    // What lies behind that is no loss.
    let behind = answers_to(&mut peer, requests(4).skip(3)).await;
    let expected = StreamAppendError::Conflict(log_id(1, 2));
    assert!(matches!(&behind[..], [Ok(Err(error))] if *error == expected), "{behind:?}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_is_an_error_and_no_panic() {
    // The first entry of a log has nothing before it that could conflict.
    let served = serve(vec![vec![Said::Conflict(Conflict {})]]).await;
    let (mut peer, _) = peer(&served).await;
    let answers = answers_to(&mut peer, requests(1)).await;
    assert!(matches!(&answers[..], [Err(RPCError::Unreachable(_))]), "{answers:?}");
}
