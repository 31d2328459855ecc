//! How the bytes of an object come into its file and out of it: those of large objects past the page cache, where the
//! file system allows it.
//!
//! What the kernel does for bytes that go through the page cache, to find a page, to copy and to write it back, cost more
//! than everything else on the way of a record. Little is won by it: consumers at the tail are answered from memory, and
//! what is read of old records is kept by the node's own cache. Figures and what it costs: `docs/adr/0003-local-store.md`.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::payload::Payload;

/// Shorter objects go through the page cache: there the sync takes most of the time either way.
const PAST_CACHE_BYTES_MIN: u64 = 128 << 10;
/// How many bytes one call moves past the cache. At this size a disk is as fast as with larger ones, and the bytes are
/// still in the cache of the processor when they are moved on.
const BUFFER_BYTES: usize = 1 << 20;
/// Of addresses, lengths and positions past the cache (`open(2)`, O_DIRECT). What has larger blocks refuses.
const ALIGNMENT: usize = 4096;
/// How many buffers are kept for later calls: about as many as there are at a time under load.
const BUFFERS_KEPT: usize = 4;
/// The longest range that is read at once: no object is longer.
const READ_BYTES_MAX: u64 = 4 << 30;
/// How many bytes one write through the cache takes. Larger ones fill larger pages, which some disks sync more slowly:
/// 1 MiB took 3.9 ms instead of 1.5 ms.
const WRITE_BYTES: usize = 64 << 10;
/// How many slices one write takes; the most that Linux accepts is 1,024.
const WRITE_SLICES: usize = 512;

/// Moves objects into files and out of them.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The file system does not let anybody past its cache.
    refused: AtomicBool,
    buffers: Mutex<Vec<Buffer>>,
}

impl Disk {
    /// Writes the whole object into a file that is empty. Nothing is synced, and after an error the file holds anything.
    pub(super) fn write(&self, file: &mut File, payload: &Payload) -> io::Result<()> {
        if self.goes_through(payload.len()) {
            return write_through(file, payload.pieces());
        }
        match self.write_past(file, payload) {
            Err(error) if is_refusal(&error) => {
                set_caching(file, Caching::Through)?;
                file.rewind()?;
                file.set_len(0)?;
                write_through(file, payload.pieces())?;
                self.refused("write", &error);
                Ok(())
            }
            result => result,
        }
    }

    /// Reads a range of an object of `length` bytes. What is missing at the end of the file is missing in the answer.
    pub(super) fn read(&self, file: &mut File, length: u64, mut pieces: Pieces) -> io::Result<Vec<Bytes>> {
        let past =
            if self.goes_through(length) { None } else { Some(self.read_past(file, length, &mut pieces)) };
        match past {
            Some(Err(error)) if is_refusal(&error) => {
                set_caching(file, Caching::Through)?;
                pieces.clear();
                read_through(file, &mut pieces)?;
                self.refused("read", &error);
            }
            Some(result) => result?,
            None => read_through(file, &mut pieces)?,
        }
        Ok(pieces.finish())
    }

    fn goes_through(&self, length: u64) -> bool {
        length < PAST_CACHE_BYTES_MIN || self.refused.load(Ordering::Relaxed)
    }

    /// It went through the cache, but not past it.
    fn refused(&self, what: &str, error: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::info!(what, %error, "the store's disk is used through the page cache: it was refused past it");
        }
    }

    fn write_past(&self, file: &mut File, payload: &Payload) -> io::Result<()> {
        set_caching(file, Caching::Past)?;
        self.with_buffer(|buffer| buffer.carry_in(file, payload.pieces()))?;
        // The last block was filled up with zeros.
        file.set_len(payload.len())
    }

    fn read_past(&self, file: &File, length: u64, pieces: &mut Pieces) -> io::Result<()> {
        set_caching(file, Caching::Past)?;
        self.with_buffer(|buffer| buffer.carry_out(file, length, pieces))
    }

    fn with_buffer<T>(&self, work: impl FnOnce(&mut Buffer) -> T) -> T {
        let kept = self.buffers.lock().pop();
        let mut buffer = kept.unwrap_or_else(Buffer::new);
        let done = work(&mut buffer);
        self.keep(buffer);
        done
    }

    fn keep(&self, buffer: Buffer) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_KEPT {
            buffers.push(buffer);
        }
    }
}

/// Whether the bytes of a file go through the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caching {
    Through,
    Past,
}

