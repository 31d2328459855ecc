//! Clean histories are spoiled in one way each; the check that is meant for it must see it every time.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use streamhouse_check::{Acked, Anomaly, Append, Digest, Event, Failed, Happened, OpId, OutOfRange, Poll};
use streamhouse_types::Offset;

use crate::{judge, members, world};

type Events = Vec<Event<'static>>;

/// A record that was acknowledged, and is not trimmed.
#[derive(Debug, Clone)]
struct Written {
    /// The place of the acknowledgement among the events.
    ack: usize,
    begin: u64,
    end: u64,
    producer: String,
    idempotent: bool,
    retried: bool,
    partition: String,
    offset: u64,
    value: Digest,
    /// How many records the append has.
    company: usize,
}

fn final_read(events: &Events) -> usize {
    events.iter().position(|event| matches!(event, Event::FinalRead(_))).expect("every history has one")
}

/// The log start of each partition at the end, as far as anybody asked.
fn log_starts(events: &Events) -> BTreeMap<String, u64> {
    let mut starts = BTreeMap::new();
    for event in events {
        if let Event::Trim(trim) = event {
            let start: &mut u64 = starts.entry(trim.partition.to_string()).or_default();
            *start = trim.before.get().max(*start);
        }
    }
    starts
}

fn written(events: &Events) -> Vec<Written> {
    let mut open: BTreeMap<OpId, &Append<'_>> = BTreeMap::new();
    let mut found = Vec::new();
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::Append(append) => drop(open.insert(append.op, append)),
            Event::Acked(acked) => {
                let append = open[&acked.op];
                for (value, offset) in append.values.iter().zip(acked.offset.get()..) {
                    found.push(Written {
                        ack: place,
                        begin: append.at.get(),
                        end: acked.at.get(),
                        producer: append.producer.to_string(),
                        idempotent: append.idempotent,
                        retried: acked.retried,
                        partition: append.partition.to_string(),
                        offset,
                        value: *value,
                        company: append.values.len(),
                    });
                }
            }
            _ => {}
        }
    }
    let starts = log_starts(events);
    found.retain(|written| written.offset >= starts.get(&written.partition).copied().unwrap_or(0));
    found
}

fn pick<T: Clone>(rng: &mut StdRng, from: &[T]) -> Option<T> {
    (!from.is_empty()).then(|| from[rng.random_range(0..from.len())].clone())
}

/// Polls of this partition, from the event at `start` on.
fn polls<'e>(
    events: &'e mut Events,
    partition: &str,
    start: usize,
) -> impl Iterator<Item = &'e mut Poll<'static>> {
    events[start..].iter_mut().filter_map(move |event| match event {
        Event::Poll(poll) if poll.partition == partition => Some(poll),
        _ => None,
    })
}

/// Gives every record of the partition another offset, wherever it is named.
fn renumber(events: &mut Events, partition: &str, change: impl Fn(u64) -> u64) {
    let acks: Vec<usize> = written(events)
        .iter()
        .filter(|written| written.partition == partition)
        .map(|written| written.ack)
        .collect();
    for (place, event) in events.iter_mut().enumerate() {
        match event {
            Event::Acked(Acked { offset, .. }) if acks.contains(&place) => {
                *offset = Offset::new(change(offset.get()))
            }
            Event::Poll(poll) if poll.partition == partition => {
                for (offset, _) in &mut poll.records {
                    *offset = Offset::new(change(offset.get()));
                }
            }
            _ => {}
        }
    }
}

/// Two records trade places, wherever they are named.
fn trade(events: &mut Events, one: &Written, two: &Written) {
    for event in events.iter_mut() {
        let Event::Poll(poll) = event else { continue };
        for (offset, value) in poll.records.iter_mut().filter(|_| poll.partition == one.partition) {
            match offset.get() {
                at if at == one.offset => *value = two.value,
                at if at == two.offset => *value = one.value,
                _ => {}
            }
        }
    }
    for (written, offset) in [(one, two.offset), (two, one.offset)] {
        if let Event::Acked(acked) = &mut events[written.ack] {
            acked.offset = Offset::new(offset);
        }
    }
}

/// Two acknowledged records of one partition that were sent once and alone, the first of which has the smaller offset.
fn pair(
    events: &Events,
    rng: &mut StdRng,
    fits: impl Fn(&Written, &Written) -> bool,
) -> Option<(Written, Written)> {
    let alone: Vec<Written> =
        written(events).into_iter().filter(|written| written.company == 1 && !written.retried).collect();
    let mut pairs = Vec::new();
    for one in &alone {
        let behind =
            |two: &&Written| two.partition == one.partition && two.offset > one.offset && fits(one, two);
        pairs.extend(alone.iter().filter(behind).map(|two| (one.clone(), two.clone())));
    }
    pick(rng, &pairs)
}

