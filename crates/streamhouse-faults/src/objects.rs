//! The buckets and what is in them.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_env::{SystemThreads, Threads};
use streamhouse_types::Timestamp;

/// Where the bytes of objects are kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// In memory, as the pieces that came; at most so many bytes.
    Memory {
        /// Writes beyond this fail.
        cap_bytes: u64,
    },
    /// As files in a folder, for runs that do not fit into memory. Not synced; the index is in memory.
    Folder(PathBuf),
}

#[derive(Debug, Clone)]
enum Body {
    Pieces(Arc<[Bytes]>),
    File(Arc<FileBody>),
}

/// A file that goes when nobody needs it any more.
#[derive(Debug)]
struct FileBody(PathBuf);

impl Drop for FileBody {
    fn drop(&mut self) {
        // What stays is in a folder that its owner removes.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An object. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Object {
    body: Body,
    /// Length in bytes.
    pub length: u64,
    /// CRC-64/NVME of the bytes.
    pub crc64: u64,
    /// When it was written.
    pub modified: Timestamp,
}

/// A listed object.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// The object.
    pub object: Object,
}

/// Why an object was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateError {
    /// There is no such bucket.
    NoBucket,
    /// The key is taken, and it must not be.
    Exists,
    /// The memory for objects is full.
    Full,
}

type Bucket = BTreeMap<String, Object>;

/// All buckets. One lock: of two writers of one key exactly one wins.
#[derive(Debug)]
pub struct Objects {
    place: Place,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    used: AtomicU64,
    files: AtomicU64,
}

impl Objects {
    /// No bucket yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, buckets: Mutex::default(), used: AtomicU64::new(0), files: AtomicU64::new(0) }
    }

    /// Makes a bucket; `false` when it was there.
    pub fn create_bucket(&self, name: &str) -> bool {
        let mut buckets = self.buckets.lock();
        let fresh = !buckets.contains_key(name);
        buckets.entry(name.to_owned()).or_default();
        fresh
    }

    /// Whether there is such a bucket.
    #[must_use]
    pub fn has_bucket(&self, name: &str) -> bool {
        self.buckets.lock().contains_key(name)
    }

    /// Keeps the bytes of an object, which has no name yet.
    pub(crate) async fn keep(&self, pieces: Vec<Bytes>, modified: Timestamp) -> io::Result<Object> {
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        pieces.iter().for_each(|piece| crc.update(piece));
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let body = match &self.place {
            Place::Memory { .. } => Body::Pieces(pieces.into()),
            Place::Folder(folder) => {
                let path = folder.join(format!("{:016}", self.files.fetch_add(1, Ordering::Relaxed)));
                let threads: &dyn Threads = &SystemThreads;
                threads.blocking(move || write_file(path, &pieces)).await.map_err(io::Error::other)??
            }
        };
        Ok(Object { body, length, crc64: crc.finalize(), modified })
    }

    /// Gives an object its name.
    ///
    /// # Errors
    /// When the bucket is missing, the memory is full, or the key is taken and `must_be_new`.
    pub(crate) fn name(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        free: Free,
    ) -> Result<(), CreateError> {
        let mut buckets = self.buckets.lock();
        let bucket = buckets.get_mut(bucket).ok_or(CreateError::NoBucket)?;
        let replaced = bucket.get(key).map_or(0, |object| object.length);
        if matches!(free, Free::Required) && bucket.contains_key(key) {
            return Err(CreateError::Exists);
        }
        let used = self.used.load(Ordering::Relaxed) - replaced + object.length;
        if matches!(self.place, Place::Memory { cap_bytes } if used > cap_bytes) {
            return Err(CreateError::Full);
        }
        self.used.store(used, Ordering::Relaxed);
        bucket.insert(key.to_owned(), object);
        Ok(())
    }

    /// An object; the first `None` when there is no such bucket.
    #[must_use]
    pub fn get(&self, bucket: &str, key: &str) -> Option<Option<Object>> {
        Some(self.buckets.lock().get(bucket)?.get(key).cloned())
    }

    /// Deletes an object, if it is there; `false` when there is no such bucket.
    pub fn delete(&self, bucket: &str, key: &str) -> bool {
        let mut buckets = self.buckets.lock();
        let Some(bucket) = buckets.get_mut(bucket) else { return false };
        if let Some(object) = bucket.remove(key) {
            self.used.fetch_sub(object.length, Ordering::Relaxed);
        }
        true
    }

    /// At most `count` objects whose keys start with `prefix` and come after `after`; `None` when there is no such
    /// bucket.
    #[must_use]
    pub fn list(&self, bucket: &str, prefix: &str, after: Option<&str>, count: usize) -> Option<Vec<Listed>> {
        let buckets = self.buckets.lock();
        let bucket = buckets.get(bucket)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = bucket.range::<str, _>((start, Bound::Unbounded));
        let within = range.take_while(|(key, _)| key.starts_with(prefix)).take(count);
        Some(within.map(|(key, object)| Listed { key: key.clone(), object: object.clone() }).collect())
    }

    /// How many objects there are, and how many bytes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let count = self.buckets.lock().values().map(|bucket| bucket.len() as u64).sum();
        (count, self.used.load(Ordering::Relaxed))
    }
}