#[cfg(target_os = "linux")]
fn set_caching(file: &File, caching: Caching) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, caching == Caching::Past);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_caching(_: &File, caching: Caching) -> io::Result<()> {
    match caching {
        Caching::Through => Ok(()),
        Caching::Past => Err(Errno::INVAL.into()),
    }
}

/// Whether the file system does not do this, or not at our alignment.
fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

/// Memory that a disk can fetch from.
struct Buffer {
    bytes: Vec<u8>,
    /// Where the aligned part begins.
    start: usize,
    filled: usize,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; BUFFER_BYTES + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, filled: 0 }
    }

    /// The aligned part.
    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BUFFER_BYTES]
    }

    /// Writes all pieces, and zeros up to the end of a block.
    fn carry_in(&mut self, file: &mut File, pieces: &[Bytes]) -> io::Result<()> {
        self.filled = 0;
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(BUFFER_BYTES - self.filled));
                let from = self.filled;
                self.room()[from..from + now.len()].copy_from_slice(now);
                self.filled += now.len();
                rest = later;
                if self.filled == BUFFER_BYTES {
                    self.flush(file)?;
                }
            }
        }
        self.flush(file)
    }

    fn flush(&mut self, file: &mut File) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        let end = filled.next_multiple_of(ALIGNMENT);
        let room = self.room();
        room[filled..end].fill(0);
        file.write_all(&room[..end])
    }

    /// Reads a range, from the block that holds its begin to the one that holds its end.
    fn carry_out(&mut self, file: &File, length: u64, pieces: &mut Pieces) -> io::Result<()> {
        let Range { start, end } = pieces.range;
        let mut at = start - start % ALIGNMENT as u64;
        while at < end {
            let wanted = usize::try_from((end - at).next_multiple_of(ALIGNMENT as u64))
                .map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            let read = read_at(file, &mut self.room()[..wanted], at)?;
            let before = usize::try_from(start.saturating_sub(at)).map_or(read, |before| before.min(read));
            pieces.push(&self.room()[before..read]);
            at += read as u64;
            if read == 0 || read % ALIGNMENT != 0 {
                // The end of the file, but for file systems that stop anywhere.
                return if at < end.min(length) { Err(Errno::INVAL.into()) } else { Ok(()) };
            }
        }
        Ok(())
    }
}

/// Room for a range, cut at multiples of a length.
#[derive(Debug)]
pub(super) struct Pieces {
    range: Range<u64>,
    /// Each with the length that it is to have.
    rooms: Vec<(usize, Vec<u8>)>,
    /// How many are full.
    full: usize,
}

impl Pieces {
    /// Takes the room, of which nothing is touched yet; `None` for more than [`READ_BYTES_MAX`], or than there is.
    pub(super) fn new(range: Range<u64>, cut: u64) -> Option<Self> {
        if range.end.saturating_sub(range.start) > READ_BYTES_MAX {
            return None;
        }
        let (mut rooms, mut start) = (Vec::new(), range.start);
        while start < range.end {
            let length = (cut - start % cut).min(range.end - start);
            let (length, mut room) = (usize::try_from(length).ok()?, Vec::new());
            room.try_reserve_exact(length).ok()?;
            rooms.push((length, room));
            start += length as u64;
        }
        Some(Self { range, rooms, full: 0 })
    }

    /// Takes what comes next; what lies behind the range is left out.
    fn push(&mut self, mut bytes: &[u8]) {
        while let (false, Some((length, room))) = (bytes.is_empty(), self.rooms.get_mut(self.full)) {
            let (now, later) = bytes.split_at(bytes.len().min(*length - room.len()));
            room.extend_from_slice(now);
            bytes = later;
            self.full += usize::from(room.len() == *length);
        }
    }

    fn clear(&mut self) {
        self.rooms.iter_mut().for_each(|(_, room)| room.clear());
        self.full = 0;
    }

    /// What came.
    fn finish(self) -> Vec<Bytes> {
        let came = self.rooms.into_iter().filter(|(_, room)| !room.is_empty());
        came.map(|(_, room)| room.into()).collect()
    }
}

fn read_at(file: &File, room: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(room, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn read_through(file: &mut File, pieces: &mut Pieces) -> io::Result<()> {
    file.seek(SeekFrom::Start(pieces.range.start))?;
    for (length, room) in &mut pieces.rooms {
        if (&mut *file).take(*length as u64).read_to_end(room)? < *length {
            // Shorter than a moment ago: the length is checked by the caller.
            break;
        }
    }
    Ok(())
}

fn write_through(file: &mut File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices = Vec::new();
    let mut room = WRITE_BYTES;
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(room));
            slices.push(IoSlice::new(now));
            room -= now.len();
            rest = later;
            if room == 0 || slices.len() == WRITE_SLICES {
                write_slices(file, &mut slices)?;
                slices.clear();
                room = WRITE_BYTES;
            }
        }
    }
    write_slices(file, &mut slices)
}

