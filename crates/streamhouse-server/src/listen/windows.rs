//! How much the peers of a listener may send before it is read.
//!
//! Over HTTP/2 what a peer sends lies in memory until the call that it belongs to reads it. A node without room for more
//! batches reads none, so each connection may fill its window then. Their sum has to be bounded whatever their number:
//! the first connections get windows that suit long ways, the more there are the smaller those of further ones.

use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes that all windows may have together, beside the smallest for each.
const ALL_BYTES: u32 = 24 << 20;
/// The smallest window of a connection: 2.5 MB/s over a way of 50 ms, 130 MB/s over one of 1 ms.
const SMALLEST: u32 = 128 << 10;
/// A connection gets this part of what is left.
const PART: u32 = 8;

/// The windows of a listener. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Windows(Arc<Mutex<u32>>);

/// The window of one connection; goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Window {
    taken: u32,
    windows: Windows,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(ALL_BYTES)))
    }

    /// The window of a further connection.
    pub(crate) fn take(&self) -> Window {
        let mut left = self.0.lock();
        let share = *left / PART;
        let taken = if share > SMALLEST { share } else { 0 };
        *left -= taken;
        Window { taken, windows: self.clone() }
    }
}

impl Window {
    /// Its size.
    pub(crate) fn bytes(&self) -> u32 {
        self.taken.max(SMALLEST)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *self.windows.0.lock() += self.taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_have_large_windows_and_many_stay_within_their_bound() {
        let windows = Windows::new();
        let few: Vec<Window> = (0..4).map(|_| windows.take()).collect();
        assert!(few.iter().all(|window| window.bytes() > 2 << 20), "{few:?}");
        let many: Vec<Window> = (4..1_000).map(|_| windows.take()).collect();
        let sum: u64 = few.iter().chain(&many).map(|window| u64::from(window.bytes())).sum();
        assert!(sum <= u64::from(ALL_BYTES) + 1_000 * u64::from(SMALLEST), "{sum}");
        drop((few, many));
        assert_eq!(windows.take().bytes(), ALL_BYTES / PART, "what is given back is given out again");
    }
}
