//! The machine's randomness, for libraries that draw it past every seam: the order in which hash maps are walked, above
//! all. Without this a seed would not decide in which order an actor's children stop, or what an error message weighs.
//!
//! The standard library and every crate call `getrandom` of the C library, and the executable's own symbol comes before
//! that. Nothing here is secret.

#![expect(unsafe_code, reason = "a symbol of the C library is replaced, with its signature")]

use std::sync::atomic::{AtomicU64, Ordering};

/// Odd, so that the sequence runs through all numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

static DRAWN: AtomicU64 = AtomicU64::new(0);

/// The next number of the one sequence of this process.
fn next() -> u64 {
    let mut word = DRAWN.fetch_add(STEP, Ordering::Relaxed);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// As getrandom(2): fills all of the buffer and returns its length. `flags` ask for a source and are not needed here.
///
/// # Safety
/// As the function of the C library: `length` bytes at `buffer` may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller promises that the memory is there and its own.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<std::mem::MaybeUninit<u8>>(), length) };
    for part in bytes.chunks_mut(size_of::<u64>()) {
        for (place, byte) in part.iter_mut().zip(next().to_le_bytes()) {
            place.write(byte);
        }
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    /// Two maps of one process have different orders, as ever, but it is the sequence of this process that decides.
    #[test]
    fn hash_maps_draw_from_here() {
        let before = super::DRAWN.load(super::Ordering::Relaxed);
        let hash = std::thread::spawn(|| RandomState::new().hash_one(7)).join().expect("it ends");
        assert_ne!(before, super::DRAWN.load(super::Ordering::Relaxed));
        assert_ne!(hash, RandomState::new().hash_one(7));
    }
}
