//! Requests that another node has to answer, passed on to it: for groups that it looks after, and on a reader for topics that
//! are to be made.
//!
//! Where all nodes stand behind one address, a client cannot choose the one that it speaks to: its coordinator is the whole
//! cluster, and any node takes what is meant for any group. Each request passed on has a connection of its own, so that one
//! that waits holds up no other, and whoever goes away takes with him what waited for him. None is passed on twice: two
//! nodes that differ over who looks after a group send the client away, and not its request round in a circle.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{NodeEntry, State};
use streamhouse_env::Connection;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{GroupId, NodeId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::group_offsets::{committed_answer, deleted_answer};
use super::groups::{left_answer, parse_group};
use super::parse_name;
use crate::codec::{Body, DecodeError, Request, encode, read_offsets};
use crate::connection::Answer;
use crate::service::DIRECT;
use crate::{Api, Code, Kafka};

/// What stands before the name of a client whose request was passed on; where it is, and a zero byte, stand between. No
/// client calls itself so.
const PASSED_ON: &str = "\0passed on for ";
/// Longest wait for a connection to another node.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for an answer that nothing holds back: longer than a group has for it, and shorter than clients wait.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for an answer that waits for other members: as long as a connection may be silent.
const GATHER_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether the node that was asked still looks after the group.
const LOOK: Duration = Duration::from_millis(500);
/// Largest answer, as for reads.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The name that the client gives itself, may be empty.
    pub(crate) client: String,
    /// Where it is, as Kafka's tools show it.
    pub(crate) host: Arc<str>,
    /// Whether another node has passed the request on.
    passed_on: bool,
}

impl Caller {
    /// Whoever calls himself `client` and is at `host`, unless the request was passed on for another.
    pub(crate) fn new(client: Option<&str>, host: &Arc<str>) -> Self {
        let client = client.unwrap_or_default();
        match client.strip_prefix(PASSED_ON).and_then(|rest| rest.split_once('\0')) {
            Some((host, client)) => Self { client: client.to_owned(), host: host.into(), passed_on: true },
            None => Self { client: client.to_owned(), host: Arc::clone(host), passed_on: false },
        }
    }
}

/// Why another node has not answered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It was not asked.
    #[error("it was not reached: {0}")]
    NotAsked(io::Error),
    /// It was, and may have done what it was asked for.
    #[error("it was asked, and did not answer: {0}")]
    NotAnswered(#[from] io::Error),
}

impl Kafka {
    /// The answer of the node that looks after the group of a request, when clients cannot ask it themselves. `None`
    /// when that is this node, or the other one does not answer and a second try does no harm: whoever goes on then as if
    /// the client had asked this node tells it to try again, or has become the one who looks after the group.
    pub(super) async fn passed_on(
        &self,
        version: i16,
        (request, body): (&Request, &Bytes),
        caller: &Caller,
    ) -> Option<Result<Answer, DecodeError>> {
        if let Request::Metadata(query) = request {
            let body = self.topics_elsewhere(version, query, (caller, body)).await?;
            return Some(Ok(Answer::of(Body(vec![body]), Code::NONE)));
        }
        let (api, group) = group_of(request)?;
        let (node, group) = self.keeper_elsewhere(group, caller)?;
        let waits = matches!(api, Api::JoinGroup | Api::SyncGroup);
        let deadline = self.clock().now() + if waits { GATHER_PATIENCE } else { PATIENCE };
        let over = self.no_longer(node, &group);
        let asked = self.ask(node, (api, version), (caller, body), deadline, over);
        let answered = tokio::select! {
            answered = asked => answered,
            // Who waits for others does not hold up a node that stops.
            () = self.0.options.drain.cancelled(), if waits => Err(Failure::NotAnswered(io::ErrorKind::Interrupted.into())),
            // Nor does one that hears nothing of the others any more hear of an answer.
            () = self.adrift() => Err(Failure::NotAnswered(io::ErrorKind::NetworkUnreachable.into())),
        };
        match answered {
            Ok(body) => Some(Ok(Answer::of(Body(vec![body]), Code::NONE))),
            Err(error) => {
                tracing::debug!(%node, %error, api = api.name(), "a request was not passed on");
                matches!(error, Failure::NotAnswered(_)).then(|| perhaps_done(version, request)).flatten()
            }
        }
    }

    /// What a broker says of topics that a reader is asked for and does not know: asking a broker makes them, where that is
    /// allowed. `None` when this is a broker, none is missing, or none answers.
    async fn topics_elsewhere(
        &self,
        version: i16,
        query: &g::MetadataRequestData,
        asked: (&Caller, &[u8]),
    ) -> Option<Bytes> {
        let mut names = query.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        let mut missing = |state: &State| {
            names.any(|name| parse_name(name.as_str()).is_ok_and(|name| state.topic_by_name(&name).is_none()))
        };
        if self.broker().takes_writes() || asked.0.passed_on || !self.broker().look(&mut missing) {
            return None;
        }
        let node = self.broker().look(|state| state.eligible_homes().next().map(NodeEntry::id))?;
        let (api, deadline) = ((Api::Metadata, version), self.lookup_deadline());
        self.ask(node, api, asked, deadline, std::future::pending()).await.ok()
    }

    /// When a lookup that is made now is given up.
    pub(super) fn lookup_deadline(&self) -> Duration {
        self.clock().now() + PATIENCE
    }

