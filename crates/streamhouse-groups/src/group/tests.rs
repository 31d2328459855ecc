//! The rules one by one, then all of them against a reference that is written another way.

#[cfg(test)]
mod classic;
#[cfg(test)]
mod fixed;
pub(crate) mod fuzz;
mod model;
mod reference;

use std::time::Duration;

use bytes::Bytes;
use streamhouse_broker::metadata::GroupRecord;

use super::*;
use crate::Newcomers;

/// Seconds.
fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn settings() -> GroupSettings {
    GroupSettings { members_max: 4, ..GroupSettings::default() }
}

/// A group with a clock, which is stored at once unless it is told otherwise.
struct World {
    group: Group,
    now: Duration,
    tickets: u64,
    ids: u64,
    answers: Vec<(Ticket, Answer)>,
    stored: Vec<GroupRecord>,
    /// Whether what is to be stored waits.
    slow: bool,
}

/// A member that joins: its session is 10 s, its rebalance 60 s, it knows "range".
fn member(id: &str) -> JoinRequest {
    JoinRequest {
        group: "g".parse().expect("a group id"),
        member: id.to_owned(),
        instance: None,
        client: "client".to_owned(),
        host: "host".to_owned(),
        session_timeout: s(10),
        rebalance_timeout: s(60),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"m"))],
        newcomers: Newcomers::AtOnce,
    }
}

fn fixed(instance: &str, id: &str) -> JoinRequest {
    JoinRequest { instance: Some(instance.to_owned()), ..member(id) }
}

fn who(id: &str, generation: u32) -> MemberRef {
    MemberRef { id: id.to_owned(), instance: None, generation: Some(generation) }
}

impl World {
    fn new() -> Self {
        Self::load(&GroupRecord::default())
    }

    fn load(record: &GroupRecord) -> Self {
        Self {
            group: Group::load(s(100), record, settings()),
            now: s(100),
            tickets: 0,
            ids: 0,
            answers: Vec::new(),
            stored: Vec::new(),
            slow: false,
        }
    }

    fn give(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.group.handle(self.now, input) {
                match effect {
                    Effect::Answer(ticket, answer) => self.answers.push((ticket, answer)),
                    Effect::Store(record) => {
                        self.stored.push(record);
                        if !self.slow {
                            inputs.push_back(Input::Stored);
                        }
                    }
                }
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Time passes; what is due happens when it is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.group.deadline().filter(|due| *due <= end) {
            assert!(due >= self.now, "a deadline lies ahead");
            self.now = due;
            self.give(Input::Time);
        }
        self.now = end;
    }

    fn join(&mut self, request: JoinRequest) -> Ticket {
        let ticket = self.ticket();
        self.ids += 1;
        let fresh = format!("m{}", self.ids);
        self.give(Input::Join { ticket, request, fresh });
        ticket
    }

    fn sync(&mut self, who: MemberRef, assignments: &[(&str, &str)]) -> Ticket {
        let ticket = self.ticket();
        let assignments = assignments.iter().map(|(id, bytes)| ((*id).to_owned(), bytes.to_string().into()));
        let request = SyncRequest {
            group: "g".parse().expect("a group id"),
            member: who,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.give(Input::Sync { ticket, request });
        ticket
    }

    fn heartbeat(&mut self, who: MemberRef) -> Result<(), GroupError> {
        let ticket = self.ticket();
        self.give(Input::Heartbeat { ticket, member: who });
        match self.answer(ticket) {
            Some(Answer::Heartbeat(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, who: MemberRef) -> Result<Committer, GroupError> {
        let ticket = self.ticket();
        self.give(Input::Commit { ticket, member: who });
        match self.answer(ticket) {
            Some(Answer::Commit(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let ticket = self.ticket();
        let leaver = |(id, instance): &(&str, Option<&str>)| Leaver {
            id: (*id).to_owned(),
            instance: instance.map(str::to_owned),
        };
        self.give(Input::Leave { ticket, members: members.iter().map(leaver).collect() });
        match self.answer(ticket) {
            Some(Answer::Leave(answers)) => answers,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a request, if there is one yet.
    fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        let place = self.answers.iter().position(|(answered, _)| *answered == ticket)?;
        Some(self.answers.remove(place).1)
    }

    #[track_caller]
    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answer(ticket) {
            Some(Answer::Join(Ok(joined))) => joined,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, ticket: Ticket) -> GroupError {
        match self.answer(ticket) {
            Some(Answer::Join(Err(error)) | Answer::Sync(Err(error))) => error,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn synced(&mut self, ticket: Ticket) -> String {
        match self.answer(ticket) {
            Some(Answer::Sync(Ok(synced))) => String::from_utf8(synced.assignment.to_vec()).expect("text"),
            other => panic!("{other:?}"),
        }
    }

    /// Members of a stable group at generation 1; the first leads.
    fn stable(requests: Vec<JoinRequest>) -> (Self, Vec<String>) {
        let mut world = Self::new();
        let tickets: Vec<Ticket> = requests.into_iter().map(|request| world.join(request)).collect();
        world.pass(s(3));
        let joined: Vec<Joined> = tickets.into_iter().map(|ticket| world.joined(ticket)).collect();
        let ids: Vec<String> = joined.iter().map(|joined| joined.member.clone()).collect();
        let assignments: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        let leader = world.sync(who(&ids[0], 1), &assignments);
        assert_eq!(world.synced(leader), ids[0]);
        for id in &ids[1..] {
            let ticket = world.sync(who(id, 1), &[]);
            assert_eq!(world.synced(ticket), *id);
        }
        (world, ids)
    }
}
