//! One member.

use std::time::Duration;

use bytes::Bytes;
use streamhouse_broker::metadata::MemberRecord;

use super::Ticket;
use crate::JoinRequest;

/// Bytes that a stored member takes apart from its texts, at most.
const MEMBER_BYTES: usize = 64;
/// Bytes that a stored protocol takes apart from its name and metadata, at most.
const PROTOCOL_BYTES: usize = 10;

/// A member as the coordinator has it in memory.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client: String,
    pub(super) host: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its place among all that ever came.
    pub(super) arrival: u64,
    /// The join that waits for the others.
    pub(super) joining: Option<Ticket>,
    /// The sync that waits for the leader.
    pub(super) syncing: Option<Ticket>,
    /// Whether it has asked for its assignment in this generation.
    pub(super) synced: bool,
    /// Whether it was ever told its id.
    pub(super) told: bool,
    /// When it counts as gone, unless it is heard of or waits for an answer.
    silent_until: Duration,
}

impl Member {
    /// A member that has just come with `request`.
    pub(super) fn new(now: Duration, request: JoinRequest, arrival: u64) -> Self {
        let told = !request.member.is_empty();
        Self {
            instance: request.instance,
            client: request.client,
            host: request.host,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols,
            assignment: Bytes::new(),
            arrival,
            joining: None,
            syncing: None,
            synced: false,
            told,
            silent_until: now + request.session_timeout,
        }
    }

    /// A member that another coordinator has stored; it has all its time again.
    pub(super) fn stored(now: Duration, record: &MemberRecord, arrival: u64) -> Self {
        let millis = |millis: u32| Duration::from_millis(millis.into());
        let protocol = |(name, metadata): &(String, Vec<u8>)| (name.clone(), metadata.clone().into());
        Self {
            instance: record.instance.clone(),
            client: record.client.clone(),
            host: record.host.clone(),
            session_timeout: millis(record.session_timeout_ms),
            rebalance_timeout: millis(record.rebalance_timeout_ms),
            protocols: record.protocols.iter().map(protocol).collect(),
            assignment: record.assignment.clone().into(),
            arrival,
            joining: None,
            syncing: None,
            synced: false,
            told: true,
            silent_until: now + millis(record.session_timeout_ms),
        }
    }

    /// What is stored of it.
    pub(super) fn record(&self, id: &str) -> MemberRecord {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        MemberRecord {
            id: id.to_owned(),
            instance: self.instance.clone(),
            client: self.client.clone(),
            host: self.host.clone(),
            session_timeout_ms: millis(self.session_timeout),
            rebalance_timeout_ms: millis(self.rebalance_timeout),
            protocols: self.protocols.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect(),
            assignment: self.assignment.to_vec(),
        }
    }

    /// It says of itself what `request` says from now on.
    pub(super) fn update(&mut self, request: JoinRequest) {
        self.client = request.client;
        self.host = request.host;
        self.session_timeout = request.session_timeout;
        self.rebalance_timeout = request.rebalance_timeout;
        self.protocols = request.protocols;
    }

    /// It was heard of.
    pub(super) fn renew(&mut self, now: Duration) {
        self.silent_until = now + self.session_timeout;
    }

    /// When it counts as gone; `None` while it waits for an answer.
    pub(super) fn expires(&self) -> Option<Duration> {
        (self.joining.is_none() && self.syncing.is_none()).then_some(self.silent_until)
    }

    /// Whether it has yet to ask for its assignment.
    pub(super) fn owes_sync(&self) -> bool {
        !self.synced && self.syncing.is_none()
    }

    pub(super) fn waits_with(&self, tickets: &[Ticket]) -> bool {
        [self.joining, self.syncing].into_iter().flatten().any(|ticket| tickets.contains(&ticket))
    }

    /// It does not wait with any of these any more.
    pub(super) fn hang_up(&mut self, tickets: &[Ticket]) {
        self.joining = self.joining.filter(|ticket| !tickets.contains(ticket));
        self.syncing = self.syncing.filter(|ticket| !tickets.contains(ticket));
    }

    /// Whether nobody knows that it is a member: it was not told its id, and does not wait for it any more.
    pub(super) fn is_lost(&self) -> bool {
        !self.told && self.instance.is_none() && self.joining.is_none()
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Its metadata for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// What it takes when it is stored without an assignment, at most.
    pub(super) fn bytes(&self, id: &str) -> usize {
        let texts = id.len() + self.instance.as_ref().map_or(0, String::len);
        texts + self.client.len() + self.host.len() + MEMBER_BYTES + protocol_bytes(&self.protocols)
    }
}

/// What protocols take when they are stored, at most.
pub(super) fn protocol_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + PROTOCOL_BYTES).sum()
}
