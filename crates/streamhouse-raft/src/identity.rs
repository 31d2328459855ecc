//! Whose data directory is this? A file that answers it for ever.

use std::io;
use std::path::{Path, PathBuf};

use streamhouse_env::{LogFs, Rng};
use streamhouse_types::NodeId;

use crate::checksum::crc32c;

const FILE: &str = "identity";
const MAGIC: &[u8; 8] = b"SHNODEID";
const VERSION: u8 = 1;
const LENGTH: usize = 8 + 1 + 8 + 16 + 4;

/// The node a data directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The node id, given once and never reused.
    pub node: NodeId,
    /// Random, drawn when the directory was first used: tells apart two directories of one node id, such as a wiped
    /// one and its copy.
    pub lineage: [u8; 16],
}

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file does not hold what was written. Nothing was changed.
    #[error("{} is damaged: {problem}; restore this file from a copy: it never changes", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is none, though the directory was in use. Nothing was changed.
    #[error(
        "{} is missing, and the directory was in use: restore this file from a copy, as it never changes, or, in a \
         cluster, remove this node and start it with a new node id and an empty directory",
        file.display()
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot use {}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// A new identity for `node`.
    #[must_use]
    pub fn draw(node: NodeId, rng: &dyn Rng) -> Self {
        let mut lineage = [0; 16];
        rng.fill(&mut lineage);
        Self { node, lineage }
    }

    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.node.get().to_le_bytes());
        bytes.extend_from_slice(&self.lineage);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// What is wrong with them. Never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| "its length is wrong")?;
        if &bytes[..8] != MAGIC {
            return Err("it does not start with the magic");
        }
        if bytes[8] != VERSION {
            return Err("its version is not known to this release");
        }
        let (body, crc) = bytes.split_at(LENGTH - 4);
        if crc != crc32c(body).to_le_bytes() {
            return Err("its checksum does not match");
        }
        let node = u64::from_le_bytes(body[9..17].try_into().expect("eight bytes"));
        let lineage = body[17..33].try_into().expect("sixteen bytes");
        Ok(Self { node: NodeId::new(node), lineage })
    }

    /// The identity of `dir`; `None` when it has none yet.
    ///
    /// # Errors
    /// When the file is damaged or cannot be read.
    pub fn read(fs: &dyn LogFs, dir: &Path) -> Result<Option<Self>, IdentityError> {
        let file = dir.join(FILE);
        match fs.read(&file) {
            Ok(bytes) => match Self::decode(&bytes) {
                Ok(identity) => Ok(Some(identity)),
                Err(problem) => Err(IdentityError::Corrupt { file, problem }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::Io { file, source }),
        }
    }

    /// Why there can be none in `dir`.
    pub(crate) fn missing(dir: &Path) -> IdentityError {
        IdentityError::Missing { file: dir.join(FILE) }
    }

    /// Gives `dir` this identity, wholly or not at all; it is durable on return.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, fs: &dyn LogFs, dir: &Path) -> Result<(), IdentityError> {
        let file = dir.join(FILE);
        crate::files::write_whole(fs, &file, &[&self.encode()])
            .map_err(|source| IdentityError::Io { file, source })
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_env::{SeededRng, StdFs};

    use super::*;

    #[test]
    fn an_identity_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Identity::read(&StdFs, dir.path()).expect("readable"), None);
        let identity = Identity::draw(NodeId::new(7), &SeededRng::new(1));
        identity.write(&StdFs, dir.path()).expect("written");
        assert_eq!(Identity::read(&StdFs, dir.path()).expect("readable"), Some(identity));
    }

    #[test]
    fn a_flipped_byte_is_found() {
        let bytes = Identity::draw(NodeId::new(7), &SeededRng::new(1)).encode();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x10;
            assert!(Identity::decode(&damaged).is_err(), "byte {position}");
        }
        assert!(Identity::decode(&bytes[1..]).is_err());
    }

    #[test]
    fn the_bytes_stay_what_they_are() {
        let identity = Identity { node: NodeId::new(3), lineage: [9; 16] };
        let expected = [
            &b"SHNODEID\x01"[..],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[9; 16],
            &crc32c(&identity.encode()[..33]).to_le_bytes(),
        ];
        assert_eq!(identity.encode(), expected.concat());
    }
}
