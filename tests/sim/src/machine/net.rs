//! Sockets of a simulated host.
//!
//! The simulated network loses messages without ever sending them again, as if a firewall had forgotten the connection.
//! What real TCP does with a lost packet, to wait and send it again while everything behind it waits too, is added here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use streamhouse_env::{Connection, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::{TcpListener, TcpStream};

use super::Disk;
use crate::seed::Dice;

/// First wait before a lost packet is sent again, as Linux has it.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// The state of all wires.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    /// How many of a million packets are lost and sent again.
    pub(crate) loss_ppm: Arc<AtomicU64>,
    /// How many were.
    pub(crate) lost: Arc<AtomicU64>,
}

/// The sockets of one host.
#[derive(Debug)]
pub(crate) struct SimNet {
    wire: Wire,
    /// What tells whether the host has power: without, nothing leaves it any more.
    disk: Disk,
    dice: Dice,
}

impl SimNet {
    pub(crate) fn new(wire: Wire, disk: Disk, dice: Dice) -> Self {
        Self { wire, disk, dice }
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr) -> Connection {
        Connection::new(
            Lossy {
                stream,
                peer,
                wire: self.wire.clone(),
                disk: self.disk.clone(),
                dice: self.dice.clone(),
                wait: None,
            },
            peer,
        )
    }
}

#[async_trait]
impl Net for SimNet {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let listener = TcpListener::bind(any).await?;
        let net = Self { wire: self.wire.clone(), disk: self.disk.clone(), dice: self.dice.clone() };
        Ok(Box::new(Door { listener, net }))
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let no_address = || io::Error::from(io::ErrorKind::InvalidInput);
        let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
        let port: u16 = port.parse().map_err(|_| no_address())?;
        tracing::trace!(to = address, "connect");
        let stream = match TcpStream::connect((host, port)).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::trace!(to = address, %error, "not connected");
                // The simulated network says so in no time. A real one needs the way there and back, or is silent.
                #[expect(clippy::disallowed_methods, reason = "this is the seam")]
                tokio::time::sleep(Duration::from_millis(self.dice.magnitude(2, 1_000))).await;
                return Err(error);
            }
        };
        let peer = stream.peer_addr()?;
        Ok(self.connection(stream, peer))
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }

    fn is_machine(&self) -> bool {
        false
    }
}

/// The sockets of a host that reaches one address only.
#[derive(Debug)]
pub(crate) struct OnlyTo {
    pub(crate) net: Arc<dyn Net>,
    pub(crate) address: String,
}

#[async_trait]
impl Net for OnlyTo {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.net.listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        if address != self.address {
            return Err(io::Error::from(io::ErrorKind::HostUnreachable));
        }
        self.net.connect(address).await
    }

    fn is_machine(&self) -> bool {
        self.net.is_machine()
    }
}

struct Door {
    listener: TcpListener,
    net: SimNet,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("address", &self.listener.local_addr()).finish()
    }
}

#[async_trait]
impl Listener for Door {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept(&self) -> io::Result<Connection> {
        let (stream, peer) = self.listener.accept().await?;
        Ok(self.net.connection(stream, peer))
    }
}

/// A stream that now and then has to send something again.
struct Lossy {
    stream: TcpStream,
    peer: SocketAddr,
    wire: Wire,
    disk: Disk,
    dice: Dice,
    /// Until the lost packet is through.
    wait: Option<Pin<Box<Sleep>>>,
}

impl Lossy {
    /// How long the next packet takes beyond the way itself, when it is lost.
    fn draw(&self) -> Option<Duration> {
        let loss = self.wire.loss_ppm.load(Ordering::Relaxed);
        if loss == 0 || !self.dice.chance(loss) {
            return None;
        }
        let mut wait = RETRANSMIT;
        while self.dice.chance(loss) {
            wait *= 2;
        }
        self.wire.lost.fetch_add(1, Ordering::Relaxed);
        Some(wait)
    }

    fn poll_through(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wait.is_none() {
            let Some(wait) = self.draw() else { return Poll::Ready(()) };
            #[expect(clippy::disallowed_methods, reason = "this is the seam")]
            let sleep = tokio::time::sleep(wait);
            self.wait = Some(Box::pin(sleep));
        }
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
        }
        self.wait = None;
        Poll::Ready(())
    }
}

impl AsyncRead for Lossy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        tracing::trace!(peer = %self.peer, bytes = buf.filled().len() - before, ok = outcome.is_ok(), "read");
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Lossy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Nobody is woken: the host ends with this step.
        if self.disk.is_without_power() {
            return Poll::Pending;
        }
        ready!(self.poll_through(cx));
        let outcome = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        tracing::trace!(peer = %self.peer, bytes = bytes.len(), ok = outcome.is_ok(), "write");
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.disk.is_without_power() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