/// Whether a key must be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    Required,
    NotRequired,
}

impl Object {
    /// The bytes of a range that lies within the object. From memory nothing is copied.
    pub(crate) async fn read(&self, range: Range<u64>) -> io::Result<Vec<Bytes>> {
        match &self.body {
            Body::Pieces(pieces) => Ok(slice(pieces, range)),
            Body::File(file) => {
                let file = file.clone();
                let threads: &dyn Threads = &SystemThreads;
                threads.blocking(move || read_file(&file, range)).await.map_err(io::Error::other)?
            }
        }
    }
}

fn slice(pieces: &[Bytes], range: Range<u64>) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut position = 0;
    for piece in pieces {
        let end = position + piece.len() as u64;
        let (from, to) = (range.start.max(position), range.end.min(end));
        if from < to {
            let at = |at: u64| usize::try_from(at - position).expect("within the piece");
            out.push(piece.slice(at(from)..at(to)));
        }
        position = end;
    }
    out
}

fn write_file(path: PathBuf, pieces: &[Bytes]) -> io::Result<Body> {
    let mut file = std::fs::File::create_new(&path)?;
    let body = FileBody(path);
    for pieces in pieces.chunks(512) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            let written = file.write_vectored(slices)?;
            IoSlice::advance_slices(&mut slices, written);
        }
    }
    Ok(Body::File(Arc::new(body)))
}

fn read_file(file: &FileBody, range: Range<u64>) -> io::Result<Vec<Bytes>> {
    const PIECE: u64 = 256 << 10;
    let mut file = std::fs::File::open(&file.0)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut pieces = Vec::new();
    let mut left = range.end - range.start;
    while left > 0 {
        let mut piece = Vec::new();
        (&mut file).take(left.min(PIECE)).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= piece.len() as u64;
        pieces.push(Bytes::from(piece));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    async fn put(objects: &Objects, key: &str, bytes: &'static [u8], free: Free) -> Result<(), CreateError> {
        let object = objects.keep(vec![Bytes::from_static(bytes)], NOW).await.unwrap();
        objects.name("b", key, object, free)
    }

    fn memory(cap_bytes: u64) -> Objects {
        let objects = Objects::new(Place::Memory { cap_bytes });
        objects.create_bucket("b");
        objects
    }

    #[tokio::test]
    async fn a_range_comes_back_from_memory_and_from_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        for place in [Place::Memory { cap_bytes: 100 }, Place::Folder(dir.path().to_owned())] {
            let objects = Objects::new(place);
            let pieces = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
            let object = objects.keep(pieces, NOW).await.unwrap();
            for (start, end) in [(0, 7), (1, 2), (2, 4), (3, 7), (7, 7)] {
                let read = object.read(start..end).await.unwrap().concat();
                let at = |at| usize::try_from(at).unwrap();
                assert_eq!(read, &b"abcdefg"[at(start)..at(end)]);
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files go with their objects");
    }

    #[tokio::test]
    async fn a_taken_key_is_refused_only_where_it_must_be_free() {
        let objects = memory(100);
        put(&objects, "k", b"1", Free::Required).await.unwrap();
        assert_eq!(put(&objects, "k", b"2", Free::Required).await, Err(CreateError::Exists));
        put(&objects, "k", b"22", Free::NotRequired).await.unwrap();
        assert_eq!(objects.totals(), (1, 2));
        assert!(objects.delete("b", "k") && objects.delete("b", "k"));
        assert_eq!(objects.totals(), (0, 0));
    }

    #[tokio::test]
    async fn memory_has_a_cap() {
        let objects = memory(3);
        put(&objects, "k", b"123", Free::Required).await.unwrap();
        assert_eq!(put(&objects, "l", b"4", Free::Required).await, Err(CreateError::Full));
        objects.delete("b", "k");
        put(&objects, "l", b"4", Free::Required).await.unwrap();
    }

    #[tokio::test]
    async fn a_listing_starts_after_a_key_and_ends_with_the_prefix() {
        let objects = memory(100);
        for key in ["a/1", "a/2", "a/3", "b/1"] {
            put(&objects, key, b"x", Free::Required).await.unwrap();
        }
        let list = |prefix: &str, after: Option<&str>, count| -> Vec<String> {
            objects.list("b", prefix, after, count).unwrap().into_iter().map(|listed| listed.key).collect()
        };
        assert_eq!(list("a/", None, 2), ["a/1", "a/2"]);
        assert_eq!(list("a/", Some("a/2"), 9), ["a/3"]);
        assert_eq!(list("b", Some("a/2"), 9), ["b/1"]);
        assert_eq!(list("", Some("a/30"), 9), ["b/1"]);
        assert!(objects.list("other", "", None, 9).is_none());
    }
}
