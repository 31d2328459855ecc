//! The links between nodes, cut by pair and by direction.
//!
//! Each node listens on a loopback address of its own, 127.0.0.x, and speaks from it. The others reach it through a
//! gate, the address that it tells them. The gate knows by the source address who speaks, so it can stop what one node
//! says to another and let the answer pass, or the other way round.
//!
//! A cut behaves as a network that drops packets, not as one that says so: connections stay open, what was sent waits and
//! comes late, once the link is whole again, and no new connection comes to be while either direction is cut.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const PIECE_BYTES: usize = 64 << 10;

/// What one node says to another: from whom, to whom.
type Direction = (IpAddr, IpAddr);

/// The links between some nodes, all whole at first. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Links {
    cut: Arc<watch::Sender<BTreeSet<Direction>>>,
}

/// The door to one node. It closes, and cuts its connections, when it is dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    /// Aborted when it is dropped.
    _tasks: JoinSet<()>,
}

impl Gate {
    /// What the node tells the others.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Links {
    /// Opens a gate to the node that listens at `target`, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn gate(&self, target: SocketAddr) -> io::Result<Gate> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, self.clone()));
        Ok(Gate { address, _tasks: tasks })
    }

    /// From now on nothing that `from` says reaches `to`.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.cut.send_if_modified(|cut| cut.insert((from, to)));
    }

    /// Makes all links whole: what waited arrives now.
    pub fn mend(&self) {
        self.cut.send_modify(BTreeSet::clear);
    }

    /// Waits until none of these directions is cut.
    async fn open(&self, directions: &[Direction]) {
        let mut cut = self.cut.subscribe();
        // The sender is ours, so it is there.
        let _ = cut.wait_for(|cut| directions.iter().all(|direction| !cut.contains(direction))).await;
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, links: Links) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((caller, from)) = accepted {
                    connections.spawn(connect(caller, (from.ip(), target), links.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(caller: TcpStream, (from, target): (IpAddr, SocketAddr), links: Links) {
    let (there, back) = ((from, target.ip()), (target.ip(), from));
    links.open(&[there, back]).await;
    let Ok(called) = TcpStream::connect(target).await else { return };
    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
    let (caller_says, caller_hears) = caller.into_split();
    let (called_says, called_hears) = called.into_split();
    tokio::join!(
        pass(caller_says, called_hears, there, &links),
        pass(called_says, caller_hears, back, &links)
    );
}

/// Passes on one direction until it ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Direction,
    links: &Links,
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await;
        links.open(&[way]).await;
        match read {
            Ok(0) | Err(_) => break,
            Ok(bytes) => {
                if to.write_all(&piece[..bytes]).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpSocket;

    use super::*;

    const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 21));
    const CALLED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 22));
    /// Long enough for bytes to cross loopback, if anything lets them.
    const MOMENT: Duration = Duration::from_millis(100);

    async fn call(gate: &Gate) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(CALLER, 0)).unwrap();
        socket.connect(gate.address()).await.unwrap()
    }

    async fn hears(stream: &mut TcpStream, text: &[u8]) {
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, text);
    }

    async fn hears_nothing(stream: &mut TcpStream) {
        let mut byte = [0];
        assert!(tokio::time::timeout(MOMENT, stream.read(&mut byte)).await.is_err(), "something was heard");
    }

    async fn pair() -> (Links, Gate, TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind((CALLED, 0)).await.unwrap();
        let links = Links::default();
        let gate = links.gate(listener.local_addr().unwrap()).await.unwrap();
        let caller = call(&gate).await;
        let (called, _) = listener.accept().await.unwrap();
        (links, gate, listener, caller, called)
    }

    #[tokio::test]
    async fn one_direction_is_cut_the_other_passes_and_what_waited_comes_late() {
        let (links, _gate, _listener, mut caller, mut called) = pair().await;
        for (from, to) in [(CALLER, CALLED), (CALLED, CALLER)] {
            let (mute, listener) =
                if from == CALLER { (&mut caller, &mut called) } else { (&mut called, &mut caller) };
            links.cut(from, to);
            mute.write_all(b"late").await.unwrap();
            listener.write_all(b"in time").await.unwrap();
            hears(mute, b"in time").await;
            hears_nothing(listener).await;
            links.mend();
            hears(listener, b"late").await;
        }
    }

    #[tokio::test]
    async fn no_connection_comes_to_be_over_half_a_link_and_others_are_not_harmed() {
        let (links, gate, listener, _caller, _called) = pair().await;
        links.cut(CALLED, CALLER);
        let mut caller = call(&gate).await;
        caller.write_all(b"hello").await.unwrap();
        let mut other = TcpStream::connect(gate.address()).await.unwrap();
        other.write_all(b"other").await.unwrap();
        let (mut called, _) = listener.accept().await.unwrap();
        hears(&mut called, b"other").await;
        assert!(tokio::time::timeout(MOMENT, listener.accept()).await.is_err(), "the caller came through");
        links.mend();
        let (mut called, _) = listener.accept().await.unwrap();
        hears(&mut called, b"hello").await;
    }

    #[tokio::test]
    async fn the_end_of_a_connection_passes_as_well() {
        let (_links, _gate, _listener, caller, mut called) = pair().await;
        drop(caller);
        let mut rest = Vec::new();
        called.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }
}
