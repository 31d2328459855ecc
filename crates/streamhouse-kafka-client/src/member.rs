//! A consumer that shares a topic with the others of its group.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use kacrab_protocol::generated as g;
use streamhouse_check::{
    Commit, CommitOutcome, Committed, Digest, Event, Micros, NodeId, Offset, Poll, Restart,
};
use streamhouse_types::batch::{BatchError, BatchLimits, RecordBatch};

use crate::cluster::{Cluster, Line, Place, text};
use crate::group::{Membership, Refused, done};
use crate::{Witness, code};

/// How often it says that it is there.
const BEAT: Duration = Duration::from_secs(2);
/// Longest a fetch waits for records.
const WAIT_MS: i32 = 300;
const FETCH: i16 = 12;

/// What a member does besides reading, once in so many turns.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Commits what it has read.
    pub commit: u64,
    /// Says nothing for longer than its session lasts, and goes on as if nothing had been.
    pub stall: u64,
    /// Leaves, and comes back.
    pub leave: u64,
}

/// A member of a group that reads until it is to stop.
pub struct Member<W> {
    place: Place,
    witness: W,
    name: String,
    rack: String,
    habits: Habits,
    membership: Membership,
    lines: BTreeMap<i32, Line>,
    /// Nodes that had better be asked than the leader, by partition.
    preferred: BTreeMap<i32, i32>,
}

/// A question to a node.
struct Question {
    node: i32,
    positions: BTreeMap<i32, i64>,
    begin: Micros,
}

impl<W: Witness> Member<W> {
    /// A member that the history calls `name`, in `rack`.
    pub fn new(place: Place, witness: W, (name, group, rack): (&str, &str, &str), habits: Habits) -> Self {
        let session_timeout = Duration::from_millis(place.between(6_000, 10_000));
        let membership = Membership {
            cluster: Cluster::new(place.clone()),
            group: group.to_owned(),
            session_timeout,
            id: String::new(),
            generation: -1,
            coordinator: None,
            line: None,
        };
        let (name, rack) = (name.to_owned(), rack.to_owned());
        Self {
            place,
            witness,
            name,
            rack,
            habits,
            membership,
            lines: BTreeMap::new(),
            preferred: BTreeMap::new(),
        }
    }

    /// Reads until it is to stop; leaves the group then.
    pub async fn run(mut self) {
        while !self.place.stop.is_cancelled() {
            if let Err(refused) = self.live().await {
                tracing::debug!(member = self.name, id = self.membership.id, %refused, "kafka member is no member now");
                self.recover(&refused);
                self.place.pause(500).await;
            }
        }
        if !self.membership.id.is_empty() {
            self.membership.leave().await;
        }
    }

    /// What every client does when it is told this.
    fn recover(&mut self, refused: &Refused) {
        match refused {
            Refused::Code(code::ILLEGAL_GENERATION | code::REBALANCE_IN_PROGRESS) => {}
            Refused::Code(code::UNKNOWN_MEMBER) => self.membership.id.clear(),
            Refused::Code(code) => {
                const ELSEWHERE: [i16; 5] = [
                    code::COORDINATOR_LOADING,
                    code::COORDINATOR_NOT_AVAILABLE,
                    code::NOT_COORDINATOR,
                    code::REQUEST_TIMED_OUT,
                    code::UNKNOWN,
                ];
                if !ELSEWHERE.contains(code) {
                    self.witness.wrong(format!("{} was told error {code}", self.name));
                }
                self.membership.line = None;
            }
            Refused::Lost(_) => self.membership.line = None,
        }
    }

    /// One generation: from joining until it ends.
    async fn live(&mut self) -> Result<(), Refused> {
        if self.membership.line.is_none() && self.membership.find().await? && !self.membership.id.is_empty() {
            self.witness.met("kafka: a group went over to another coordinator");
        }
        let before = self.membership.generation;
        let joined = self.membership.join().await?;
        self.membership.cluster.refresh().await?;
        let partitions = self.membership.cluster.partitions();
        let shares = joined.members.map(|members| range(members, &partitions)).unwrap_or_default();
        let assigned = self.membership.sync(shares).await?;
        let mut positions = self.learn(&assigned).await?;
        if (1..self.membership.generation).contains(&before) && self.place.one_in(3) {
            // Something that was begun in the generation before and comes late.
            self.commit(before, &positions).await?;
        }
        self.witness
            .record(Event::Restart(Restart { consumer: (&*self.name).into(), at: self.witness.now() }));
        self.read_on(&mut positions).await
    }

