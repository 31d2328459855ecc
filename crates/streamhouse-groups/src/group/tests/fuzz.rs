//! Bytes as histories: the target `group` of `fuzz/`, whose corpus is replayed here.

use super::model::{Age, Event, Name, judge};
use crate::Newcomers;

/// Longest history, so that a run is short.
const EVENTS_MAX: usize = 200;

/// Takes four bytes for each event, and has them happen to a group and to the reference.
///
/// # Panics
/// When the two differ.
pub(crate) fn run(data: &[u8]) {
    let events: Vec<Event> = data.chunks_exact(4).take(EVENTS_MAX).map(event).collect();
    judge(&events);
}

fn event(bytes: &[u8]) -> Event {
    let [kind, first, second, third] = *bytes else { unreachable!("chunks of four") };
    let member = name(first, second);
    let generation = match third % 8 {
        0 => Age::Last,
        1 => Age::None,
        _ => Age::Current,
    };
    match kind % 8 {
        0 | 1 => {
            let newcomers = if third & 0x80 == 0 { Newcomers::AtOnce } else { Newcomers::MustReturn };
            Event::Join { member, protocols: usize::from(third % 5), newcomers }
        }
        2 => Event::Sync { member, generation },
        3 => Event::Heartbeat { member, generation },
        4 => Event::Commit { member, generation },
        5 => Event::Leave {
            members: (0..third % 3).map(|more| name(first, second.wrapping_add(more))).collect(),
        },
        6 => Event::HangUp { ticket: usize::from(first) },
        _ => Event::Seconds(u64::from(first % 7) + 1),
    }
}

fn name(kind: u8, number: u8) -> Name {
    let number = usize::from(number);
    match kind % 4 {
        0 => Name::New,
        1 | 2 => Name::Known(number),
        _ => Name::Fixed { instance: number % 2, id: (number > 127).then_some(number / 2 % 20) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/group");

    #[test]
    fn the_fuzz_corpus_is_played_as_the_reference_says() {
        let mut played = 0;
        for file in std::fs::read_dir(CORPUS).expect("the corpus is in the repository") {
            run(&std::fs::read(file.expect("an entry").path()).expect("a seed"));
            played += 1;
        }
        assert!(played >= 3, "{played} seeds");
    }

    #[test]
    fn every_kind_of_event_has_bytes() {
        let kinds: std::collections::BTreeSet<_> = (0..8)
            .map(|kind| std::mem::discriminant(&event(&[kind, 1, 1, 2])))
            .map(|kind| format!("{kind:?}"))
            .collect();
        assert_eq!(kinds.len(), 7);
    }
}
