//! Numbers for names, so that a name is kept once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::Refusal;

/// The names of one kind, numbered from 0 in the order of their appearance.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: BTreeMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    /// Neighbouring lines often bear the same name.
    last: u32,
}

impl Names {
    /// Names beyond this cannot be numbered: five bits of a number are needed elsewhere.
    const MAX: usize = 1 << 27;
    /// Longest name, in bytes.
    const BYTES_MAX: usize = 512;

    /// The number of this name, given now if it is new.
    pub(super) fn number(&mut self, name: &str) -> Result<u32, Refusal> {
        if self.names.get(self.last as usize).is_some_and(|last| **last == *name) {
            return Ok(self.last);
        }
        if let Some(number) = self.numbers.get(name) {
            self.last = *number;
            return Ok(*number);
        }
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return Err(Refusal::BadValue { what: "a name has 1 to 512 bytes" });
        }
        if self.names.len() >= Self::MAX {
            return Err(Refusal::TooMany { what: "names" });
        }
        let number = u32::try_from(self.names.len()).expect("fewer than 2^27");
        let name: Arc<str> = name.into();
        self.numbers.insert(name.clone(), number);
        self.names.push(name);
        Ok(number)
    }

    pub(super) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    pub(super) fn count(&self) -> u64 {
        self.names.len() as u64
    }
}
