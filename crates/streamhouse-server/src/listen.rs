//! Listening sockets: bound before anything is served, bounded in connections, watched.

mod silence;
mod windows;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use streamhouse_env::{Clock, Connection, Env, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::health::Heart;
use crate::telemetry::CONNECTIONS;
use silence::Silence;
pub(crate) use windows::{Window, Windows};

/// After an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// How often an idle accept loop shows that it is alive.
const BEAT: Duration = Duration::from_secs(5);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The setting.
    pub key: &'static str,
    /// The address.
    pub address: String,
    /// What the system says.
    pub source: io::Error,
}

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: Box<dyn Listener>,
    address: SocketAddr,
}

impl Socket {
    /// Binds `address`, the value of the setting `key`.
    pub(crate) async fn bind(env: &Env, key: &'static str, address: &str) -> Result<Self, ListenError> {
        let refused = |source| ListenError { key, address: address.to_owned(), source };
        let parsed = address.parse().map_err(|_| refused(io::ErrorKind::InvalidInput.into()))?;
        let listener = env.net.listen(parsed).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// The address in use.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections, at most `limit` at a time: further ones wait in the system's queue. One over which nothing
    /// moves for `pause` is ended, so that a peer that has gone without a word keeps its place no longer.
    pub(crate) fn accept(
        self,
        name: &'static str,
        (limit, pause): (usize, Duration),
        clock: Arc<dyn Clock>,
        heart: Heart,
    ) -> Acceptor {
        let room = Arc::new(Semaphore::new(limit));
        Acceptor { listener: self.listener, address: self.address, name, room, pause, clock, heart }
    }
}

/// The accept loop of one socket.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Box<dyn Listener>,
    address: SocketAddr,
    name: &'static str,
    room: Arc<Semaphore>,
    pause: Duration,
    clock: Arc<dyn Clock>,
    heart: Heart,
}

impl Acceptor {
    /// The next connection. Cancel-safe.
    pub(crate) async fn next(&self) -> Incoming {
        loop {
            self.heart.beat();
            tokio::select! {
                accepted = self.accept_one() => match accepted {
                    Ok(incoming) => return incoming,
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "a connection was not accepted");
                        self.clock.sleep(PAUSE).await;
                    }
                },
                () = self.clock.sleep(BEAT) => {}
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Incoming> {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed");
        let connection = self.listener.accept().await?;
        let count = ListenerCount::new(self.name);
        let silence = Silence::new(Arc::clone(&self.clock), self.pause);
        let ended = CancellationToken::new().drop_guard();
        Ok(Incoming { connection, local: self.address, silence, ended, _room: room, _count: count })
    }

    /// The connections as the stream that tonic wants.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Incoming>> {
        futures::stream::unfold(self, |acceptor| async move {
            let incoming = acceptor.next().await;
            Some((Ok(incoming), acceptor))
        })
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Incoming;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let incoming = self.next().await;
        let peer = incoming.connection.peer_addr();
        (incoming, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// An accepted connection with its place among the connections.
#[derive(Debug)]
pub(crate) struct Incoming {
    connection: Connection,
    local: SocketAddr,
    silence: Silence,
    ended: DropGuard,
    _room: OwnedSemaphorePermit,
    _count: ListenerCount,
}

/// One more in the gauge of open connections, for as long as it lives.
#[derive(Debug)]
struct ListenerCount(&'static str);

impl ListenerCount {
    fn new(listener: &'static str) -> Self {
        metrics::gauge!(CONNECTIONS, "listener" => listener).increment(1.0);
        Self(listener)
    }
}

impl Drop for ListenerCount {
    fn drop(&mut self) {
        metrics::gauge!(CONNECTIONS, "listener" => self.0).decrement(1.0);
    }
}

impl Connected for Incoming {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        TcpConnectInfo { local_addr: Some(self.local), remote_addr: Some(self.connection.peer_addr()) }
    }
}

impl Incoming {
    /// The other end.
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.connection.peer_addr()
    }

    /// Cancelled when the connection has ended.
    pub(crate) fn ended(&self) -> &CancellationToken {
        self.ended.token()
    }

    /// Notes what has moved; while nothing can, ends the connection when that lasts too long.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        note: impl FnOnce(&T, &mut Silence),
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Ok(done)) => {
                note(&done, &mut self.silence);
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.silence.poll_too_long(cx).map(Err),
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.watched(cx, polled, |bytes, silence| {
            if *bytes > 0 {
                silence.taken();
            }
        })
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.connection).poll_read(cx, buf);
        let after = buf.filled().len();
        self.watched(cx, polled, |(), silence| {
            if after > before {
                silence.heard();
            }
        })
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.connection).poll_write_vectored(cx, slices);
        self.written(cx, polled)
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
