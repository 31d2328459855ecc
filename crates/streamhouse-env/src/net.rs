//! Sockets.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Makes connections and takes them.
#[async_trait]
pub trait Net: fmt::Debug + Send + Sync + 'static {
    /// Listens on `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is in use or not this machine's.
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to `address`, a `host:port`. Has no deadline of its own. Cancel-safe.
    ///
    /// # Errors
    /// When the name is unknown or nobody answers there.
    async fn connect(&self, address: &str) -> io::Result<Connection>;

    /// The addresses that `address`, a `host:port`, stands for; one for most, several for a name that machines share. Has
    /// no deadline of its own. Cancel-safe.
    ///
    /// # Errors
    /// When the name is unknown.
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(address).await?.collect())
    }

    /// Whether these are the machine's own sockets, so that a library which opens sockets by itself comes out at the same
    /// places. Only what is simulated says no.
    fn is_machine(&self) -> bool {
        true
    }
}

/// Takes the connections of one address.
#[async_trait]
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// The address it listens on, with the port that was picked.
    ///
    /// # Errors
    /// When the operating system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// Such as too many open files: the caller waits a little and goes on.
    async fn accept(&self) -> io::Result<Connection>;
}

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A byte stream to a peer.
pub struct Connection {
    io: Box<dyn Io>,
    peer: SocketAddr,
}

impl Connection {
    /// Wraps a stream from `peer`.
    #[must_use]
    pub fn new(io: impl Io, peer: SocketAddr) -> Self {
        Self { io: Box::new(io), peer }
    }

    /// The other end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// TCP, with Nagle's delay off.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

#[async_trait]
impl Net for TcpNet {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(address).await?))
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        connection(TcpStream::connect(address).await?)
    }
}

/// TCP as [`TcpNet`], whose connections come from one address of this machine: whoever is called, and every firewall
/// between, knows by it who calls. Peers that cannot be reached from that address, because they are of the other family
/// or because only one of the two is on loopback, are called from whichever address the machine chooses.
#[derive(Debug, Clone, Copy)]
pub struct TcpNetFrom(IpAddr);

impl TcpNetFrom {
    /// Calls from `own`, which has to be an address of this machine and no wildcard.
    #[must_use]
    pub fn new(own: IpAddr) -> Self {
        Self(own)
    }

    fn suits(self, target: IpAddr) -> bool {
        self.0.is_ipv4() == target.is_ipv4() && self.0.is_loopback() == target.is_loopback()
    }

    async fn call(self, target: SocketAddr) -> io::Result<TcpStream> {
        if !self.suits(target.ip()) {
            return TcpStream::connect(target).await;
        }
        let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Else a connection that is gone could keep a listener from coming back at its port.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(self.0, 0))?;
        socket.connect(target).await
    }
}

#[async_trait]
impl Net for TcpNetFrom {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        TcpNet.listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
        for target in tokio::net::lookup_host(address).await? {
            match self.call(target).await {
                Ok(stream) => return connection(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn connection(stream: TcpStream) -> io::Result<Connection> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    Ok(Connection::new(stream, peer))
}

#[async_trait]
impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    async fn accept(&self) -> io::Result<Connection> {
        let (stream, peer) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(Connection::new(stream, peer))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn all_real_sockets_are_the_machines_so_that_stores_are_reached_with_tls() {
        let own = TcpNetFrom::new(IpAddr::from([127, 0, 0, 1]));
        assert!(TcpNet.is_machine() && own.is_machine());
    }

    #[tokio::test]
    async fn bytes_cross_a_connection() {
        let listener = TcpNet.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (ours, theirs) = tokio::join!(TcpNet.connect(&address), listener.accept());
        let (mut ours, mut theirs) = (ours.expect("connected"), theirs.expect("accepted"));
        ours.write_all(b"hello").await.expect("written");
        let mut seen = [0; 5];
        theirs.read_exact(&mut seen).await.expect("read");
        assert_eq!(&seen, b"hello");
        assert_eq!(ours.peer_addr().to_string(), address);
    }

    #[tokio::test]
    async fn a_node_speaks_from_its_own_address_to_whom_it_can() {
        let listener = TcpNet.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        // The second cannot be the source of a connection to loopback.
        for (own, seen) in [("127.0.0.9", "127.0.0.9"), ("192.0.2.1", "127.0.0.1"), ("::1", "127.0.0.1")] {
            let net = TcpNetFrom::new(own.parse().expect("an address"));
            let (ours, theirs) = tokio::join!(net.connect(&address), listener.accept());
            ours.expect("connected");
            assert_eq!(theirs.expect("accepted").peer_addr().ip().to_string(), seen, "from {own}");
        }
    }
}
