//! The few requests of Kafka's protocol that are asked here, in versions that every broker of the last years answers.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kacrab_protocol::generated as g;
use streamhouse_env::{Clock, Connection, Env};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The name that is given to brokers.
const NAME: &str = "streamhouse-doctor";
/// Largest answer that is taken.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why a broker was not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Nobody was reached.
    #[error("{0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("it ended the connection ({0})")]
    Broken(#[from] io::Error),
    /// Nothing came in time.
    #[error("nothing came back within {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// What came is not what was asked for.
    #[error("its answer is not Kafka's ({0})")]
    Nonsense(String),
}

/// A request with its answer.
pub(crate) trait Ask {
    const KEY: i16;
    const VERSION: i16;
    type Answer;
    fn write(&self, bytes: &mut BytesMut) -> kacrab_protocol::Result<()>;
    fn read(bytes: &mut Bytes) -> kacrab_protocol::Result<Self::Answer>;
}

// All of these versions have headers and bodies without tags.
macro_rules! asks {
    ($($key:literal v $version:literal $request:ident $answer:ident),* $(,)?) => {
        $(impl Ask for g::$request {
            const KEY: i16 = $key;
            const VERSION: i16 = $version;
            type Answer = g::$answer;
            fn write(&self, bytes: &mut BytesMut) -> kacrab_protocol::Result<()> {
                g::$request::write(self, bytes, $version)
            }
            fn read(bytes: &mut Bytes) -> kacrab_protocol::Result<g::$answer> {
                g::$answer::read(bytes, $version)
            }
        })*
    };
}

asks!(
    3 v 5 MetadataRequestData MetadataResponseData,
    10 v 1 FindCoordinatorRequestData FindCoordinatorResponseData,
    18 v 0 ApiVersionsRequestData ApiVersionsResponseData,
);

/// A connection to a broker.
pub(crate) struct Broker<'a> {
    io: Connection,
    clock: &'a dyn Clock,
    patience: Duration,
    asked: i32,
}

impl<'a> Broker<'a> {
    /// Connects within `patience`, which each request has as well.
    pub(crate) async fn dial(env: &'a Env, address: &str, patience: Duration) -> Result<Self, WireError> {
        let clock = &*env.clock;
        let io = tokio::select! {
            connected = env.net.connect(address) => connected.map_err(WireError::Connect)?,
            () = clock.sleep(patience) => return Err(WireError::Silent(patience)),
        };
        Ok(Self { io, clock, patience, asked: 0 })
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask<Q: Ask>(&mut self, request: &Q) -> Result<Q::Answer, WireError> {
        let (clock, patience) = (self.clock, self.patience);
        let mut answer = tokio::select! {
            answer = self.exchange(request) => answer?,
            () = clock.sleep(patience) => return Err(WireError::Silent(patience)),
        };
        Q::read(&mut answer).map_err(|error| WireError::Nonsense(error.to_string()))
    }

    async fn exchange<Q: Ask>(&mut self, request: &Q) -> Result<Bytes, WireError> {
        self.asked += 1;
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i16(Q::KEY);
        frame.put_i16(Q::VERSION);
        frame.put_i32(self.asked);
        let too_long = |_| WireError::Nonsense("the request is too long".to_owned());
        frame.put_i16(i16::try_from(NAME.len()).map_err(too_long)?);
        frame.put_slice(NAME.as_bytes());
        request.write(&mut frame).map_err(|error| WireError::Nonsense(error.to_string()))?;
        let length = i32::try_from(frame.len() - 4).map_err(too_long)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.io.write_all(&frame).await?;
        self.io.flush().await?;
        let length = usize::try_from(self.io.read_i32().await?).unwrap_or(usize::MAX);
        if !(4..=ANSWER_BYTES_MAX).contains(&length) {
            return Err(WireError::Nonsense(format!("a length of {length}")));
        }
        let mut answer = BytesMut::new();
        let mut left = (&mut self.io).take(length as u64);
        while answer.len() < length {
            if left.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let mut answer = answer.freeze();
        match answer.get_i32() == self.asked {
            true => Ok(answer),
            false => Err(WireError::Nonsense("it answers what was not asked".to_owned())),
        }
    }
}
