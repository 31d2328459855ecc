//! The group against the reference, over whatever may happen.

use super::reference::{Reference, Stage};
use super::*;

/// What happens; numbers choose among what there is then.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Join { member: Name, protocols: usize, newcomers: Newcomers },
    Sync { member: Name, generation: Age },
    Heartbeat { member: Name, generation: Age },
    Commit { member: Name, generation: Age },
    Leave { members: Vec<Name> },
    HangUp { ticket: usize },
    Seconds(u64),
}

#[derive(Debug, Clone)]
pub(super) enum Name {
    /// Nobody yet.
    New,
    /// One that is or was a member, or was given an id.
    Known(usize),
    /// A static member, with or without its id.
    Fixed { instance: usize, id: Option<usize> },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Age {
    Current,
    Last,
    None,
}

struct Both {
    world: World,
    reference: Reference,
    known: Vec<String>,
}

impl Both {
    fn new() -> Self {
        Self { world: World::new(), reference: Reference::new(), known: vec!["stranger".to_owned()] }
    }

    fn now(&self) -> u64 {
        self.world.now.as_secs()
    }

    /// Later ids more often than earlier ones.
    fn pick(&self, number: usize) -> String {
        let last = self.known.len() - 1;
        self.known[last - number.min(last)].clone()
    }

    fn name(&self, name: &Name) -> (String, Option<String>) {
        match name {
            Name::New => (String::new(), None),
            Name::Known(number) => (self.pick(*number), None),
            Name::Fixed { instance, id } => {
                let id = id.map(|number| self.pick(number)).unwrap_or_default();
                (id, Some(["one", "two"][*instance].to_owned()))
            }
        }
    }

    fn who(&self, name: &Name, age: Age) -> MemberRef {
        let (id, instance) = self.name(name);
        let generation = match age {
            Age::Current => Some(self.reference.generation),
            Age::Last => Some(self.reference.generation.saturating_sub(1)),
            Age::None => None,
        };
        MemberRef { id, instance, generation }
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now();
        match event {
            Event::Join { member, protocols, newcomers } => self.join(member, *protocols, *newcomers),
            Event::Sync { member, generation } => {
                let who = self.who(member, *generation);
                let all = self.reference.ids();
                let assignments: Vec<(String, Bytes)> =
                    all.into_iter().map(|id| (id.clone(), format!("for {id}").into())).collect();
                let texts: Vec<(String, String)> =
                    assignments.iter().map(|(id, _)| (id.clone(), format!("for {id}"))).collect();
                let texts: Vec<(&str, &str)> =
                    texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
                let ticket = self.world.sync(who.clone(), &texts);
                self.reference.sync(now, ticket, &who, &assignments);
            }
            Event::Heartbeat { member, generation } => {
                let (ticket, member) = (self.world.ticket(), self.who(member, *generation));
                self.world.give(Input::Heartbeat { ticket, member: member.clone() });
                self.reference.heartbeat(now, ticket, &member);
            }
            Event::Commit { member, generation } => {
                let (ticket, member) = (self.world.ticket(), self.who(member, *generation));
                self.world.give(Input::Commit { ticket, member: member.clone() });
                self.reference.commit(now, ticket, &member);
            }
            Event::Leave { members } => {
                let leaver = |name: &Name| {
                    let (id, instance) = self.name(name);
                    Leaver { id, instance }
                };
                let members: Vec<Leaver> = members.iter().map(leaver).collect();
                let ticket = self.world.ticket();
                self.world.give(Input::Leave { ticket, members: members.clone() });
                self.reference.leave(now, ticket, &members);
            }
            Event::HangUp { ticket } => {
                let tickets = usize::try_from(self.world.tickets).expect("few");
                let ticket = Ticket(self.world.tickets.saturating_sub((ticket % (tickets + 1)) as u64));
                self.world.give(Input::Gone(vec![ticket]));
                self.reference.gone(now, ticket);
            }
            Event::Seconds(seconds) => {
                for _ in 0..*seconds {
                    self.world.pass(s(1));
                    self.reference.second(self.now());
                }
            }
        }
    }

