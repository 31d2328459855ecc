//! Fetch: waits until there is enough, then reads what fits, from any node.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use streamhouse_broker::metadata::{Extent, State, placement};
use streamhouse_broker::{BytePermit, FetchError, FetchRequest, Subscription};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{NodeId, Offset, PartitionId};
use tokio::sync::oneshot;

use super::{AT_ONCE, Found, leader_id, nodes, partition, wire_offset};
use crate::codec::{
    FetchAnswer, FetchAnswerPartition, FetchAnswerTopic, FetchPartition, FetchQuery, FetchTopic,
    NodeEndpoint, TopicRef,
};
use crate::connection::{Answer, Reply};
use crate::order::Turn;
use crate::{Code, Kafka};

/// Most bytes of batches in one answer, whatever the client would take; a first batch larger than this comes alone.
pub(crate) const FETCH_BYTES_MAX: u64 = 16 << 20;
/// How long to wait for room that slow clients hold, before little is sent instead of much.
const CROWDED: Duration = Duration::from_secs(1);
/// How little that is.
const SPARE_EACH: u64 = 256 << 10;
/// Longest a fetch waits.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A partition to read from.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    id: PartitionId,
    offset: Offset,
    max_bytes: u32,
}

/// What becomes of a partition that was asked for.
#[derive(Debug, Clone, Copy)]
enum Planned {
    /// It is read.
    Read(Wanted),
    /// A node in the client's rack has the same: it had better be asked.
    Elsewhere { id: PartitionId, node: i32 },
    /// It is not.
    Refused { code: Code, id: Option<PartitionId> },
}

impl Planned {
    fn id(&self) -> Option<PartitionId> {
        match self {
            Self::Read(wanted) => Some(wanted.id),
            Self::Elsewhere { id, .. } => Some(*id),
            Self::Refused { id, .. } => *id,
        }
    }
}

/// What metadata say of a place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// About so many bytes are there.
    Readable { bytes: u64, high_watermark: Offset, log_start: Offset },
    /// It lies outside of the log, or there is no such partition, as far as is known here.
    Outside,
}

impl FetchQuery {
    /// Most bytes of batches that the answer may have.
    pub(crate) fn answer_bytes_max(&self) -> u64 {
        u64::try_from(self.max_bytes).unwrap_or(0)
    }
}

