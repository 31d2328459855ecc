//! A TCP proxy that delays, stalls and cuts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use streamhouse_env::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How many pieces are on their way in each direction at most.
const PIECES_IN_FLIGHT: usize = 256;
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Line {
    delay_micros: AtomicU64,
    stalled: watch::Sender<bool>,
    /// Counts up when all connections are cut.
    cuts: watch::Sender<u64>,
}

/// A proxy in front of one address. It stops, and cuts its connections, when it is dropped.
#[derive(Debug)]
pub struct DelayProxy {
    address: SocketAddr,
    line: Arc<Line>,
    /// Aborted when it is dropped.
    _tasks: JoinSet<()>,
}

impl DelayProxy {
    /// Starts a proxy on a free port of loopback. What it passes on arrives `delay` later, in each direction; the
    /// delay does not limit the throughput.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let line = Arc::new(Line {
            delay_micros: AtomicU64::new(micros(delay)),
            stalled: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, line.clone()));
        Ok(Self { address, line, _tasks: tasks })
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the delay, for what is read from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.line.delay_micros.store(micros(delay), Ordering::Relaxed);
    }

    /// From now on nothing passes; connections stay open.
    pub fn stall(&self) {
        self.line.stalled.send_replace(true);
    }

    /// Ends [`stall`](Self::stall).
    pub fn resume(&self) {
        self.line.stalled.send_replace(false);
    }

    /// Cuts all connections; new ones are taken.
    pub fn cut(&self) {
        self.line.cuts.send_modify(|cuts| *cuts += 1);
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)
}

async fn accept(listener: TcpListener, target: SocketAddr, line: Arc<Line>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(connect(client, target, line.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(client: TcpStream, target: SocketAddr, line: Arc<Line>) {
    let mut cuts = line.cuts.subscribe();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let both = async {
        tokio::join!(pass(client_read, server_write, &line), pass(server_read, client_write, &line));
    };
    tokio::select! {
        () = both => {}
        _ = cuts.changed() => {}
    }
}

/// Passes on one direction until it ends.
async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, line: &Line) {
    let (sender, mut receiver) = mpsc::channel::<(Duration, Bytes)>(PIECES_IN_FLIGHT);
    let read = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let due = SystemClock.now() + Duration::from_micros(line.delay_micros.load(Ordering::Relaxed));
            if sender.send((due, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        let mut stalled = line.stalled.subscribe();
        while let Some((due, piece)) = receiver.recv().await {
            SystemClock.sleep_until(due).await;
            let _ = stalled.wait_for(|stalled| !stalled).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back what it gets.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        (address, tasks)
    }

    async fn ask(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn what_passes_comes_late_and_whole() {
        let (target, _tasks) = echo().await;
        let proxy = DelayProxy::start(target, Duration::from_millis(20)).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let start = SystemClock.now();
        assert_eq!(ask(&mut stream, b"hello").await.unwrap(), b"hello");
        assert!(SystemClock.now() - start >= Duration::from_millis(40));
        proxy.set_delay(Duration::ZERO);
        let long = vec![7; 1 << 20];
        let (mut read, mut write) = stream.split();
        let (sent, received) = tokio::join!(write.write_all(&long), async {
            let mut answer = vec![0; long.len()];
            read.read_exact(&mut answer).await.map(|_| answer)
        });
        sent.unwrap();
        assert_eq!(received.unwrap(), long);
    }

    #[tokio::test]
    async fn a_cut_ends_the_connections_and_new_ones_work() {
        let (target, _tasks) = echo().await;
        let proxy = DelayProxy::start(target, Duration::ZERO).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream, b"x").await.unwrap();
        proxy.cut();
        assert!(ask(&mut stream, b"x").await.is_err());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"x").await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn nothing_passes_a_stalled_proxy_until_it_resumes() {
        let (target, _tasks) = echo().await;
        let proxy = DelayProxy::start(target, Duration::ZERO).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream, b"x").await.unwrap();
        proxy.stall();
        stream.write_all(b"y").await.unwrap();
        let mut answer = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut answer)).await;
        assert!(early.is_err());
        proxy.resume();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"y");
    }
}
