//! Snapshot files: the metadata state, and where in the log it stands.
//!
//! `magic, version u8, meta length u32, meta, state length u64, state, crc32c u32`, little-endian; the checksum covers
//! all before it. `docs/formats/raft-snapshot.md` is the reference.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use streamhouse_env::LogFs;
use streamhouse_metadata::State;
use streamhouse_metadata::codec::{CodecError, decode_snapshot, encode_snapshot};

use crate::checksum::crc32c;
use crate::codec::{Reader, put_optional_log_id, put_stored_membership};
use crate::error::{RESTORE_OR_REPLACE, StartError};
use crate::files::{UNFINISHED, write_whole};
use crate::metrics;
use crate::types::{LogId, Snapshot, SnapshotMeta, log_id};

const MAGIC: &[u8; 8] = b"SHRAFTSN";
const VERSION: u8 = 1;
const HEAD: usize = 8 + 1 + 4;
const CRC: usize = 4;
const ENDING: &str = ".snap";
/// Snapshots that stay: the newest, and one more in case it is damaged.
const KEPT: usize = 2;

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the bytes end too early")]
    Truncated,
    #[error("the bytes do not start with the magic of a snapshot")]
    Magic,
    #[error("snapshot version {0} is not known to this release")]
    Version(u8),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the bytes hold no snapshot head")]
    Head,
    #[error("the metadata in the snapshot does not read back")]
    State(#[source] CodecError),
}

/// A snapshot, decoded.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: State,
}

impl SnapshotFile {
    /// The file's bytes.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut meta = Vec::new();
        put_optional_log_id(&mut meta, self.meta.last_log_id.as_ref());
        put_stored_membership(&mut meta, &self.meta.last_membership);
        let meta_length = u32::try_from(meta.len()).expect("a membership is small");
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&meta_length.to_le_bytes());
        bytes.extend_from_slice(&meta);
        let length_at = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        encode_snapshot(&self.state, &mut bytes)?;
        let state_length = (bytes.len() - length_at - 8) as u64;
        bytes[length_at..length_at + 8].copy_from_slice(&state_length.to_le_bytes());
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Reads a file's bytes. Never panics.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, SnapshotError> {
        let (meta, state) = split(bytes)?;
        let state = decode_snapshot(&state).map_err(SnapshotError::State)?;
        Ok(Self { meta, state })
    }
}

/// Checks the envelope and takes it apart.
fn split(bytes: &Bytes) -> Result<(SnapshotMeta, Bytes), SnapshotError> {
    if bytes.len() < HEAD + 8 + CRC {
        return Err(SnapshotError::Truncated);
    }
    if &bytes[..8] != MAGIC {
        return Err(SnapshotError::Magic);
    }
    if bytes[8] != VERSION {
        return Err(SnapshotError::Version(bytes[8]));
    }
    let body = bytes.slice(..bytes.len() - CRC);
    if bytes[body.len()..] != crc32c(&body).to_le_bytes() {
        return Err(SnapshotError::Checksum);
    }
    read_body(body).ok_or(SnapshotError::Head)
}

fn read_body(body: Bytes) -> Option<(SnapshotMeta, Bytes)> {
    let mut reader = Reader::new(body.slice(9..), "snapshot head");
    let meta_length = usize::try_from(reader.u32().ok()?).ok()?;
    let mut meta = Reader::new(reader.take(meta_length).ok()?, "snapshot head");
    let last_log_id = meta.optional_log_id().ok()?;
    let last_membership = meta.stored_membership().ok()?;
    meta.finish().ok()?;
    let state_length = usize::try_from(reader.u64().ok()?).ok()?;
    let state = reader.take(state_length).ok()?;
    reader.finish().ok()?;
    Some((SnapshotMeta { last_log_id, last_membership }, state))
}

/// The directory of the snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    fs: Arc<dyn LogFs>,
    dir: PathBuf,
}