fn write_slices(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of odd lengths.
    fn payload(length: usize) -> (Payload, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
        (Payload::new(bytes.chunks(70_001).map(Bytes::copy_from_slice).collect()), bytes)
    }

    fn content(mut file: File) -> Vec<u8> {
        set_caching(&file, Caching::Through).unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn written(disk: &Disk, length: usize) -> (File, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        let (payload, bytes) = payload(length);
        disk.write(&mut file, &payload).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_file_holds_what_was_given_and_not_a_byte_more() {
        let disk = Disk::default();
        for length in [
            0,
            1,
            (128 << 10) - 1,
            128 << 10,
            200_000,
            (1 << 20) - 1,
            1 << 20,
            (1 << 20) + 1,
            (3 << 20) - 5,
            (2 << 20) + 4096,
        ] {
            let (file, bytes) = written(&disk, length);
            assert!(content(file) == bytes, "{length} bytes");
        }
        let refused = disk.refused.load(Ordering::Relaxed);
        assert!(refused || disk.buffers.lock().len() == 1, "one after the other, they share a buffer");
    }

    #[test]
    fn any_range_is_read_and_cut_where_it_should_be() {
        const MIB: usize = 1 << 20;
        let length = 3 * MIB - 5;
        let disk = Disk::default();
        let (mut file, bytes) = written(&disk, length);
        let mut read = |start: usize, end: usize, cut: u64| {
            let range = start as u64..end as u64;
            let pieces = || Pieces::new(range.clone(), cut).unwrap();
            let (past, mut through) = (disk.read(&mut file, length as u64, pieces()).unwrap(), pieces());
            set_caching(&file, Caching::Through).unwrap();
            read_through(&mut file, &mut through).unwrap();
            assert!(past == through.finish(), "{start}..{end} by {cut}");
            past.concat()
        };
        for (start, end) in
            [(0, 1), (4095, 4097), (5, 2 * MIB + 9), (MIB, 2 * MIB), (length - 1, length), (7, 7)]
        {
            for cut in [4096, 5_000, 1 << 20, u64::MAX] {
                assert!(read(start, end, cut) == bytes[start..end], "{start}..{end} by {cut}");
            }
        }
        // As if it had been longer when its length was looked at.
        assert!(read(2 * MIB, length + 9_000, 1 << 20) == bytes[2 * MIB..]);
    }

    #[test]
    fn where_writes_past_the_cache_are_refused_all_go_through_it() {
        let disk = Disk::default();
        let mut file = tempfile::tempfile().unwrap();
        let (payload, bytes) = payload(2 << 20);
        // A position that no disk takes, behind more than is to be there.
        file.write_all(&vec![b'x'; (3 << 20) + 1]).unwrap();
        disk.write(&mut file, &payload).unwrap();
        if disk.refused.load(Ordering::Relaxed) {
            assert!(content(file) == bytes);
        }
        let mut next = tempfile::tempfile().unwrap();
        disk.write(&mut next, &payload).unwrap();
        assert!(content(next) == bytes);
    }

    #[test]
    fn a_read_that_stops_within_the_file_goes_through_the_cache() {
        let disk = Disk::default();
        let (mut file, bytes) = written(&disk, 300_001);
        // To the reader, the file goes on.
        let pieces = Pieces::new(5..400_000, 65_536).unwrap();
        assert!(disk.read(&mut file, 400_000, pieces).unwrap().concat() == bytes[5..]);
        assert!(disk.refused.load(Ordering::Relaxed));
    }

    #[test]
    fn no_room_is_taken_for_more_than_any_object_has() {
        for cut in [1 << 16, u64::MAX] {
            assert!(Pieces::new(0..u64::MAX, cut).is_none());
        }
    }

    #[test]
    fn more_than_one_write_takes_is_written_in_order() {
        let small = (0..2_000u32).map(|n| Bytes::from(n.to_le_bytes().to_vec()));
        let large = (0..9u8).map(|n| Bytes::from(vec![n; WRITE_BYTES / 4 * usize::from(n)]));
        let pieces: Vec<Bytes> = small.chain(large).collect();
        let mut file = tempfile::tempfile().unwrap();
        write_through(&mut file, &pieces).unwrap();
        assert_eq!(content(file), pieces.concat());
    }
}
