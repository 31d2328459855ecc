//! A snapshot: magic, version, length, checksum, then the state.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use crc_fast::CrcAlgorithm;
use serde::Deserialize;
use streamhouse_types::{ClusterId, LogIndex, NodeId, Timestamp, TopicId};

use super::{CodecError, check_level, from_postcard, take_from_postcard};
use crate::fleet::Fleet;
use crate::objects::Objects;
use crate::producers::Grants;
use crate::requests::Requests;
use crate::{NodeEntry, State, Topic, invariants};

const MAGIC: [u8; 8] = *b"SHMETA\r\n";
/// Version 3 adds the groups and the kept settings of topics, at the end. A state without any is still written as version
/// 2, so that nodes of the release before can read it: until all are upgraded there are none.
const VERSION: u8 = 3;
/// Version 2 added the fleet, at the end.
const VERSION_WITHOUT_GROUPS: u8 = 2;
const VERSION_WITHOUT_FLEET: u8 = 1;
/// What the body is called in errors.
const EXPECTED: &str = "metadata state";
/// Magic 8, version 1, zero 3, body length 8, CRC-32C of the body 4; numbers little-endian.
const HEADER_BYTES: usize = 24;

fn version(state: &State) -> u8 {
    let plain = |topic: &Topic| topic.settings().kept.is_empty();
    let older = state.groups.is_empty() && state.topics.values().all(|topic| plain(topic));
    if older { VERSION_WITHOUT_GROUPS } else { VERSION }
}

/// The settings that the body of a topic has no place for, of the topics that have any.
fn kept(state: &State) -> Vec<(TopicId, Vec<(&str, &str)>)> {
    let topics = state.topics.values().filter(|topic| !topic.settings().kept.is_empty());
    topics.map(|topic| (topic.id(), topic.settings().kept.iter().collect())).collect()
}

fn body(state: &State) -> Vec<u8> {
    let body = postcard::to_stdvec(state).expect("the state is plain data");
    match version(state) {
        VERSION => {
            let body = postcard::to_extend(&state.groups, body).expect("the groups are plain data");
            let kept = kept(state);
            if kept.is_empty() {
                return body;
            }
            postcard::to_extend(&kept, body).expect("settings are texts")
        }
        _ => body,
    }
}

fn checksum(body: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body)).expect("a CRC-32 has 32 bits")
}

/// A digest of the whole state.
pub(crate) fn digest(state: &State) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &body(state))
}

/// Writes the whole state: magic, version, length, checksum, body. Holds the body in memory once.
///
/// # Errors
/// Those of `to`.
pub fn encode_snapshot(state: &State, to: &mut impl Write) -> std::io::Result<()> {
    let body = body(state);
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8] = version(state);
    header[12..20].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[20..].copy_from_slice(&checksum(&body).to_le_bytes());
    to.write_all(&header)?;
    to.write_all(&body)
}

/// Reads a state back. Never panics, never allocates by announced length.
///
/// # Errors
/// When the bytes are no whole snapshot of a known version and feature level, or its state breaks an invariant.
pub fn decode_snapshot(bytes: &[u8]) -> Result<State, CodecError> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(CodecError::Truncated)?;
    let mut length = [0; 8];
    length.copy_from_slice(&header[12..20]);
    if header[..8] != MAGIC {
        return Err(CodecError::Magic);
    }
    let version = header[8];
    if !(VERSION_WITHOUT_FLEET..=VERSION).contains(&version) || header[9..12] != [0; 3] {
        return Err(CodecError::Version { version });
    }
    if body.len() as u64 != u64::from_le_bytes(length) {
        return Err(CodecError::Truncated);
    }
    if checksum(body).to_le_bytes() != header[20..] {
        return Err(CodecError::Checksum);
    }
    let mut state = match version {
        VERSION_WITHOUT_FLEET => from_postcard::<StateWithoutFleet>(body, EXPECTED)?.into(),
        VERSION_WITHOUT_GROUPS => from_postcard::<State>(body, EXPECTED)?,
        _ => state_with_groups(body)?,
    };
    check_level(&state)?;
    state.derive();
    invariants::check(&state).map_err(CodecError::Inconsistent)?;
    Ok(state)
}

fn state_with_groups(body: &[u8]) -> Result<State, CodecError> {
    let (state, rest) = take_from_postcard::<State>(body, EXPECTED)?;
    let (groups, rest) = take_from_postcard(rest, EXPECTED)?;
    let mut state = State { groups, ..state };
    if rest.is_empty() {
        return Ok(state);
    }
    let kept: Vec<(TopicId, Vec<(String, String)>)> = from_postcard(rest, EXPECTED)?;
    let whole = !kept.is_empty() && kept.iter().all(|(topic, kept)| state.restore_settings(*topic, kept));
    whole.then_some(state).ok_or(CodecError::Malformed { expected: EXPECTED })
}

/// The body of version 1.
#[derive(Deserialize)]
struct StateWithoutFleet {
    applied: LogIndex,
    cluster: Option<ClusterId>,
    time: Timestamp,
    topic_next: TopicId,
    topics: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    nodes: BTreeMap<NodeId, Arc<NodeEntry>>,
    objects: Objects,
    grants: Grants,
    requests: Requests,
    append_next: u64,
}

impl From<StateWithoutFleet> for State {
    /// The nodes become members of which nothing more is known, as when their registrations are applied again.
    fn from(old: StateWithoutFleet) -> Self {
        Self {
            applied: old.applied,
            cluster: old.cluster,
            time: old.time,
            topic_next: old.topic_next,
            topics: old.topics,
            fleet: Fleet::of_nodes(&old.nodes),
            nodes: old.nodes,
            objects: old.objects,
            grants: old.grants,
            requests: old.requests,
            append_next: old.append_next,
            ..Self::default()
        }
    }
}