/// Puts one more record at the end of the last final poll of its partition.
fn read_one_more(events: &mut Events, partition: &str, value: Digest) -> Option<()> {
    let start = final_read(events);
    let last = polls(events, partition, start).last()?;
    let offset = last.records.last()?.0.after(1);
    last.records.push((offset, value));
    Some(())
}

/// Spoils the history so that it shows this; `None` when it offers no place for it.
fn spoil(anomaly: Anomaly, events: &mut Events, rng: &mut StdRng) -> Option<()> {
    let start = final_read(events);
    let victim = pick(rng, &written(events))?;
    match anomaly {
        Anomaly::InconsistentOffset => {
            let (one, two) = pair(events, rng, |one, two| two.offset == one.offset + 1)?;
            let poll = polls(events, &one.partition, start).find(|poll| {
                let has = |offset| poll.records.iter().any(|(at, _)| at.get() == offset);
                has(one.offset) && has(two.offset)
            })?;
            let place = poll.records.iter().position(|(at, _)| at.get() == one.offset)?;
            (poll.records[place].1, poll.records[place + 1].1) = (two.value, one.value);
        }
        Anomaly::Gap => {
            // All of an append moves, so that the hole lies in front of it.
            let Event::Acked(acked) = &events[victim.ack] else { return None };
            let first = acked.offset.get();
            (first >= log_starts(events).get(&victim.partition).copied().unwrap_or(0)).then_some(())?;
            renumber(events, &victim.partition, |offset| offset + u64::from(offset >= first));
        }
        Anomaly::Unseen => {
            let of_it = written(events).into_iter().filter(|other| other.partition == victim.partition);
            let last = of_it.map(|other| other.offset).max()?;
            polls(events, &victim.partition, start)
                .for_each(|poll| poll.records.retain(|(offset, _)| offset.get() < last));
        }
        Anomaly::LostWrite => {
            let records = polls(events, &victim.partition, start).flat_map(|poll| &poll.records);
            records.map(|(offset, _)| offset.get()).max().filter(|last| *last > victim.offset)?;
            polls(events, &victim.partition, 0)
                .for_each(|poll| poll.records.retain(|(offset, _)| offset.get() != victim.offset));
        }
        Anomaly::Phantom => read_one_more(events, &victim.partition, Digest::new(rng.random()))?,
        Anomaly::Duplicate => {
            let idempotent =
                written(events).into_iter().filter(|written| written.idempotent).collect::<Vec<_>>();
            let victim = pick(rng, &idempotent)?;
            read_one_more(events, &victim.partition, victim.value)?;
        }
        Anomaly::FailedWriteSeen => {
            let Event::Acked(Acked { client, op, at, .. }) = events[victim.ack].clone() else { return None };
            let failed = Failed { client, op, at, happened: Happened::No, error: None };
            events[victim.ack] = Event::Failed(failed);
        }
        Anomaly::ProducerOrder => {
            let (one, two) = pair(events, rng, |one, two| one.producer == two.producer)?;
            trade(events, &one, &two);
        }
        Anomaly::RealTimeOrder => {
            let (one, two) =
                pair(events, rng, |one, two| one.end < two.begin && one.producer != two.producer)?;
            trade(events, &one, &two);
        }
        Anomaly::AlteredValue => {
            let mut records = polls(events, &victim.partition, start).flat_map(|poll| &mut poll.records);
            let (_, value) = records.find(|(offset, _)| offset.get() == victim.offset)?;
            *value = Digest::new(value.get() ^ 1 << rng.random_range(0..64));
        }
        Anomaly::BucketAudit => {
            let Event::Audit(audit) = events.last_mut()? else { return None };
            audit.intact -= 1;
        }
        _ => spoil_answers(anomaly, events, rng)?,
    }
    Some(())
}

