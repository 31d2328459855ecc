//! Which states of the metadata readers of this node still follow. What died after the oldest of them must stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use streamhouse_metadata::State;
use streamhouse_types::LogIndex;

/// The readers at work. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<BTreeMap<LogIndex, usize>>>);

/// A reader at work.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Pins,
    index: LogIndex,
}

impl Pins {
    /// Pins what a state refers to. Call it under the state's read lock: no object can then die, and be found without
    /// a pin, in between.
    pub(crate) fn pin(&self, state: &State) -> Pin {
        let index = state.applied();
        *self.0.lock().entry(index).or_default() += 1;
        Pin { pins: self.clone(), index }
    }

    /// The index up to which what died is read by nobody here, for a node that has applied up to `applied`: whoever
    /// begins to read from now on follows a state at least as new.
    pub(crate) fn free_up_to(&self, applied: LogIndex) -> LogIndex {
        self.0.lock().first_key_value().map_or(applied, |(oldest, _)| (*oldest).min(applied))
    }

    /// Whether a reader may still follow extents into what died at `index`.
    pub(crate) fn hold(&self, index: LogIndex) -> bool {
        self.0.lock().first_key_value().is_some_and(|(oldest, _)| *oldest < index)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        if let Some(readers) = pins.get_mut(&self.index) {
            *readers -= 1;
            if *readers == 0 {
                pins.remove(&self.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_holds_what_died_after_the_state_that_it_follows() {
        let pins = Pins::default();
        let mut state = State::new();
        state.skip_to(LogIndex::new(5));
        let first = pins.pin(&state);
        let second = pins.pin(&state);
        assert!(pins.hold(LogIndex::new(6)));
        assert!(!pins.hold(LogIndex::new(5)));
        drop(first);
        assert!(pins.hold(LogIndex::new(6)));
        assert_eq!(pins.free_up_to(LogIndex::new(9)), LogIndex::new(5));
        drop(second);
        assert!(!pins.hold(LogIndex::new(6)));
        assert_eq!(pins.free_up_to(LogIndex::new(9)), LogIndex::new(9));
    }
}
