//! Where bytes of objects come from: the tail cache, the block cache, the store.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use streamhouse_storage::cache::CachedObject;
use streamhouse_storage::{Ahead, BlockCache, GetError, Layout, Purpose};
use streamhouse_types::Offset;

use super::plan::PlannedRead;
use super::walk::{Cursor, Damage, Rope, Trust, Walked, walk};
use crate::tail::TailCache;

/// Which way bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// From the caches where they have them.
    Caches,
    /// From the store, past every cache: what the caches gave was wrong.
    Store,
}

/// Why an extent was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    /// The store did not give the bytes.
    #[error(transparent)]
    Get(#[from] GetError),
    /// They are not what was committed.
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// Batches of one extent.
#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) batches: Vec<Walked>,
    /// Where the next one starts.
    pub(crate) next: Cursor,
    /// Whether they come from this process's own memory of what it wrote.
    pub(crate) trust: Trust,
}

/// The tail cache and the block cache in front of the store.
#[derive(Clone)]
pub(crate) struct Source {
    tail: Arc<TailCache>,
    blocks: BlockCache,
    layout: Layout,
}

/// How many extents are read ahead at once.
const AHEAD_AT_ONCE: usize = 8;

impl Source {
    pub(crate) fn new(tail: Arc<TailCache>, blocks: BlockCache, layout: Layout) -> Self {
        Self { tail, blocks, layout }
    }

    /// The store behind the caches.
    pub(crate) fn store(&self) -> &streamhouse_storage::Store {
        self.blocks.store()
    }

    /// Whether the bytes of an extent are in memory for sure.
    pub(crate) fn in_tail(&self, read: &PlannedRead) -> bool {
        self.tail.holds(&read.extent.object)
    }

    fn object(&self, read: &PlannedRead) -> CachedObject {
        let id = read.extent.object;
        CachedObject { id, key: self.layout.wal_key(&id), length: read.object_length }
    }

    /// Reads whole batches from `cursor` on: about `want` bytes of them, at least one.
    pub(crate) async fn read(
        &self,
        read: &PlannedRead,
        cursor: Cursor,
        want: u64,
        via: Via,
    ) -> Result<Batches, ReadFault> {
        let mut want = want.max(1);
        loop {
            let range = cursor.position..read.end().min(cursor.position.saturating_add(want));
            let (pieces, trust) = self.bytes(read, range, via).await?;
            let (mut rope, mut next) = (Rope::new(pieces), cursor);
            let (batches, needed) = walk(&mut rope, &mut next, read, trust)?;
            if !batches.is_empty() || needed == 0 {
                return Ok(Batches { batches, next, trust });
            }
            if needed as u64 <= want {
                // The window ended with the extent, and yet no batch is whole.
                let position = cursor.position;
                return Err(Damage { what: "extent ends inside a batch".to_owned(), position }.into());
            }
            want = needed as u64;
        }
    }

    async fn bytes(
        &self,
        read: &PlannedRead,
        range: std::ops::Range<u64>,
        via: Via,
    ) -> Result<(Vec<Bytes>, Trust), GetError> {
        if via == Via::Store {
            let bytes = self.blocks.store().get_range(&self.object(read).key, range, Purpose::Fetch).await?;
            return Ok((vec![bytes], Trust::Stored));
        }
        if let Some(pieces) = self.tail.read(&read.extent.object, range.clone()) {
            return Ok((pieces, Trust::Checked));
        }
        Ok((self.blocks.read_pieces(&self.object(read), range, Purpose::Fetch).await?, Trust::Stored))
    }

    /// Finds the batch that holds `offset`.
    pub(crate) async fn locate(
        &self,
        read: &PlannedRead,
        offset: Offset,
        via: Via,
    ) -> Result<Cursor, ReadFault> {
        const WINDOW: u64 = 1 << 20;
        let mut cursor = Cursor::at_start(read);
        while cursor.offset < offset {
            let found = self.read(read, cursor, WINDOW, via).await?;
            if let Some(batch) = found.batches.iter().find(|batch| offset < batch.end()) {
                return Ok(Cursor { position: batch.position, offset: batch.base });
            }
            cursor = found.next;
        }
        Ok(cursor)
    }

    /// Bytes that may be read ahead now.
    pub(crate) fn ahead_room(&self) -> u64 {
        self.blocks.ahead_room()
    }

    /// Drops what the block cache has of an extent, because it is wrong.
    pub(crate) fn forget(&self, read: &PlannedRead) {
        self.blocks.forget(&self.object(read), read.extent.position..read.end());
    }

    /// Takes room for what is missing of extents from `cursor` on, as far as there is room. Returns what to load, and
    /// the end of the last extent that is whole.
    pub(crate) fn claim_ahead(&self, reads: &[PlannedRead], cursor: Cursor) -> (Vec<Ahead>, Option<Offset>) {
        let (mut claimed, mut end) = (Vec::new(), None);
        for read in reads {
            if !self.in_tail(read) {
                // Within an extent, the reader has what lies before its place, and it may be gone already.
                let inside = read.extent.base < cursor.offset;
                let from = if inside { cursor.position } else { read.extent.position };
                let ahead = self.blocks.ahead(self.object(read), from..read.end());
                let whole = ahead.is_whole();
                claimed.push(ahead);
                if !whole {
                    break;
                }
            }
            end = Some(read.extent.end);
        }
        (claimed, end)
    }
}

/// Loads what was claimed, several extents at once.
pub(crate) async fn load_ahead(claimed: Vec<Ahead>) {
    let loads = claimed.into_iter().map(|ahead| async move {
        if let Err(error) = ahead.load().await {
            tracing::debug!(%error, "reading ahead gave nothing");
        }
    });
    futures::stream::iter(loads).buffer_unordered(AHEAD_AT_ONCE).collect::<()>().await;
}
