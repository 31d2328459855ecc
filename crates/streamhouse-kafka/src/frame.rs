//! Frames: a length, and so many bytes.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use streamhouse_env::Clock;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Api;

/// Longest frame with batches.
pub(crate) const PRODUCE_BYTES_MAX: usize = 100 << 20;
/// Longest frame of any other request.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Shortest frame: key, version and correlation.
const FRAME_BYTES_MIN: usize = 8;
/// Key and version, which are read before anything is allocated.
const PREFIX_BYTES: usize = 4;
/// How long a frame may take to arrive that is not large, and how many bytes of a large one must come in each second
/// beyond it.
const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Longest time without a byte of a frame that was begun. The node keeps room free for what was announced: a client that has
/// gone must not hold it for long.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Why a connection ends that did not send a proper frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// No request is that long or that short.
    #[error("a frame of {length} bytes is refused")]
    Length { length: i32 },
    /// No such request is answered in such a version.
    #[error("version {version} of request {key} is not answered")]
    Unsupported { key: i16, version: i16 },
    /// It did not arrive in time.
    #[error("the frame did not arrive in time")]
    Slow,
    /// The connection.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is known of a frame before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) api: Api,
    pub(crate) version: i16,
    /// Bytes that follow.
    pub(crate) bytes: usize,
}