    /// Asks where to go on.
    async fn learn(&mut self, assigned: &[i32]) -> Result<BTreeMap<i32, i64>, Refused> {
        if assigned.is_empty() {
            return Ok(BTreeMap::new());
        }
        let begin = self.witness.now();
        let committed = self.membership.committed(assigned).await?;
        let end = self.witness.now();
        let mut positions = BTreeMap::new();
        for (partition, offset) in committed {
            self.witness.record(Event::Committed(Committed {
                group: (&*self.membership.group).into(),
                partition: self.place.partition_name(partition).into(),
                generation: u64::try_from(self.membership.generation).unwrap_or(0),
                begin,
                end,
                offset: offset.map(position),
            }));
            positions.insert(partition, offset.unwrap_or(0));
        }
        Ok(positions)
    }

    async fn read_on(&mut self, positions: &mut BTreeMap<i32, i64>) -> Result<(), Refused> {
        let mut next_beat = self.place.env.clock.now();
        loop {
            if self.place.stop.is_cancelled() {
                return self.commit(self.membership.generation, positions).await;
            }
            if self.place.env.clock.now() >= next_beat {
                next_beat = self.place.env.clock.now() + BEAT;
                let beat = self.membership.heartbeat().await;
                if matches!(beat, Err(Refused::Code(code::REBALANCE_IN_PROGRESS))) {
                    self.commit(self.membership.generation, positions).await?;
                }
                beat?;
            }
            self.fetch(positions).await;
            let stalls = self.place.one_in(self.habits.stall);
            if stalls {
                let pause =
                    self.membership.session_timeout + Duration::from_millis(self.place.between(0, 5_000));
                self.place.env.clock.sleep(pause).await;
            }
            if stalls || self.place.one_in(self.habits.commit) {
                self.commit(self.membership.generation, positions).await?;
            }
            if self.place.one_in(self.habits.leave) {
                self.membership.leave().await;
                self.place.pause(3_000).await;
                return Ok(());
            }
        }
    }

    /// Commits as of a generation, and writes down what came of it.
    async fn commit(&mut self, generation: i32, offsets: &BTreeMap<i32, i64>) -> Result<(), Refused> {
        if offsets.is_empty() {
            return Ok(());
        }
        let begin = self.witness.now();
        let told = self.membership.commit(generation, offsets).await;
        let end = self.witness.now();
        let mut failed = code::NONE;
        for (partition, offset) in offsets {
            let told = told.as_ref().ok().map(|codes| codes.get(partition).copied().unwrap_or(code::UNKNOWN));
            let outcome = match told {
                Some(code::NONE) => CommitOutcome::Done,
                None | Some(code::REQUEST_TIMED_OUT | code::UNKNOWN) => CommitOutcome::Maybe,
                Some(_) => CommitOutcome::No,
            };
            if let Some(code) = told.filter(|code| *code != code::NONE) {
                self.witness.met(&format!("kafka: commit {code}"));
                failed = code;
            }
            self.witness.record(Event::Commit(Commit {
                group: (&*self.membership.group).into(),
                partition: self.place.partition_name(*partition).into(),
                generation: u64::try_from(generation).unwrap_or(0),
                offset: position(*offset),
                begin,
                end,
                outcome,
            }));
        }
        if told.is_err() || matches!(failed, code::REQUEST_TIMED_OUT | code::UNKNOWN) {
            // It may come late, and after others of this generation: the member goes on as a new one.
            self.membership.leave().await;
        }
        if matches!(failed, code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER) {
            self.witness.met("kafka: a member was fenced");
            if generation < self.membership.generation {
                // Late news of an older generation says nothing of this one.
                return Ok(());
            }
        }
        told.and(done(failed))
    }

    /// Reads what there is, from whom Metadata and leaders name.
    async fn fetch(&mut self, positions: &mut BTreeMap<i32, i64>) {
        if positions.is_empty() {
            return self.place.pause(500).await;
        }
        let mut questions: BTreeMap<i32, BTreeMap<i32, i64>> = BTreeMap::new();
        for (partition, offset) in &*positions {
            let leader = self.membership.cluster.led(*partition).map_or(-1, |led| led.leader);
            let node = self.preferred.get(partition).copied().unwrap_or(leader);
            questions.entry(node).or_default().insert(*partition, *offset);
        }
        let mut is_stale = false;
        for (node, asked) in questions {
            let question = Question { node, positions: asked, begin: self.witness.now() };
            match self.ask(&question).await {
                Ok(answer) => is_stale |= !self.answered(&question, answer, positions),
                Err(error) => {
                    tracing::debug!(member = self.name, node, %error, "kafka member has no records");
                    self.lines.remove(&node);
                    self.preferred.retain(|_, preferred| *preferred != node);
                    is_stale = true;
                }
            }
        }
        if is_stale {
            self.place.pause(200).await;
            if let Err(error) = self.membership.cluster.refresh().await {
                tracing::debug!(member = self.name, %error, "kafka member has no metadata");
            }
        }
    }