impl Kafka {
    /// Tells its turn when it has read what was there, or waits for what is not. Reads once all answers before this one
    /// were sent, which `is_head` tells: what is read takes room that all connections share, and must not wait in a queue
    /// behind what waits for room.
    pub(crate) async fn fetch(
        &self,
        version: i16,
        query: FetchQuery,
        (turn, is_head): (&mut Turn, oneshot::Receiver<()>),
    ) -> Answer {
        // There are no sessions: who asks for a new one is told that it has number 0, which is none.
        if !matches!(query.session_epoch, -1 | 0) {
            let code = Code::FETCH_SESSION_ID_NOT_FOUND;
            let answer = FetchAnswer { code, topics: Vec::new(), nodes: Vec::new() };
            return Answer::of(answer.encode(version), code);
        }
        let plan = self.plan(&query.topics, &query.rack).await;
        let wanted: Vec<Wanted> = plan
            .iter()
            .filter_map(|planned| match planned {
                Planned::Read(wanted) => Some(*wanted),
                _ => None,
            })
            .collect();
        if wanted.len() == plan.len() {
            let wait = Duration::from_millis(u64::try_from(query.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
            let least = u64::try_from(query.min_bytes).unwrap_or(0).min(FETCH_BYTES_MAX);
            self.wait_for(&wanted, least, self.clock().now() + wait, turn).await;
        }
        // Nobody tells it when the connection has ended; then nobody hears the answer either.
        let _ended = is_head.await;
        let room = query.answer_bytes_max().min(FETCH_BYTES_MAX);
        let standings = self.broker().look(|state| {
            wanted.iter().map(|wanted| standing(state, wanted, whole, FETCH_BYTES_MAX)).collect::<Vec<_>>()
        });
        let (permit, shares) = self.room(&wanted, &standings, room).await;
        let reads: Vec<_> = wanted.into_iter().zip(standings).zip(shares).collect();
        let mut read = self.read_all(version, reads).await.into_iter();
        turn.read();
        let (lists_aborted, adrift) = (query.isolation == 1, self.is_adrift());
        let (mut first, mut nodes) = (Code::NONE, Vec::new());
        let mut plan = plan.into_iter();
        let mut topics = Vec::with_capacity(query.topics.len());
        for FetchTopic { topic, partitions: asked } in query.topics {
            let mut partitions = Vec::with_capacity(asked.len());
            for asked in asked {
                let lost = Code::from(ErrorCode::Internal);
                let planned = plan.next().unwrap_or(Planned::Refused { code: lost, id: None });
                let id = planned.id();
                let found = match planned {
                    // What is here is given; who waits for more had better ask another node.
                    Planned::Read(_) => read.next().unwrap_or(Err(lost)).and_then(|found| {
                        if adrift && found.records.is_empty() { Err(Code::NOT_LEADER) } else { Ok(found) }
                    }),
                    Planned::Elsewhere { id, node } => self.elsewhere(id, node),
                    Planned::Refused { code, .. } => Err(code),
                };
                let mut answer = found.unwrap_or_else(FetchAnswerPartition::refused);
                (answer.index, answer.lists_aborted) = (asked.index, lists_aborted);
                if first == Code::NONE {
                    first = answer.code;
                }
                if matches!(answer.code, Code::NOT_LEADER | Code::FENCED_LEADER_EPOCH)
                    && let Some((hint, node)) = self.hint(id)
                {
                    answer.leader = Some(hint);
                    if !nodes.contains(&node) {
                        nodes.push(node);
                    }
                }
                partitions.push(answer);
            }
            topics.push(FetchAnswerTopic { topic, partitions });
        }
        let body = FetchAnswer { code: Code::NONE, topics, nodes }.encode(version);
        Answer { reply: Reply::Body(body), code: first, permit }
    }

    /// Waits for room for what there is, up to `room` bytes; says how much of it each partition gets. While others hold all
    /// there is, it is little, and when many do, nothing.
    async fn room(
        &self,
        wanted: &[Wanted],
        standings: &[Standing],
        room: u64,
    ) -> (Option<BytePermit>, Vec<u32>) {
        let total = |shares: &[u32]| shares.iter().map(|share| u64::from(*share)).sum::<u64>();
        let shares = share(wanted, standings, room);
        tokio::select! {
            biased;
            permit = self.0.answers.acquire(total(&shares)) => return (Some(permit), shares),
            () = self.clock().sleep(CROWDED) => {}
        }
        let shares = share(wanted, standings, room.min(SPARE_EACH));
        match self.0.spare.try_acquire(total(&shares)) {
            Some(permit) => (Some(permit), shares),
            None => (None, vec![0; wanted.len()]),
        }
    }

    /// Reads each partition's share. They come to no more than the shares together, but for a first batch that is larger:
    /// where a batch has no room left, its partition and those behind it give nothing.
    async fn read_all(
        &self,
        version: i16,
        reads: Vec<((Wanted, Standing), u32)>,
    ) -> Vec<Result<FetchAnswerPartition, Code>> {
        let mut room: u64 = reads.iter().map(|(_, share)| u64::from(*share)).sum();
        let (mut done, mut any) = (Vec::with_capacity(reads.len()), false);
        // Collected first: a stream over the closure itself would not be `Send`.
        let tasks: Vec<_> = reads.iter().map(|(place, share)| self.read(version, *place, *share)).collect();
        let mut tasks = futures::stream::iter(tasks).buffered(AT_ONCE);
        while !(any && room == 0)
            && let Some(mut read) = tasks.next().await
        {
            if let Ok(found) = &mut read {
                let bytes = found.records.iter().map(|piece| piece.len() as u64).sum::<u64>();
                if any && bytes > room {
                    found.records.clear();
                    room = 0;
                } else {
                    room = room.saturating_sub(bytes);
                    any |= bytes > 0;
                }
            }
            done.push(read);
        }
        drop(tasks);
        let rest = reads[done.len()..].iter().map(|(place, _)| self.read(version, *place, 0));
        let rest: Vec<_> = rest.collect();
        done.extend(futures::stream::iter(rest).buffered(AT_ONCE).collect::<Vec<_>>().await);
        done
    }

    /// What is to be done about each partition, in the order of the request, for a client in `rack`.
    async fn plan(&self, topics: &[FetchTopic], rack: &str) -> Vec<Planned> {
        let mut plan = Vec::new();
        let mut known: BTreeMap<String, Result<Found, Code>> = BTreeMap::new();
        for topic in topics {
            // A client that lists every partition as a topic of its own costs one lookup all the same.
            let key = match &topic.topic {
                TopicRef::Name(name) => name.clone(),
                TopicRef::Id(uuid) => format!("{uuid:?}"),
            };
            if !known.contains_key(&key) {
                let found = self.find(&topic.topic).await;
                known.insert(key.clone(), found);
            }
            let found = &known[&key];
            for asked in &topic.partitions {
                let planned = match found {
                    Err(code) => Planned::Refused { code: *code, id: None },
                    Ok(found) => self.plan_one(found, asked, rack).await,
                };
                plan.push(planned);
            }
        }
        plan
    }

    async fn plan_one(&self, found: &Found, asked: &FetchPartition, rack: &str) -> Planned {
        let Some(id) = partition(found.id, asked.index) else {
            return Planned::Refused { code: ErrorCode::PartitionNotFound.into(), id: None };
        };
        let refused = |code| Planned::Refused { code, id: Some(id) };
        if self.is_draining() {
            return refused(Code::NOT_LEADER);
        }
        if let Err(code) = self.check_epoch(id, asked.leader_epoch).await {
            return refused(code);
        }
        let Ok(offset) = u64::try_from(asked.offset) else {
            return refused(ErrorCode::OffsetOutOfRange.into());
        };
        if let Some(node) = self.nearer(id, rack) {
            return Planned::Elsewhere { id, node };
        }
        let max_bytes = u32::try_from(asked.max_bytes).unwrap_or(0);
        Planned::Read(Wanted { id, offset: Offset::new(offset), max_bytes })
    }

    /// The node in `rack` that a client there had better read a partition from: the same for all of its clients, so
    /// that each rack caches a partition once. Only the leader says so, and only of racks other than its own; any other
    /// node is asked because it was named.
    fn nearer(&self, id: PartitionId, rack: &str) -> Option<i32> {
        let here = i32::try_from(self.0.options.node.get()).ok()?;
        if rack.is_empty() || self.is_single_endpoint() {
            return None;
        }
        self.broker().look(|state| {
            state.partition(id).filter(|partition| leader_id(partition) == Some(here))?;
            let there = |node: &NodeEndpoint| node.rack.as_deref() == Some(rack);
            let near: Vec<i32> = nodes(state).into_iter().filter(there).map(|node| node.id).collect();
            if near.contains(&here) {
                return None;
            }
            let near = near.into_iter().filter_map(|node| u64::try_from(node).ok()).map(NodeId::new);
            let best = placement::best_fit([id.topic.get(), id.index.get().into()], near)?;
            i32::try_from(best.get()).ok()
        })
    }

    /// The answer for a partition that had better be read from another node.
    fn elsewhere(&self, id: PartitionId, node: i32) -> Result<FetchAnswerPartition, Code> {
        let ends = self.broker().look(|state| {
            state.partition(id).map(|partition| (partition.high_watermark(), partition.log_start()))
        });
        let (high_watermark, log_start) = ends.ok_or(Code::from(ErrorCode::PartitionNotFound))?;
        let answer = FetchAnswerPartition::of(high_watermark, log_start, Vec::new());
        Ok(FetchAnswerPartition { preferred: Some(node), ..answer })
    }

    /// Waits until there are `least` bytes in all, a place turns out to lie outside, or `deadline` has come.
    async fn wait_for(&self, wanted: &[Wanted], least: u64, deadline: Duration, turn: &mut Turn) {
        let enough = || {
            self.broker().look(|state| {
                let mut bytes = 0;
                wanted.iter().any(|wanted| match standing(state, wanted, behind, least - bytes.min(least)) {
                    Standing::Outside => true,
                    Standing::Readable { bytes: more, .. } => {
                        bytes += more;
                        bytes >= least
                    }
                })
            })
        };
        if wanted.is_empty() || least == 0 || enough() {
            return;
        }
        // Kafka's own brokers read nothing more from a connection while a fetch waits. Here a change behind it is made
        // meanwhile, and the fetch finds what is left.
        turn.read();
        // Look once more after subscribing: nothing is missed in between.
        let mut changes = FuturesUnordered::new();
        for wanted in wanted {
            let Some(subscription) = self.broker().subscribe(wanted.id) else { return };
            changes.push(changed(subscription));
        }
        while !enough() {
            tokio::select! {
                Some(subscription) = changes.next() => changes.push(changed(subscription)),
                () = self.clock().sleep_until(deadline) => return,
                () = self.0.options.drain.cancelled() => return,
            }
        }
    }

    async fn read(
        &self,
        version: i16,
        (wanted, standing): (Wanted, Standing),
        share: u32,
    ) -> Result<FetchAnswerPartition, Code> {
        if let Standing::Readable { high_watermark, log_start, .. } = standing
            && share == 0
        {
            return Ok(FetchAnswerPartition::of(high_watermark, log_start, Vec::new()));
        }
        let request = FetchRequest {
            partition: wanted.id,
            offset: wanted.offset,
            max_bytes: share.max(1),
            min_bytes: 0,
            max_wait: Duration::ZERO,
        };
        match self.broker().fetch(request).await {
            Ok(fetched) => {
                Ok(FetchAnswerPartition::of(fetched.high_watermark, fetched.log_start, fetched.bytes))
            }
            // Perhaps it is there, at nodes that are further on: whoever reads far from the leader waits, and does not
            // take its offset for lost.
            Err(FetchError::NotCurrent(_)) if version >= 11 => Err(Code::OFFSET_NOT_AVAILABLE),
            Err(error) => {
                if matches!(error, FetchError::Store { .. } | FetchError::Corrupt { .. }) {
                    tracing::warn!(partition = %wanted.id, %error, "a partition could not be read");
                }
                Err(error.code().into())
            }
        }
    }
}

async fn changed(mut subscription: Subscription) -> Subscription {
    subscription.changed().await;
    subscription
}

/// What there is from a place on, each extent measured by `size`, counted up to about `enough` bytes.
fn standing(state: &State, wanted: &Wanted, size: fn(&Extent, Offset) -> u64, enough: u64) -> Standing {
    let Some(partition) = state.partition(wanted.id) else { return Standing::Outside };
    let (log_start, high_watermark) = (partition.log_start(), partition.high_watermark());
    if !(log_start..=high_watermark).contains(&wanted.offset) {
        return Standing::Outside;
    }
    let mut bytes = 0;
    if wanted.offset < high_watermark {
        for extent in partition.extents_from(wanted.offset) {
            bytes += size(&extent, wanted.offset);
            if bytes >= enough {
                break;
            }
        }
    }
    Standing::Readable { bytes, high_watermark, log_start }
}

/// All bytes of an extent: how many may be read of it, wherever a reader begins, so that none is held back that has room.
fn whole(extent: &Extent, _offset: Offset) -> u64 {
    u64::from(extent.length)
}

/// About how many bytes of an extent lie from `offset` on, its batches taken for equally large: what a reader waits for.
fn behind(extent: &Extent, offset: Offset) -> u64 {
    let (left, all) = (extent.end.since(offset.max(extent.base)), extent.end.since(extent.base));
    let bytes = u128::from(extent.length) * u128::from(left) / u128::from(all.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// How many bytes of each partition are read: as many as there are and the client takes, in its order, until `room` is
/// used up. The first that has anything gets something, or a client with too little room would stand still.
fn share(wanted: &[Wanted], standings: &[Standing], room: u64) -> Vec<u32> {
    let mut left = room;
    let mut any = false;
    let each = wanted.iter().zip(standings).map(|(wanted, standing)| {
        let Standing::Readable { bytes, .. } = standing else { return 0 };
        let mut share = u64::from(wanted.max_bytes).min(*bytes).min(left);
        if share == 0 && *bytes > 0 && !any {
            share = 1;
        }
        any |= share > 0;
        left = left.saturating_sub(share);
        u32::try_from(share).unwrap_or(u32::MAX)
    });
    each.collect()
}

impl FetchAnswerPartition {
    fn of(high_watermark: Offset, log_start: Offset, records: Vec<bytes::Bytes>) -> Self {
        let (high_watermark, log_start) = (wire_offset(high_watermark), wire_offset(log_start));
        Self { high_watermark, log_start, records, ..Self::default() }
    }

    fn refused(code: Code) -> Self {
        Self { code, high_watermark: -1, log_start: -1, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_types::{PartitionIndex, TopicId};

    use super::*;

    #[track_caller]
    fn check(limits_and_bytes: &[(u32, u64)], room: u64, expected: &[u32]) {
        let id = PartitionId::new(TopicId::new(1), PartitionIndex::new(0));
        let wanted: Vec<Wanted> = limits_and_bytes
            .iter()
            .map(|(max_bytes, _)| Wanted { id, offset: Offset::ZERO, max_bytes: *max_bytes })
            .collect();
        let standings: Vec<Standing> = limits_and_bytes
            .iter()
            .map(|(_, bytes)| Standing::Readable {
                bytes: *bytes,
                high_watermark: Offset::ZERO,
                log_start: Offset::ZERO,
            })
            .collect();
        assert_eq!(share(&wanted, &standings, room), expected);
    }

    #[test]
    fn room_is_shared_in_order_and_the_first_with_records_always_gets_some() {
        check(&[(10, 5), (10, 50), (10, 50)], 100, &[5, 10, 10]);
        check(&[(10, 50), (10, 50)], 15, &[10, 5]);
        check(&[(10, 50), (10, 50)], 10, &[10, 0]);
        check(&[(10, 0), (0, 50), (10, 50)], 0, &[0, 1, 0]);
        check(&[], 10, &[]);
    }
}