impl Announced {
    /// Judges a frame by its length and its first four bytes.
    fn judge(length: i32, prefix: [u8; PREFIX_BYTES]) -> Result<Self, FrameError> {
        let [k0, k1, v0, v1] = prefix;
        let (key, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
        let unsupported = FrameError::Unsupported { key, version };
        let api = Api::of_key(key).ok_or(unsupported)?;
        if !api.serves(version) && (api != Api::ApiVersions || version < 0) {
            return Err(FrameError::Unsupported { key, version });
        }
        let most = if api == Api::Produce { PRODUCE_BYTES_MAX } else { FRAME_BYTES_MAX };
        match usize::try_from(length) {
            Ok(whole) if (FRAME_BYTES_MIN..=most).contains(&whole) => {
                Ok(Self { api, version, bytes: whole - PREFIX_BYTES })
            }
            _ => Err(FrameError::Length { length }),
        }
    }
}

/// Reads the length of the next frame and its first bytes; `None` when the peer has ended the connection between two
/// frames. Waits for the first byte without limit. Not cancel-safe, unless the connection ends with it.
pub(crate) async fn announced(
    io: &mut (impl AsyncRead + Unpin),
    clock: &dyn Clock,
) -> Result<Option<Announced>, FrameError> {
    let mut length = [0; 4];
    if io.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    within(clock, PATIENCE, async {
        io.read_exact(&mut length[1..]).await?;
        let length = i32::from_be_bytes(length);
        if !(8..=i32::MAX).contains(&length) {
            return Err(FrameError::Length { length });
        }
        let mut prefix = [0; PREFIX_BYTES];
        io.read_exact(&mut prefix).await?;
        Announced::judge(length, prefix).map(Some)
    })
    .await
}

/// Reads the rest of a frame.
pub(crate) async fn body(
    io: &mut (impl AsyncRead + Unpin),
    announced: Announced,
    clock: &dyn Clock,
) -> Result<Bytes, FrameError> {
    let extra = Duration::from_secs(announced.bytes as u64 / BYTES_PER_SECOND_MIN);
    within(clock, PATIENCE + extra, async {
        // Large buffers are given memory by the system as they fill, so one that only announces much takes nothing.
        let mut bytes = BytesMut::with_capacity(announced.bytes);
        let mut left = io.take(announced.bytes as u64);
        while bytes.len() < announced.bytes {
            let read = tokio::select! {
                biased;
                read = left.read_buf(&mut bytes) => read?,
                () = clock.sleep(STANDSTILL) => return Err(FrameError::Slow),
            };
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(bytes.freeze())
    })
    .await
}

async fn within<T>(
    clock: &dyn Clock,
    patience: Duration,
    work: impl Future<Output = Result<T, FrameError>>,
) -> Result<T, FrameError> {
    tokio::select! {
        done = work => done,
        () = clock.sleep(patience) => Err(FrameError::Slow),
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_env::SystemClock;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<(Announced, Bytes)>, FrameError> {
        let mut io = bytes;
        let Some(found) = announced(&mut io, &SystemClock).await? else { return Ok(None) };
        let body = body(&mut io, found, &SystemClock).await?;
        Ok(Some((found, body)))
    }

    #[tokio::test]
    async fn a_frame_is_read_to_its_end_and_no_further() {
        let bytes = b"\x00\x00\x00\x0a\x00\x12\x00\x03\x00\x00\x00\x01abNEXT";
        let (found, body) = read(bytes).await.expect("a frame").expect("not the end");
        assert_eq!(found, Announced { api: Api::ApiVersions, version: 3, bytes: 6 });
        assert_eq!(&body[..], b"\x00\x00\x00\x01ab");
        assert!(read(b"").await.expect("the end").is_none());
        assert!(matches!(read(&bytes[..7]).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&bytes[..13]).await, Err(FrameError::Io(_))));
    }

    #[tokio::test]
    async fn lengths_that_no_request_has_are_refused() {
        let frame = |length: i32, key: i16, version: i16| {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend(key.to_be_bytes());
            bytes.extend(version.to_be_bytes());
            bytes
        };
        for (length, key) in
            [(-1, 3), (0, 3), (7, 3), (i32::MAX, 0), (i32::MIN, 0), (104_857_601, 0), (1_048_577, 3)]
        {
            let refused = read(&frame(length, key, 5)).await;
            assert!(matches!(refused, Err(FrameError::Length { .. })), "{length} {key}: {refused:?}");
        }
        for (key, version) in [(3, 99), (3, -1), (0, 2), (999, 0), (-1, 0), (18, -1)] {
            let refused = read(&frame(100, key, version)).await;
            assert!(matches!(refused, Err(FrameError::Unsupported { .. })), "{key} {version}: {refused:?}");
        }
        let newer = announced(&mut &frame(100, 18, 99)[..], &SystemClock).await.expect("taken");
        assert_eq!(newer.map(|found| found.version), Some(99));
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_now_and_then_is_not_enough() {
        let (mut theirs, mut ours) = tokio::io::duplex(64);
        theirs.write_all(b"\x00").await.expect("written");
        assert!(matches!(announced(&mut ours, &SystemClock).await, Err(FrameError::Slow)));

        let (mut theirs, mut ours) = tokio::io::duplex(64);
        let dripping = async {
            theirs.write_all(b"\x00\x00\x00\x64\x00\x03\x00\x05").await.expect("written");
            loop {
                SystemClock.sleep(Duration::from_secs(1)).await;
                theirs.write_all(b"x").await.expect("written");
            }
        };
        let reading = async {
            let found = announced(&mut ours, &SystemClock).await.expect("announced").expect("not the end");
            body(&mut ours, found, &SystemClock).await
        };
        tokio::select! {
            read = reading => assert!(matches!(read, Err(FrameError::Slow)), "{read:?}"),
            () = dripping => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_within_a_frame_is_soon_given_up() {
        let (mut theirs, mut ours) = tokio::io::duplex(64);
        theirs.write_all(b"\x06\x40\x00\x00\x00\x00\x00\x09abc").await.expect("written");
        let found = announced(&mut ours, &SystemClock).await.expect("announced").expect("not the end");
        let begun = SystemClock.now();
        let read = body(&mut ours, found, &SystemClock).await;
        assert!(matches!(read, Err(FrameError::Slow)), "{read:?}");
        assert_eq!(SystemClock.now() - begun, STANDSTILL);
    }
}