    fn join(&mut self, name: &Name, protocols: usize, newcomers: Newcomers) {
        let (id, instance) = self.name(name);
        // Topics "t" and "u" in both orders, then notes; topic "t" alone; something else.
        let [both, turned, alone, else_] = [
            "\0\0\0\0\0\x02\0\x01t\0\x01u",
            "\0\0\0\0\0\x02\0\x01u\0\x01tnotes",
            "\0\0\0\0\0\x01\0\x01t",
            "x",
        ];
        let lists: [&[(&str, &str)]; 8] = [
            &[("a", both), ("b", else_)],
            &[("a", turned), ("b", else_)],
            &[("b", alone), ("a", both)],
            &[("b", both)],
            &[("c", else_)],
            &[("a", both)],
            &[("b", both), ("c", both)],
            &[("c", turned), ("b", turned)],
        ];
        let list = lists[protocols].iter();
        let protocols = list.map(|(name, bytes)| ((*name).to_owned(), Bytes::from_static(bytes.as_bytes())));
        let patience = [s(20), s(7)][usize::from(instance.is_some())];
        let request = JoinRequest {
            instance,
            protocols: protocols.collect(),
            newcomers,
            rebalance_timeout: patience,
            ..member(&id)
        };
        let now = self.now();
        let ticket = self.world.join(request.clone());
        let fresh = format!("m{}", self.world.ids);
        self.reference.join(now, ticket, &request, &fresh);
        self.known.push(fresh);
    }

    fn compare(&mut self) {
        let sorted = |mut answers: Vec<(Ticket, Answer)>| {
            answers.sort_by_key(|(ticket, _)| *ticket);
            answers
        };
        let (ours, theirs) = (std::mem::take(&mut self.world.answers), self.reference.take());
        assert_eq!(sorted(ours), sorted(theirs));
        let group = &self.world.group;
        assert_eq!(group.generation, self.reference.generation);
        let mut ids = self.reference.ids();
        ids.sort();
        assert_eq!(group.members.keys().cloned().collect::<Vec<_>>(), ids);
        let same = matches!(
            (group.phase, self.reference.stage),
            (Phase::Empty, Stage::Empty)
                | (Phase::Preparing { window: Window::First { .. }, .. }, Stage::First { .. })
                | (Phase::Preparing { window: Window::Members, .. }, Stage::Joining { .. })
                | (Phase::Completing, Stage::Assigning)
                | (Phase::Stable, Stage::Stable)
        );
        assert!(same, "{:?} is not {:?}", group.phase, self.reference.stage);
        // What is stored can be gone on with: nobody has heard of anything else.
        if let Some(stored) = self.world.stored.last() {
            assert!(stored.generation == group.generation, "what is stored is the newest generation");
            assert_eq!(stored.leader.is_some(), !stored.members.is_empty());
        }
    }
}

/// Has all of it happen to both, and compares them after each event.
///
/// # Panics
/// When they differ.
pub(super) fn judge(events: &[Event]) {
    let mut both = Both::new();
    for event in events {
        both.happen(event);
        both.compare();
    }
}

#[cfg(test)]
mod random {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        let fixed = (0..2_usize, proptest::option::of(0..20_usize));
        prop_oneof![
            2 => Just(Name::New),
            5 => (0..20_usize).prop_map(Name::Known),
            3 => fixed.prop_map(|(instance, id)| Name::Fixed { instance, id }),
        ]
    }

    fn age() -> impl Strategy<Value = Age> {
        prop_oneof![8 => Just(Age::Current), 1 => Just(Age::Last), 1 => Just(Age::None)]
    }

    fn event() -> impl Strategy<Value = Event> {
        let newcomers = prop_oneof![Just(Newcomers::AtOnce), Just(Newcomers::MustReturn)];
        prop_oneof![
            8 => (name(), 0..8_usize, newcomers).prop_map(|(member, protocols, newcomers)| {
                Event::Join { member, protocols, newcomers }
            }),
            6 => (name(), age()).prop_map(|(member, generation)| Event::Sync { member, generation }),
            6 => (name(), age()).prop_map(|(member, generation)| Event::Heartbeat { member, generation }),
            3 => (name(), age()).prop_map(|(member, generation)| Event::Commit { member, generation }),
            1 => proptest::collection::vec(name(), 0..3).prop_map(|members| Event::Leave { members }),
            1 => any::<usize>().prop_map(|ticket| Event::HangUp { ticket }),
            6 => (1..7_u64).prop_map(Event::Seconds),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn the_group_does_what_the_reference_says(events in proptest::collection::vec(event(), 1..60)) {
            judge(&events);
        }
    }
}
