//! Which blocks are kept, which are on their way, and which go first. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use streamhouse_types::ObjectId;
use tokio::sync::watch;

/// A block: its object, and its number in it.
pub(super) type BlockId = (ObjectId, u64);

/// What an entry costs besides its bytes.
const ENTRY_BYTES: u64 = 128;

/// A block that no reader came to is given up after so many times the capacity has come in since.
const PATIENCE: u64 = 2;

/// Who asks for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A reader that needs it now.
    Now,
    /// Read-ahead, for a reader that will come to it.
    Ahead,
}

/// What became of asking for a block.
#[derive(Debug)]
pub(super) enum Found {
    /// It is here.
    Here(Bytes),
    /// Somebody fetches it. The sender goes without a word when that fails.
    Coming(watch::Receiver<Option<Bytes>>),
    /// The asker is to fetch it, and must settle or abandon the claim.
    Missing(Claim),
    /// It would have to be fetched, and nothing more may be read ahead now.
    NoRoom,
}

/// The task of fetching a block.
#[derive(Debug)]
pub(super) struct Claim {
    id: BlockId,
    ticket: u64,
    loaded: watch::Sender<Option<Bytes>>,
}

#[derive(Debug)]
enum Slot {
    Here {
        block: Bytes,
        turn: u64,
        queue: Queue,
    },
    Coming {
        ticket: u64,
        /// What it takes of the room for reading ahead; 0 when a reader waits for it.
        ahead: u64,
        loaded: watch::Receiver<Option<Bytes>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Used,
    Unread,
}

/// The blocks in memory. Blocks that were read go first, the one read longest ago at their head. Blocks that were read
/// ahead stay until their reader comes: that no more than half of the capacity is read ahead leaves room for the
/// others.
#[derive(Debug)]
pub(super) struct Shelf {
    capacity: u64,
    slots: BTreeMap<BlockId, Slot>,
    /// By the turn of their last use.
    used: BTreeMap<u64, BlockId>,
    /// By the turn at which they came.
    unread: BTreeMap<u64, BlockId>,
    /// What the blocks that are here weigh, and those of them that nobody has read.
    here_bytes: u64,
    unread_bytes: u64,
    /// What the blocks weigh that are being read ahead.
    coming_bytes: u64,
    /// Counts the bytes that came in, and so tells the age of blocks.
    turn: u64,
    /// How many blocks were dropped to make room.
    evicted: u64,
}

impl Shelf {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            slots: BTreeMap::new(),
            used: BTreeMap::new(),
            unread: BTreeMap::new(),
            here_bytes: 0,
            unread_bytes: 0,
            coming_bytes: 0,
            turn: 0,
            evicted: 0,
        }
    }

    /// How many blocks were dropped to make room since this was asked last.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Bytes that are here.
    pub(super) fn bytes(&self) -> u64 {
        self.here_bytes
    }

    /// Bytes that may be read ahead now.
    pub(super) fn ahead_room(&self) -> u64 {
        (self.capacity / 2).saturating_sub(self.unread_bytes + self.coming_bytes)
    }

    /// Asks for a block of `length` bytes.
    pub(super) fn claim(&mut self, id: BlockId, length: u64, want: Want) -> Found {
        match self.slots.get_mut(&id) {
            Some(Slot::Here { block, queue, .. }) => {
                let (block, queue) = (block.clone(), *queue);
                if want == Want::Now || queue == Queue::Used {
                    self.touch(id);
                }
                return Found::Here(block);
            }
            Some(Slot::Coming { ahead, loaded, .. }) => {
                let loaded = loaded.clone();
                if want == Want::Now {
                    self.coming_bytes -= std::mem::take(ahead);
                }
                return Found::Coming(loaded);
            }
            None => {}
        }
        let ahead = match want {
            Want::Now => 0,
            Want::Ahead => length + ENTRY_BYTES,
        };
        if ahead > self.ahead_room() {
            return Found::NoRoom;
        }
        self.coming_bytes += ahead;
        let (sender, loaded) = watch::channel(None);
        let ticket = self.next_turn(1);
        self.slots.insert(id, Slot::Coming { ticket, ahead, loaded });
        self.shrink();
        Found::Missing(Claim { id, ticket, loaded: sender })
    }

    /// Hands a fetched block to those that wait for it, and keeps it unless it was forgotten meanwhile; returns whether
    /// it was not.
    pub(super) fn settle(&mut self, claim: &Claim, block: Bytes) -> bool {
        let claimed = self.take_claimed(claim);
        if let Some(ahead) = claimed {
            let weight = weight(&block);
            let turn = self.next_turn(weight);
            let queue = if ahead > 0 { Queue::Unread } else { Queue::Used };
            match queue {
                Queue::Used => self.used.insert(turn, claim.id),
                Queue::Unread => self.unread.insert(turn, claim.id),
            };
            self.here_bytes += weight;
            self.unread_bytes += if queue == Queue::Unread { weight } else { 0 };
            self.slots.insert(claim.id, Slot::Here { block: block.clone(), turn, queue });
            self.shrink();
        }
        claim.loaded.send_replace(Some(block));
        claimed.is_some()
    }

    /// Gives up fetching a block: whoever wants it next fetches it.
    pub(super) fn abandon(&mut self, claim: &Claim) {
        self.take_claimed(claim);
    }

    /// Drops blocks of an object; what is on its way is handed over, and not kept.
    pub(super) fn forget(&mut self, object: ObjectId, blocks: Range<u64>) {
        if blocks.is_empty() {
            return;
        }
        let within = (object, blocks.start)..(object, blocks.end);
        let ids: Vec<BlockId> = self.slots.range(within).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.remove(id));
    }

    /// Takes out what stands for a claim, and returns its share of the room for reading ahead.
    fn take_claimed(&mut self, claim: &Claim) -> Option<u64> {
        match self.slots.get(&claim.id) {
            Some(Slot::Coming { ticket, ahead, .. }) if *ticket == claim.ticket => {
                let ahead = *ahead;
                self.remove(claim.id);
                Some(ahead)
            }
            _ => None,
        }
    }

    /// Notes that a block is used now.
    fn touch(&mut self, id: BlockId) {
        let now = self.next_turn(1);
        let Some(Slot::Here { block, turn, queue }) = self.slots.get_mut(&id) else { return };
        match queue {
            Queue::Used => self.used.remove(turn),
            Queue::Unread => {
                self.unread_bytes -= weight(block);
                self.unread.remove(turn)
            }
        };
        (*turn, *queue) = (now, Queue::Used);
        self.used.insert(now, id);
    }

    fn remove(&mut self, id: BlockId) {
        match self.slots.remove(&id) {
            Some(Slot::Here { block, turn, queue: Queue::Used }) => {
                self.used.remove(&turn);
                self.here_bytes -= weight(&block);
            }
            Some(Slot::Here { block, turn, queue: Queue::Unread }) => {
                self.unread.remove(&turn);
                self.here_bytes -= weight(&block);
                self.unread_bytes -= weight(&block);
            }
            Some(Slot::Coming { ahead, .. }) => self.coming_bytes -= ahead,
            None => {}
        }
    }

    /// Drops what nobody came for, and then what is too much.
    fn shrink(&mut self) {
        let patience = self.capacity.saturating_mul(PATIENCE);
        while let Some((turn, id)) = first(&self.unread)
            && self.turn - turn > patience
        {
            self.evicted += 1;
            self.remove(id);
        }
        while self.here_bytes + self.coming_bytes > self.capacity
            && let Some((_, id)) = first(&self.used).or_else(|| first(&self.unread))
        {
            self.evicted += 1;
            self.remove(id);
        }
    }

    fn next_turn(&mut self, bytes: u64) -> u64 {
        self.turn += bytes;
        self.turn
    }
}

fn weight(block: &Bytes) -> u64 {
    block.len() as u64 + ENTRY_BYTES
}

fn first(queue: &BTreeMap<u64, BlockId>) -> Option<(u64, BlockId)> {
    queue.first_key_value().map(|(turn, id)| (*turn, *id))
}
