//! Terms, votes, memberships and entries as bytes: our own encoding, so that a new version of the consensus library
//! changes no file. `docs/formats/raft-log.md` is the reference.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use openraft::{BasicNode, EntryPayload};

use crate::types::{Entry, LogId, LoggedCommand, Membership, StoredMembership, Vote, log_id};

/// Bytes that hold not what they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes hold no {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

const ENTRY_BLANK: u8 = 0;
const ENTRY_COMMAND: u8 = 1;
const ENTRY_MEMBERSHIP: u8 = 2;

/// Takes values off the front of bytes; never panics.
pub(crate) struct Reader {
    bytes: Bytes,
    expected: &'static str,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes, expected: &'static str) -> Self {
        Self { bytes, expected }
    }

    pub(crate) fn malformed(&self) -> Malformed {
        Malformed(self.expected)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if self.bytes.len() < count { Err(self.malformed()) } else { Ok(self.bytes.split_to(count)) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.bytes.try_get_u8().map_err(|_| self.malformed())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes.try_get_u32_le().map_err(|_| self.malformed())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.bytes.try_get_u64_le().map_err(|_| self.malformed())
    }

    pub(crate) fn rest(self) -> Bytes {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, Malformed> {
        Ok(log_id(self.u64()?, self.u64()?))
    }

    pub(crate) fn optional_log_id(&mut self) -> Result<Option<LogId>, Malformed> {
        if self.flag()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, Malformed> {
        let (term, node) = (self.u64()?, self.u64()?);
        Ok(if self.flag()? { Vote::new_committed(term, node) } else { Vote::new(term, node) })
    }

    pub(crate) fn optional_vote(&mut self) -> Result<Option<Vote>, Malformed> {
        if self.flag()? { self.vote().map(Some) } else { Ok(None) }
    }

    pub(crate) fn membership(&mut self) -> Result<Membership, Malformed> {
        let mut sets = Vec::new();
        for _ in 0..self.u32()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.u32()? {
                voters.insert(self.u64()?);
            }
            sets.push(voters);
        }
        let mut members = BTreeMap::new();
        for _ in 0..self.u32()? {
            let node = self.u64()?;
            let length = usize::try_from(self.u32()?).map_err(|_| self.malformed())?;
            let address = self.take(length)?;
            let address = std::str::from_utf8(&address).map_err(|_| self.malformed())?.to_owned();
            members.insert(node, BasicNode { addr: address });
        }
        Membership::new(sets, members).map_err(|_| self.malformed())
    }

    pub(crate) fn stored_membership(&mut self) -> Result<StoredMembership, Malformed> {
        Ok(StoredMembership::new(self.optional_log_id()?, self.membership()?))
    }
}

pub(crate) fn put_log_id(to: &mut Vec<u8>, id: &LogId) {
    to.extend_from_slice(&id.committed_leader_id().term.to_le_bytes());
    to.extend_from_slice(&id.index().to_le_bytes());
}

pub(crate) fn put_optional_log_id(to: &mut Vec<u8>, id: Option<&LogId>) {
    to.push(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(to, id);
    }
}

pub(crate) fn put_vote(to: &mut Vec<u8>, vote: &Vote) {
    to.extend_from_slice(&vote.leader_id().term.to_le_bytes());
    to.extend_from_slice(&vote.leader_id().voted_for.to_le_bytes());
    to.push(u8::from(vote.is_committed()));
}

pub(crate) fn put_optional_vote(to: &mut Vec<u8>, vote: Option<&Vote>) {
    to.push(u8::from(vote.is_some()));
    if let Some(vote) = vote {
        put_vote(to, vote);
    }
}

pub(crate) fn put_membership(to: &mut Vec<u8>, membership: &Membership) {
    let count = |to: &mut Vec<u8>, count: usize| {
        to.extend_from_slice(&u32::try_from(count).expect("a membership is small").to_le_bytes());
    };
    count(to, membership.get_joint_config().len());
    for voters in membership.get_joint_config() {
        count(to, voters.len());
        for voter in voters {
            to.extend_from_slice(&voter.to_le_bytes());
        }
    }
    count(to, membership.nodes().count());
    for (node, member) in membership.nodes() {
        to.extend_from_slice(&node.to_le_bytes());
        count(to, member.addr.len());
        to.extend_from_slice(member.addr.as_bytes());
    }
}

pub(crate) fn put_stored_membership(to: &mut Vec<u8>, stored: &StoredMembership) {
    put_optional_log_id(to, stored.log_id().as_ref());
    put_membership(to, stored.membership());
}

pub(crate) fn put_entry(to: &mut Vec<u8>, entry: &Entry) {
    put_log_id(to, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => to.push(ENTRY_BLANK),
        EntryPayload::Normal(command) => {
            to.push(ENTRY_COMMAND);
            to.extend_from_slice(command.bytes());
        }
        EntryPayload::Membership(membership) => {
            to.push(ENTRY_MEMBERSHIP);
            put_membership(to, membership);
        }
    }
}

/// Reads what [`put_entry`] wrote; the command's bytes are a slice of `bytes`.
pub(crate) fn read_entry(bytes: Bytes) -> Result<Entry, Malformed> {
    let mut reader = Reader::new(bytes, "log entry");
    let log_id = reader.log_id()?;
    let payload = match reader.u8()? {
        ENTRY_BLANK => {
            reader.finish()?;
            EntryPayload::Blank
        }
        ENTRY_COMMAND => EntryPayload::Normal(LoggedCommand::from_bytes(reader.rest())),
        ENTRY_MEMBERSHIP => {
            let membership = reader.membership()?;
            reader.finish()?;
            EntryPayload::Membership(membership)
        }
        _ => return Err(reader.malformed()),
    };
    Ok(Entry { log_id, payload })
}

/// How many bytes [`put_entry`] writes.
pub(crate) fn entry_length(entry: &Entry) -> usize {
    const HEAD: usize = 17;
    match &entry.payload {
        EntryPayload::Blank => HEAD,
        EntryPayload::Normal(command) => HEAD + command.bytes().len(),
        EntryPayload::Membership(membership) => {
            let mut bytes = Vec::new();
            put_membership(&mut bytes, membership);
            HEAD + bytes.len()
        }
    }
}

/// The entry with bytes of its own, so that it does not hold the buffer it was read from.
pub(crate) fn unshared(entry: Entry) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Normal(command) => {
            EntryPayload::Normal(LoggedCommand::from_bytes(Bytes::copy_from_slice(command.bytes())))
        }
        payload => payload,
    };
    Entry { log_id: entry.log_id, payload }
}

