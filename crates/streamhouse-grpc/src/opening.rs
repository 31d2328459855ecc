//! Opens the records of compressed batches before they are taken: what could never be read back is not acknowledged.

use std::sync::Arc;

use streamhouse_env::Threads;
use streamhouse_types::batch::{BatchError, Compression, OPENED_BYTES_MAX, RecordBatch};
use streamhouse_types::error_code::ErrorCode;
use tokio::sync::Semaphore;

use crate::status::Fault;

/// What all batches that are being opened at one time may take, in KiB: the largest one fits.
const ROOM_KIB: u32 = 64 << 10;
const _: () = assert!(ROOM_KIB as usize * 1024 == OPENED_BYTES_MAX);

/// How much more room a batch gets that did not fit into what it had.
const GROWTH: usize = 8;

/// Why a batch was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its records are not what its header says.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The thread that opened it has failed.
    #[error("the batch could not be opened")]
    Failed,
}

/// The room in which batches are opened. Clones share it.
#[derive(Debug, Clone)]
pub struct Opening {
    room: Arc<Semaphore>,
    threads: Arc<dyn Threads>,
}

impl Opening {
    /// An empty room; batches are opened on `threads`.
    #[must_use]
    pub fn new(threads: Arc<dyn Threads>) -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM_KIB as usize)), threads }
    }

    /// Hands the batch back when its records are what its header says. Uncompressed batches were walked before.
    /// Waits for room; runs beside the threads that serve everybody. Cancel-safe.
    ///
    /// # Errors
    /// When the records are something else, or the thread that looked has failed.
    ///
    /// # Panics
    /// Never: the room is not closed while there is a clone of it.
    pub async fn open(&self, batch: RecordBatch) -> Result<RecordBatch, OpenError> {
        if matches!(batch.header().attributes.compression(), Ok(Compression::None)) {
            return Ok(batch);
        }
        let mut most = batch.opened_bytes_likely();
        loop {
            match self.check(batch.clone(), most).await {
                // Few records are packed so well.
                Err(OpenError::Batch(BatchError::Bomb { .. })) if most < OPENED_BYTES_MAX => {
                    most = most.saturating_mul(GROWTH).min(OPENED_BYTES_MAX);
                }
                checked => return checked,
            }
        }
    }

    async fn check(&self, mut batch: RecordBatch, most: usize) -> Result<RecordBatch, OpenError> {
        let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        let room =
            Arc::clone(&self.room).acquire_many_owned(kib).await.expect("the semaphore is never closed");
        let checked = self.threads.blocking(move || {
            let _room = room;
            batch.check_compressed(most).map(|()| batch)
        });
        match checked.await {
            Ok(checked) => Ok(checked?),
            Err(_) => Err(OpenError::Failed),
        }
    }
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Batch(error) => error.into(),
            OpenError::Failed => Self::new(ErrorCode::Internal, error.to_string()),
        }
    }
}
