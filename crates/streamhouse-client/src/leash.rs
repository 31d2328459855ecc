//! Connections that end with the last that uses them.
//!
//! A transport keeps a connection as long as a stream on it is open, and a stream that was given up stays open while the
//! other side does not read what was sent in it: its end stands in the queue behind that. So whoever gives up a node that
//! waits would leave a connection there each time, with all that the node has received and not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use streamhouse_env::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Holds connections. They are cut when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Leash {
    _cuts: Arc<DropGuard>,
}

/// What ties connections to a [`Leash`] without being one.
#[derive(Debug, Clone)]
pub(crate) struct Collar(CancellationToken);

impl Leash {
    pub(crate) fn new() -> (Self, Collar) {
        let token = CancellationToken::new();
        (Self { _cuts: Arc::new(token.clone().drop_guard()) }, Collar(token))
    }
}

impl Collar {
    pub(crate) fn tie(&self, connection: Connection) -> Leashed {
        Leashed { connection, cut: Box::pin(self.0.clone().cancelled_owned()) }
    }
}

/// A connection on a leash: once that is gone, nothing more is read from it, which ends it.
pub(crate) struct Leashed {
    connection: Connection,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Leashed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.connection).poll_read(cx, into)
    }
}

impl AsyncWrite for Leashed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}