/// About how many bytes of memory an entry holds.
pub(crate) fn entry_size(entry: &Entry) -> usize {
    const OVERHEAD: usize = 160;
    match &entry.payload {
        EntryPayload::Normal(command) => OVERHEAD + command.bytes().len(),
        _ => OVERHEAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let nodes: BTreeMap<_, _> =
            (1..=3).map(|n| (n, BasicNode::new(format!("127.0.0.1:900{n}")))).collect();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes)
            .expect("all voters are members")
    }

    fn encoded(entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_entry(&mut bytes, entry);
        bytes
    }

    #[test]
    fn entries_read_back_what_was_written() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(LoggedCommand::from_bytes(Bytes::from_static(b"command"))),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 9), payload };
            let bytes = encoded(&entry);
            assert_eq!(entry_length(&entry), bytes.len());
            assert_eq!(read_entry(bytes.clone().into()).map(unshared), Ok(entry));
            for short in 0..17 {
                assert!(read_entry(Bytes::copy_from_slice(&bytes[..short.min(bytes.len() - 1)])).is_err());
            }
        }
    }

    #[test]
    fn the_bytes_of_a_blank_entry_stay_what_they_are() {
        let entry = Entry { log_id: log_id(3, 0x0102), payload: EntryPayload::Blank };
        assert_eq!(encoded(&entry), [3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_membership_whose_counts_lie_is_refused() {
        let mut bytes = Vec::new();
        put_membership(&mut bytes, &membership());
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0xFF;
            // Refused or another membership; never a panic and never a huge allocation.
            let _ = Reader::new(damaged.into(), "membership").membership();
        }
    }
}
