//! How long nothing may move over a connection before it is given up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use streamhouse_env::Clock;

/// Who connects says something within this time.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Measures how long nothing has moved.
pub(super) struct Silence {
    clock: Arc<dyn Clock>,
    /// How long who has spoken may pause.
    pause: Duration,
    /// Whether the peer has ever said anything.
    spoken: bool,
    /// When it is too long, should nothing move until then.
    deadline: Duration,
    /// Sleeps to an earlier deadline, or to this one: it is not set anew with every byte.
    alarm: Option<BoxFuture<'static, ()>>,
}

impl Silence {
    /// Begins with a new connection.
    pub(super) fn new(clock: Arc<dyn Clock>, pause: Duration) -> Self {
        let deadline = clock.now().saturating_add(FIRST_BYTE);
        Self { clock, pause, spoken: false, deadline, alarm: None }
    }

    /// The peer said something: it begins anew.
    pub(super) fn heard(&mut self) {
        self.spoken = true;
        self.deadline = self.clock.now().saturating_add(self.pause);
    }

    /// The peer took something: it begins anew, unless nobody knows yet that a peer is there. HTTP/2 speaks unasked.
    pub(super) fn taken(&mut self) {
        if self.spoken {
            self.heard();
        }
    }

    /// Ready, with the error to end the connection with, when it has lasted too long.
    pub(super) fn poll_too_long(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let alarm = self.alarm.get_or_insert_with(|| {
                let (clock, deadline) = (Arc::clone(&self.clock), self.deadline);
                Box::pin(async move { clock.sleep_until(deadline).await })
            });
            ready!(alarm.as_mut().poll(cx));
            self.alarm = None;
            if self.clock.now() >= self.deadline {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_env::{Connection, Env};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::health::Health;
    use crate::listen::{Acceptor, Socket};

    const PAUSE: Duration = Duration::from_secs(60);

    /// A listener with room for one connection.
    async fn narrow(env: &Env) -> (Acceptor, String) {
        let socket = Socket::bind(env, "listeners.http", "127.0.0.1:0").await.expect("a free port");
        let address = socket.address().to_string();
        let heart = Health::new(Arc::clone(&env.clock)).watch("test");
        (socket.accept("test", (1, PAUSE), Arc::clone(&env.clock), heart), address)
    }

    async fn connect(env: &Env, address: &str) -> Connection {
        env.net.connect(address).await.expect("connected")
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_gives_its_place_to_the_next() {
        let env = Env::system();
        let (acceptor, address) = narrow(&env).await;
        let _silent = connect(&env, &address).await;
        let mut next = connect(&env, &address).await;
        next.write_all(b"x").await.expect("written");

        let mut first = acceptor.next().await;
        first.write_all(b"what a server says first").await.expect("written");
        let begun = env.clock.now();
        let error = first.read_u8().await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((FIRST_BYTE..PAUSE).contains(&(env.clock.now() - begun)));
        drop(first);
        assert_eq!(acceptor.next().await.read_u8().await.expect("a byte"), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_spoken_may_pause_and_go_on() {
        let env = Env::system();
        let (acceptor, address) = narrow(&env).await;
        let mut peer = connect(&env, &address).await;
        peer.write_all(b"1").await.expect("written");
        let mut ours = acceptor.next().await;
        assert_eq!(ours.read_u8().await.expect("a byte"), b'1');

        for byte in [b'2', b'3'] {
            let pause = PAUSE - Duration::from_secs(1);
            tokio::select! {
                read = ours.read_u8() => panic!("{read:?} while nothing was sent"),
                () = env.clock.sleep(pause) => {}
            }
            peer.write_all(&[byte]).await.expect("written");
            assert_eq!(ours.read_u8().await.expect("a byte"), byte);
        }
        let error = ours.read_u8().await.expect_err("nothing more came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_as_well() {
        let env = Env::system();
        let (acceptor, address) = narrow(&env).await;
        let mut peer = connect(&env, &address).await;
        peer.write_all(b"1").await.expect("written");
        let mut ours = acceptor.next().await;
        assert_eq!(ours.read_u8().await.expect("a byte"), b'1');
        let page = vec![0; 64 << 20];
        let error = ours.write_all(&page).await.expect_err("nobody reads it");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