    /// What the node that looks after a group says it has committed; `None` as above.
    pub(super) async fn offsets_elsewhere(
        &self,
        version: i16,
        asked: &g::OffsetFetchRequestGroup,
        (require_stable, deadline): (bool, Duration),
        caller: &Caller,
    ) -> Option<g::OffsetFetchResponseGroup> {
        let (node, group) = self.keeper_elsewhere(&asked.group_id, caller)?;
        let groups = vec![asked.clone()];
        let request = g::OffsetFetchRequestData { groups, require_stable, ..Default::default() };
        let body = encode(&request, version).ok()?.joined();
        let api = (Api::OffsetFetch, version);
        let over = self.no_longer(node, &group);
        let answered = self.ask(node, api, (caller, &body), deadline, over).await.ok()?;
        read_offsets(answered, version).ok()?.groups.pop()
    }

    /// The node that looks after a group, when requests are passed on and it is another one.
    fn keeper_elsewhere(&self, group: &KafkaString, caller: &Caller) -> Option<(NodeId, GroupId)> {
        if !self.is_single_endpoint() || caller.passed_on || self.is_adrift() {
            return None;
        }
        let group = parse_group(group.as_str()).ok()?;
        let node = self.keeper(&group)?;
        (node != self.0.options.node).then_some((node, group))
    }

    /// Asks another node what a client has asked this one; returns what follows the header of its answer. Not after `over`.
    /// Dropping it ends the connection to that node.
    async fn ask(
        &self,
        node: NodeId,
        (api, version): (Api, i16),
        (caller, body): (&Caller, &[u8]),
        deadline: Duration,
        over: impl Future<Output = ()>,
    ) -> Result<Bytes, Failure> {
        let frame = frame(api, version, caller, body).map_err(Failure::NotAsked)?;
        let net = &self.0.options.env.net;
        let address = self.broker().look(|state| state.node(node)?.address(DIRECT).map(str::to_owned));
        let address = address.ok_or(Failure::NotAsked(io::ErrorKind::AddrNotAvailable.into()))?;
        let mut connection = tokio::select! {
            connected = net.connect(&address) => connected.map_err(Failure::NotAsked)?,
            () = self.clock().sleep_until(deadline.min(self.clock().now() + CONNECT_PATIENCE)) => {
                return Err(Failure::NotAsked(io::ErrorKind::TimedOut.into()));
            }
        };
        let header = if api.answer_header_has_tags(version) { 5 } else { 4 };
        let answered = tokio::select! {
            answered = converse(&mut connection, &frame, header) => answered,
            () = over => Err(io::ErrorKind::ConnectionAborted.into()),
            () = self.clock().sleep_until(deadline) => Err(io::ErrorKind::TimedOut.into()),
        };
        Ok(answered?)
    }

    /// Returns when the node does not look after the group any more, as far as is known here.
    async fn no_longer(&self, node: NodeId, group: &GroupId) {
        while self.keeper(group) == Some(node) {
            self.clock().sleep(LOOK).await;
        }
    }
}

/// Sends a request and takes its answer, without the `header` bytes before its body.
async fn converse(connection: &mut Connection, frame: &[u8], header: usize) -> io::Result<Bytes> {
    connection.write_all(frame).await?;
    connection.flush().await?;
    let length = usize::try_from(connection.read_i32().await?).unwrap_or(usize::MAX);
    if !(header..=ANSWER_BYTES_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = Vec::with_capacity(length);
    if connection.take(length as u64).read_to_end(&mut answer).await? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from(answer).slice(header..))
}

/// The answer to who wants something changed and is not told whether it was; `None` where a second try does no harm.
fn perhaps_done(version: i16, request: &Request) -> Option<Result<Answer, DecodeError>> {
    let unknown = Code::from(ErrorCode::CommitUnknown);
    Some(match request {
        Request::OffsetCommit(query) => committed_answer(version, query.topics.clone(), &Err(unknown)),
        Request::LeaveGroup(query) => left_answer(version, query.members.clone(), Err(unknown)),
        Request::OffsetDelete(query) => deleted_answer(version, query.topics.clone(), Err(unknown)),
        _ => return None,
    })
}

/// The request as this node sends it on: its own header before the body as it came.
fn frame(api: Api, version: i16, caller: &Caller, body: &[u8]) -> io::Result<Bytes> {
    let client = format!("{PASSED_ON}{}\0{}", caller.host, caller.client);
    let client_length = i16::try_from(client.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut frame = BytesMut::with_capacity(body.len() + client.len() + 16);
    frame.put_i32(0);
    frame.put_i16(api.key());
    frame.put_i16(version);
    frame.put_i32(0);
    frame.put_i16(client_length);
    frame.put_slice(client.as_bytes());
    if api.is_flexible(version) {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    let length = i32::try_from(frame.len() - 4).map_err(|_| io::ErrorKind::InvalidInput)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// The one group that a request is for, when only the node that looks after it can answer. Newer lookups of offsets name
/// many.
fn group_of(request: &Request) -> Option<(Api, &KafkaString)> {
    Some(match request {
        Request::JoinGroup(query) => (Api::JoinGroup, &query.group_id),
        Request::SyncGroup(query) => (Api::SyncGroup, &query.group_id),
        Request::Heartbeat(query) => (Api::Heartbeat, &query.group_id),
        Request::LeaveGroup(query) => (Api::LeaveGroup, &query.group_id),
        Request::OffsetCommit(query) => (Api::OffsetCommit, &query.group_id),
        Request::OffsetFetch(query) if query.groups.is_empty() => (Api::OffsetFetch, &query.group_id),
        Request::OffsetDelete(query) => (Api::OffsetDelete, &query.group_id),
        _ => return None,
    })
}
