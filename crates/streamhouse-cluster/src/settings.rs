//! How long silence is borne.

use std::time::Duration;

/// The spans that leases are judged by. Constants of the design (section 12); tests and simulations shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How often a node shows the leader that it lives.
    pub beat: Duration,
    /// Silence after which a node counts as dead: its homes go to others. Several beats, so that one late one moves
    /// nothing.
    pub lease: Duration,
    /// Silence after which the incarnation of a node is closed: what it has not committed then never will be.
    pub close_after: Duration,
    /// How long a node's writes to the object store may fail while another node's go through. Then it counts as dead, and
    /// its homes go to others.
    pub store: Duration,
    /// How often the leader looks at its duties.
    pub look: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(200),
            lease: Duration::from_secs(1),
            close_after: Duration::from_secs(60),
            store: Duration::from_secs(5),
            look: Duration::from_millis(100),
        }
    }
}