impl SnapshotDir {
    /// Opens the directory and finds the newest snapshot that reads back. The log must go on from it: entries up to
    /// `purged` are no longer there.
    ///
    /// # Errors
    /// When no snapshot reaches `purged`; nothing is changed then.
    pub(crate) fn open(
        fs: Arc<dyn LogFs>,
        dir: PathBuf,
        purged: Option<LogId>,
    ) -> Result<(Self, Option<SnapshotFile>), StartError> {
        let on_dir = |source| StartError::Io { path: dir.clone(), source };
        fs.create_dir(&dir).map_err(on_dir)?;
        let files = fs.list(&dir).map_err(on_dir)?;
        let this = Self { fs, dir: dir.clone() };
        let mut damage = None;
        for (id, name) in named(&files).into_iter().rev() {
            let path = dir.join(&name);
            let bytes =
                this.fs.read(&path).map_err(|source| StartError::Io { path: path.clone(), source })?;
            let problem = match SnapshotFile::decode(&bytes) {
                Ok(file) if file.meta.last_log_id == Some(id) => {
                    if purged.is_none_or(|purged| purged.index() <= id.index()) {
                        this.remove_unfinished(&files);
                        return Ok((this, Some(file)));
                    }
                    "the log does not go on from this snapshot".to_owned()
                }
                Ok(_) => "its name and its content differ".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(file = %path.display(), %problem, "cannot start from this snapshot");
            damage.get_or_insert((path, problem));
        }
        match (purged, damage) {
            (None, None) => {
                this.remove_unfinished(&files);
                Ok((this, None))
            }
            // The whole log is there, but once there was a snapshot: something is wrong that a person must see.
            (_, Some((file, problem))) => {
                Err(StartError::Corrupt { file, position: 0, problem, fix: RESTORE_OR_REPLACE })
            }
            (Some(purged), None) => {
                let problem = format!("no snapshot holds the log up to entry {}", purged.index());
                Err(StartError::Corrupt { file: dir, position: 0, problem, fix: RESTORE_OR_REPLACE })
            }
        }
    }

    /// What a crash left of a snapshot that was being written.
    fn remove_unfinished(&self, files: &[streamhouse_env::FileEntry]) {
        for file in files.iter().filter(|file| file.name.ends_with(UNFINISHED)) {
            if let Err(error) = self.fs.remove(&self.dir.join(&file.name)) {
                tracing::warn!(file = %file.name, %error, "cannot remove an unfinished snapshot");
            }
        }
    }

    /// Stores a snapshot, durably, and lets go of all but the newest. `bytes` must be what [`SnapshotFile::encode`] gave
    /// for `meta`. Blocks.
    pub(crate) fn store(&self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = meta.last_log_id else { return Ok(()) };
        write_whole(&*self.fs, &self.dir.join(name_of(last)), &[bytes])?;
        ::metrics::gauge!(metrics::SNAPSHOT_INDEX).set(metrics::as_f64(last.index()));
        ::metrics::gauge!(metrics::SNAPSHOT_BYTES).set(metrics::as_f64(bytes.len() as u64));
        let stored = named(&self.fs.list(&self.dir)?);
        for (_, name) in stored.iter().rev().skip(KEPT) {
            self.fs.remove(&self.dir.join(name))?;
        }
        Ok(())
    }

    /// The newest snapshot, its envelope checked. Blocks.
    pub(crate) fn newest(&self) -> io::Result<Option<Snapshot>> {
        let stored = named(&self.fs.list(&self.dir)?);
        let Some((_, name)) = stored.last() else { return Ok(None) };
        let bytes = self.fs.read(&self.dir.join(name))?;
        match split(&bytes) {
            Ok((meta, _)) => Ok(Some(Snapshot { meta, snapshot: bytes })),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

fn name_of(last: LogId) -> String {
    format!("{:020}-{:020}{ENDING}", last.index(), last.committed_leader_id().term)
}

/// The snapshots among `files`, oldest first.
fn named(files: &[streamhouse_env::FileEntry]) -> Vec<(LogId, String)> {
    let parse = |name: &str| {
        let (index, term) = name.strip_suffix(ENDING)?.split_once('-')?;
        let id = log_id(term.parse().ok()?, index.parse().ok()?);
        (name_of(id) == name).then(|| (id, name.to_owned()))
    };
    let mut found: Vec<_> = files.iter().filter_map(|file| parse(&file.name)).collect();
    found.sort_by_key(|(id, _)| (id.index(), id.committed_leader_id().term));
    found
}

#[cfg(test)]
mod tests;