    async fn ask(&mut self, question: &Question) -> io::Result<g::FetchResponseData> {
        let cluster = &self.membership.cluster;
        let partitions =
            question.positions.iter().map(|(partition, offset)| g::fetch_request::FetchPartition {
                partition: *partition,
                current_leader_epoch: cluster.led(*partition).map_or(-1, |led| led.epoch),
                fetch_offset: *offset,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: i32::try_from(self.place.between(1, 1 << 18)).expect("small"),
                ..Default::default()
            });
        let topic = g::fetch_request::FetchTopic {
            topic: text(&self.place.topic),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let request = g::FetchRequestData {
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            rack_id: text(&self.rack),
            ..Default::default()
        };
        let mut line = match self.lines.remove(&question.node) {
            Some(line) => line,
            None => cluster.node(question.node).await?,
        };
        let answer = cluster.ask(&mut line, &request, FETCH).await?;
        self.lines.insert(question.node, line);
        Ok(answer)
    }

    /// Takes an answer; whether it says that Metadata is as the client knows it.
    fn answered(
        &mut self,
        question: &Question,
        answer: g::FetchResponseData,
        positions: &mut BTreeMap<i32, i64>,
    ) -> bool {
        let mut is_current = answer.error_code == code::NONE;
        for told in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let partition = told.partition_index;
            let Some(position) = positions.get_mut(&partition) else {
                self.witness.wrong(format!("{} was told of partition {partition}, unasked", self.name));
                continue;
            };
            match told.error_code {
                code::NONE => {
                    if told.preferred_read_replica >= 0 {
                        self.preferred.insert(partition, told.preferred_read_replica);
                        continue;
                    }
                    match self.note(question, &told, *position) {
                        Ok(next) => *position = next,
                        Err(error) => {
                            self.witness.wrong(format!("{} was given nonsense: {error}", self.name))
                        }
                    }
                }
                code => {
                    self.witness.met(&format!("kafka: fetch {code}"));
                    self.preferred.remove(&partition);
                    is_current = false;
                    if code == code::OFFSET_OUT_OF_RANGE {
                        let text =
                            format!("{} was told that {partition} has no offset {position}", self.name);
                        self.witness.wrong(text);
                    }
                    if matches!(code, code::NOT_LEADER | code::FENCED_LEADER_EPOCH) {
                        self.witness.met("kafka: a client was sent on");
                    }
                }
            }
        }
        is_current
    }

    /// Writes down what was read of a partition; returns where to go on.
    fn note(
        &self,
        question: &Question,
        told: &g::fetch_response::PartitionData,
        from: i64,
    ) -> Result<i64, BatchError> {
        let mut bytes = told.records.clone().unwrap_or_default();
        let (mut records, mut next) = (Vec::new(), from);
        while let Some(batch) = RecordBatch::split_first(&mut bytes, &BatchLimits::MAX)? {
            let base = batch.header().base_offset;
            for record in batch.records()? {
                let record = record?;
                let offset = base + i64::from(record.offset_delta);
                if offset >= from {
                    records.push((position(offset), Digest::of(record.value.as_deref().unwrap_or_default())));
                    next = offset + 1;
                }
            }
        }
        let leader = self.membership.cluster.led(told.partition_index).map(|led| led.leader);
        if !records.is_empty() && leader != Some(question.node) {
            self.witness.met("kafka: a client read from a node that does not lead");
        }
        let name = self.place.partition_name(told.partition_index);
        self.witness.record(Event::Poll(Poll {
            node: u64::try_from(question.node).ok().map(NodeId::new),
            from: Some(position(from)),
            records,
            high_watermark: Some(position(told.high_watermark)),
            log_start: Some(position(told.log_start_offset)),
            ..Poll::empty(&self.name, &name, question.begin, self.witness.now())
        }));
        Ok(next)
    }
}

/// An offset as the history has it; what is below zero is caught by its checks.
fn position(offset: i64) -> Offset {
    Offset::new(u64::try_from(offset).unwrap_or(0))
}

/// Shares partitions out in ranges: members in order, those in front get one more.
fn range(mut members: Vec<String>, partitions: &[i32]) -> BTreeMap<String, Vec<i32>> {
    members.sort();
    let (share, more) = (partitions.len() / members.len(), partitions.len() % members.len());
    let mut left = partitions;
    let mut shares = BTreeMap::new();
    for (place, member) in members.into_iter().enumerate() {
        let (mine, others) = left.split_at(share + usize::from(place < more));
        shares.insert(member, mine.to_vec());
        left = others;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_reader_and_shares_differ_by_one() {
        let members = || ["c", "a", "b"].map(str::to_owned).to_vec();
        let shares = range(members(), &[0, 1, 2, 3]);
        assert_eq!(shares.into_values().collect::<Vec<_>>(), [vec![0, 1], vec![2], vec![3]]);
        let shares = range(members(), &[0]);
        assert_eq!(shares.into_values().collect::<Vec<_>>(), [vec![0], vec![], vec![]]);
    }
}
