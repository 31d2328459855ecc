//! The way from house to house.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use streamhouse_env::{Connection, Listener, Net};
use streamhouse_kafka::Kafka;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::harness::LOOPBACK;

/// What is behind an address.
#[derive(Clone)]
pub(crate) enum Door {
    /// Somebody who answers.
    Open(Kafka),
    /// Somebody who hears a request and hangs up.
    HangsUp,
    /// Somebody who never says anything.
    Mute,
}

/// The doors of the houses, by their addresses.
#[derive(Default)]
pub(crate) struct HouseNet {
    doors: Mutex<BTreeMap<String, Door>>,
    /// What the next connection waits for.
    held: Mutex<Option<Arc<Notify>>>,
}

impl std::fmt::Debug for HouseNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HouseNet").finish_non_exhaustive()
    }
}

impl HouseNet {
    pub(crate) fn put(&self, address: String, door: Door) {
        self.doors.lock().expect("no test panics with it").insert(address, door);
    }

    /// Nobody opens there any more.
    pub(crate) fn shut(&self, address: &str) {
        self.doors.lock().expect("no test panics with it").remove(address);
    }

    /// The next connection, and that one alone, waits until it is told to go on.
    pub(crate) fn hold_next(&self) -> Arc<Notify> {
        let go_on = Arc::new(Notify::new());
        *self.held.lock().expect("no test panics with it") = Some(Arc::clone(&go_on));
        go_on
    }

    /// Whether a connection has come since that waits.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.lock().expect("no test panics with it").is_none()
    }
}

#[async_trait]
impl Net for HouseNet {
    async fn listen(&self, _address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let held = self.held.lock().expect("no test panics with it").take();
        if let Some(go_on) = held {
            go_on.notified().await;
        }
        let door = self.doors.lock().expect("no test panics with it").get(address).cloned();
        let door = door.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            match door {
                Door::Open(kafka) => kafka.serve(theirs, LOOPBACK, CancellationToken::new()).await,
                Door::HangsUp => drop(theirs.read_u8().await),
                Door::Mute => drop(theirs.read_to_end(&mut Vec::new()).await),
            }
        });
        Ok(Connection::new(ours, SocketAddr::from((LOOPBACK, 9))))
    }
}