/// Spoils what consumers and nodes say.
fn spoil_answers(anomaly: Anomaly, events: &mut Events, rng: &mut StdRng) -> Option<()> {
    let places = |fits: &dyn Fn(&Poll<'static>) -> bool| -> Vec<usize> {
        let fits = |event: &Event<'static>| matches!(event, Event::Poll(poll) if fits(poll));
        events.iter().enumerate().filter(|(_, event)| fits(event)).map(|(place, _)| place).collect()
    };
    match anomaly {
        Anomaly::NonmonotonicPoll => {
            let place = pick(rng, &places(&|poll| poll.records.len() > 1))?;
            let Event::Poll(poll) = &mut events[place] else { return None };
            let at = rng.random_range(1..poll.records.len());
            poll.records.swap(at - 1, at);
        }
        Anomaly::PollSkip => {
            let starts = log_starts(events);
            let start = |poll: &Poll<'_>| starts.get(&*poll.partition).copied().unwrap_or(0);
            let place =
                pick(rng, &places(&|poll| poll.records.len() > 2 && poll.records[0].0.get() >= start(poll)))?;
            let Event::Poll(poll) = &mut events[place] else { return None };
            poll.records.remove(rng.random_range(1..poll.records.len() - 1));
        }
        Anomaly::FalseOutOfRange => {
            let place = pick(rng, &places(&|poll| poll.from.is_some() && poll.high_watermark.is_some()))?;
            let Event::Poll(poll) = events[place].clone() else { return None };
            let Poll { consumer, partition, begin, end, node, token, .. } = poll;
            let (high_watermark, log_start) = (poll.high_watermark?, poll.log_start?);
            let position = poll.from?.max(log_start).min(high_watermark);
            events[place] = Event::OutOfRange(OutOfRange {
                consumer,
                partition,
                begin,
                end,
                node,
                position,
                high_watermark,
                log_start,
                token,
            });
        }
        Anomaly::StaleTokenRead => {
            let owed =
                |poll: &Poll<'static>| Some((poll.token?, poll.high_watermark?, poll.partition.clone()));
            let place = pick(rng, &places(&|poll| owed(poll).is_some()))?;
            let Event::Poll(poll) = &mut events[place].clone() else { return None };
            let (token, _, partition) = owed(poll)?;
            let acks: Vec<usize> = written(events)
                .iter()
                .filter(|written| written.partition == partition)
                .map(|written| written.ack)
                .collect();
            let acks = acks.into_iter().filter(|ack| *ack < place).filter_map(|ack| match &events[ack] {
                Event::Acked(acked) if acked.token <= Some(token) => Some(acked.offset),
                _ => None,
            });
            // The answer ends where the newest record it owes begins.
            poll.high_watermark = Some(acks.max()?);
            poll.log_start = None;
            events[place] = Event::Poll(poll.clone());
        }
        Anomaly::HighWatermarkBack | Anomaly::LogStartBack => set_mark_back(anomaly, events, rng)?,
        Anomaly::LogStartUnasked => {
            let starts = log_starts(events);
            let places: Vec<usize> =
                (0..events.len()).filter(|place| matches!(events[*place], Event::Observed(_))).collect();
            let Event::Observed(observed) = &mut events[pick(rng, &places)?] else { return None };
            let asked = starts.get(&*observed.partition).copied().unwrap_or(0);
            observed.log_start = Offset::new(asked + 1);
        }
        Anomaly::CommitBack | Anomaly::FencedCommit => members::spoil(anomaly, events, rng)?,
        _ => unreachable!("{anomaly} is spoiled elsewhere"),
    }
    Some(())
}

/// Of two answers of one node, the later one says less.
fn set_mark_back(anomaly: Anomaly, events: &mut Events, rng: &mut StdRng) -> Option<()> {
    let mark = |place: usize| match &events[place] {
        Event::Observed(seen) if anomaly == Anomaly::LogStartBack => Some((seen, seen.log_start)),
        Event::Observed(seen) => Some((seen, seen.high_watermark)),
        _ => None,
    };
    let mut pairs = Vec::new();
    for one in 0..events.len() {
        let Some((before, value)) = mark(one).filter(|(_, value)| value.get() > 0) else { continue };
        let later = |two: &usize| {
            mark(*two).is_some_and(|(after, _)| {
                after.node == before.node && after.partition == before.partition && after.begin > before.end
            })
        };
        pairs.extend((one + 1..events.len()).filter(later).map(|two| (two, Offset::new(value.get() - 1))));
    }
    let (place, value) = pick(rng, &pairs)?;
    let Event::Observed(observed) = &mut events[place] else { return None };
    if anomaly == Anomaly::LogStartBack {
        observed.log_start = value;
    } else {
        observed.high_watermark = value;
    }
    Some(())
}

#[test]
fn every_way_to_spoil_a_history_is_found_by_the_check_that_is_meant_for_it() {
    for anomaly in Anomaly::ALL {
        let (mut spoiled, mut missed) = (0, Vec::new());
        for seed in 0..60 {
            let mut events = world::history(seed);
            let mut rng = StdRng::seed_from_u64(seed);
            if spoil(anomaly, &mut events, &mut rng).is_none() {
                continue;
            }
            spoiled += 1;
            if judge(&events).count(anomaly) == 0 {
                missed.push(seed);
            }
        }
        println!("{anomaly}: {spoiled} histories spoiled, {} missed", missed.len());
        assert!(spoiled >= 20, "{anomaly}: only {spoiled} histories could be spoiled");
        assert!(missed.is_empty(), "{anomaly} is not found in the histories of seeds {missed:?}");
    }
}
