//! Who reads which partitions. Pure.

use std::collections::BTreeMap;

use streamhouse_client::PartitionIndex;

use crate::protocol::Partitions;

/// A way to assign, by the name that all clients know it under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assignor {
    /// Of each topic, each member that reads it gets a run of partitions; the first ones get one more where it does not
    /// come out even. Topics with equally many partitions are cut alike.
    Range,
    /// All partitions of all topics in a row are dealt out one by one.
    RoundRobin,
}

/// A member with what it wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) member: String,
    pub(crate) topics: Vec<String>,
}

impl Subscriber {
    fn reads(&self, topic: &str) -> bool {
        self.topics.iter().any(|own| own == topic)
    }
}

impl Assignor {
    /// All of them, most wanted first.
    pub(crate) const ALL: [Self; 2] = [Self::Range, Self::RoundRobin];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Gives each partition of each topic that somebody reads to exactly one of those who read it. `counts` says how many
    /// partitions the topics have; one that is not there has none. Every member is in the answer.
    pub(crate) fn assign(
        self,
        mut subscribers: Vec<Subscriber>,
        counts: &BTreeMap<String, u32>,
    ) -> BTreeMap<String, Partitions> {
        subscribers.sort_by(|a, b| a.member.cmp(&b.member));
        let mut plan: BTreeMap<String, Partitions> =
            subscribers.iter().map(|subscriber| (subscriber.member.clone(), Partitions::new())).collect();
        let mut give = |subscriber: &Subscriber, topic: &str, partition: u32| {
            let own = plan.get_mut(&subscriber.member).expect("every member is in the plan");
            own.entry(topic.to_owned()).or_default().push(PartitionIndex::new(partition));
        };
        match self {
            Self::Range => {
                for (topic, partitions) in counts {
                    cut(&subscribers, topic, *partitions, &mut give);
                }
            }
            Self::RoundRobin => deal(&subscribers, counts, &mut give),
        }
        plan
    }
}

fn cut(
    subscribers: &[Subscriber],
    topic: &str,
    partitions: u32,
    give: &mut impl FnMut(&Subscriber, &str, u32),
) {
    let readers: Vec<&Subscriber> = subscribers.iter().filter(|subscriber| subscriber.reads(topic)).collect();
    let Ok(count) = u32::try_from(readers.len()) else { return };
    if count == 0 {
        return;
    }
    let (each, over) = (partitions / count, partitions % count);
    let mut next = 0;
    for (place, reader) in (0..count).zip(readers) {
        let end = next + each + u32::from(place < over);
        (next..end).for_each(|partition| give(reader, topic, partition));
        next = end;
    }
}

fn deal(
    subscribers: &[Subscriber],
    counts: &BTreeMap<String, u32>,
    give: &mut impl FnMut(&Subscriber, &str, u32),
) {
    let mut turn = 0;
    for (topic, partitions) in counts {
        if !subscribers.iter().any(|subscriber| subscriber.reads(topic)) {
            continue;
        }
        for partition in 0..*partitions {
            while !subscribers[turn % subscribers.len()].reads(topic) {
                turn += 1;
            }
            give(&subscribers[turn % subscribers.len()], topic, partition);
            turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscriber(member: &str, topics: &[&str]) -> Subscriber {
        Subscriber {
            member: member.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        }
    }

    fn counts(topics: &[(&str, u32)]) -> BTreeMap<String, u32> {
        topics.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect()
    }

    /// `a/0 a/1` for each member, in the order of their ids.
    #[track_caller]
    fn check(assignor: Assignor, members: &[Subscriber], topics: &[(&str, u32)], expected: &[&str]) {
        let plan = assignor.assign(members.to_vec(), &counts(topics));
        let told = plan.values().map(|partitions| {
            let places = partitions.iter().flat_map(|(topic, partitions)| {
                partitions.iter().map(move |partition| format!("{topic}/{partition}"))
            });
            places.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn range_cuts_each_topic_into_runs() {
        let members = [subscriber("y", &["a", "b"]), subscriber("x", &["a", "b"])];
        check(Assignor::Range, &members, &[("a", 3), ("b", 3)], &["a/0 a/1 b/0 b/1", "a/2 b/2"]);
        check(Assignor::Range, &members, &[("a", 1)], &["a/0", ""]);
        let some = [subscriber("x", &["a"]), subscriber("y", &["a", "b"]), subscriber("z", &["c"])];
        check(Assignor::Range, &some, &[("a", 2), ("b", 2)], &["a/0", "a/1 b/0 b/1", ""]);
    }

    #[test]
    fn roundrobin_deals_all_partitions_in_a_row() {
        let members = [subscriber("x", &["a", "b"]), subscriber("y", &["a", "b"])];
        check(Assignor::RoundRobin, &members, &[("a", 3), ("b", 3)], &["a/0 a/2 b/1", "a/1 b/0 b/2"]);
        let some = [subscriber("x", &["a"]), subscriber("y", &["a", "b"]), subscriber("z", &["a", "b", "c"])];
        check(
            Assignor::RoundRobin,
            &some,
            &[("a", 1), ("b", 2), ("c", 3), ("d", 9)],
            &["a/0", "b/0", "b/1 c/0 c/1 c/2"],
        );
    }

    #[test]
    fn both_are_found_by_their_names() {
        for assignor in Assignor::ALL {
            assert_eq!(Assignor::named(assignor.name()), Some(assignor));
        }
        assert_eq!(Assignor::named("sticky"), None);
    }

    proptest! {
        #[test]
        fn each_partition_goes_to_one_of_those_who_read_it(
            wishes in prop::collection::vec(prop::collection::vec(0_usize..4, 0..4), 1..6),
            sizes in prop::collection::vec(0_u32..7, 4),
        ) {
            let names = ["a", "b", "c", "d"];
            let members: Vec<_> = wishes.iter().enumerate().map(|(place, wish)| {
                subscriber(&format!("m{place}"), &wish.iter().map(|topic| names[*topic]).collect::<Vec<_>>())
            }).collect();
            let counts: BTreeMap<_, _> = names.iter().map(|name| (*name).to_owned()).zip(sizes).collect();
            for assignor in Assignor::ALL {
                let plan = assignor.assign(members.clone(), &counts);
                let mut given = Vec::new();
                for member in &members {
                    for (topic, partitions) in &plan[&member.member] {
                        prop_assert!(member.reads(topic));
                        given.extend(partitions.iter().map(|partition| (topic.clone(), partition.get())));
                    }
                }
                given.sort();
                let wanted = counts.iter().filter(|(topic, _)| members.iter().any(|member| member.reads(topic)));
                let all: Vec<_> = wanted
                    .flat_map(|(topic, count)| (0..*count).map(move |partition| (topic.clone(), partition)))
                    .collect();
                prop_assert_eq!(given, all);
            }
        }
    }
}
