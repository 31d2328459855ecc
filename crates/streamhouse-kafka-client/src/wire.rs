//! Requests and answers of Kafka's protocol on one connection.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kacrab_protocol::error::Result as Coded;
use kacrab_protocol::generated as g;
use kacrab_protocol::version::{request_header_version, response_header_version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// An answer is never longer.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// A request of the generated code with its answer.
pub trait Call {
    /// The number of the request.
    const KEY: i16;
    /// What answers it.
    type Answer;

    /// Encodes the request.
    ///
    /// # Errors
    /// When it has a field that the version does not know.
    fn write(&self, bytes: &mut BytesMut, version: i16) -> Coded<()>;

    /// Decodes the answer.
    ///
    /// # Errors
    /// When it is not one.
    fn read(bytes: &mut Bytes, version: i16) -> Coded<Self::Answer>;
}

macro_rules! calls {
    ($($key:literal $request:ident $answer:ident),* $(,)?) => {
        $(impl Call for g::$request {
            const KEY: i16 = $key;
            type Answer = g::$answer;
            fn write(&self, bytes: &mut BytesMut, version: i16) -> Coded<()> {
                g::$request::write(self, bytes, version)
            }
            fn read(bytes: &mut Bytes, version: i16) -> Coded<g::$answer> {
                g::$answer::read(bytes, version)
            }
        })*
    };
}

calls!(
    0 ProduceRequestData ProduceResponseData,
    1 FetchRequestData FetchResponseData,
    2 ListOffsetsRequestData ListOffsetsResponseData,
    3 MetadataRequestData MetadataResponseData,
    8 OffsetCommitRequestData OffsetCommitResponseData,
    9 OffsetFetchRequestData OffsetFetchResponseData,
    10 FindCoordinatorRequestData FindCoordinatorResponseData,
    11 JoinGroupRequestData JoinGroupResponseData,
    12 HeartbeatRequestData HeartbeatResponseData,
    13 LeaveGroupRequestData LeaveGroupResponseData,
    14 SyncGroupRequestData SyncGroupResponseData,
    15 DescribeGroupsRequestData DescribeGroupsResponseData,
    16 ListGroupsRequestData ListGroupsResponseData,
    18 ApiVersionsRequestData ApiVersionsResponseData,
    19 CreateTopicsRequestData CreateTopicsResponseData,
    20 DeleteTopicsRequestData DeleteTopicsResponseData,
    21 DeleteRecordsRequestData DeleteRecordsResponseData,
    22 InitProducerIdRequestData InitProducerIdResponseData,
    23 OffsetForLeaderEpochRequestData OffsetForLeaderEpochResponseData,
    32 DescribeConfigsRequestData DescribeConfigsResponseData,
    33 AlterConfigsRequestData AlterConfigsResponseData,
    35 DescribeLogDirsRequestData DescribeLogDirsResponseData,
    37 CreatePartitionsRequestData CreatePartitionsResponseData,
    42 DeleteGroupsRequestData DeleteGroupsResponseData,
    44 IncrementalAlterConfigsRequestData IncrementalAlterConfigsResponseData,
    47 OffsetDeleteRequestData OffsetDeleteResponseData,
    60 DescribeClusterRequestData DescribeClusterResponseData,
    75 DescribeTopicPartitionsRequestData DescribeTopicPartitionsResponseData,
);

/// A connection. Answers come in the order of the requests.
#[derive(Debug)]
pub struct Wire<T> {
    /// How the client calls itself.
    pub name: &'static str,
    io: T,
    sent: i32,
    waiting: VecDeque<i32>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// A connection on which nothing was sent yet.
    #[must_use]
    pub fn new(io: T) -> Self {
        Self { name: "test", io, sent: 0, waiting: VecDeque::new() }
    }

    /// The bytes below.
    pub fn io(&mut self) -> &mut T {
        &mut self.io
    }

    /// How many answers are awaited.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a request; returns the number that its answer has. Not cancel-safe, as nothing here is: a connection is of
    /// no use after something was given up on it.
    ///
    /// # Errors
    /// When the connection is lost, or the version does not know a field of the request.
    pub async fn send<C: Call>(&mut self, request: &C, version: i16) -> io::Result<i32> {
        self.sent += 1;
        let mut frame = BytesMut::new();
        // Room for the length.
        frame.put_i32(0);
        frame.put_i16(C::KEY);
        frame.put_i16(version);
        frame.put_i32(self.sent);
        frame.put_i16(i16::try_from(self.name.len()).expect("short"));
        frame.put_slice(self.name.as_bytes());
        if request_header_version(C::KEY, version) == 2 {
            frame.put_u8(0);
        }
        request.write(&mut frame, version).map_err(nonsense)?;
        let length = i32::try_from(frame.len() - size_of::<i32>()).map_err(nonsense)?;
        frame[..size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
        self.io.write_all(&frame).await?;
        self.io.flush().await?;
        self.waiting.push_back(self.sent);
        Ok(self.sent)
    }

    /// The next answer and its number.
    ///
    /// # Errors
    /// When the connection is lost, or the answer is not whole.
    pub async fn receive<C: Call>(&mut self, version: i16) -> io::Result<(i32, C::Answer)> {
        let length = usize::try_from(self.io.read_i32().await?).map_err(nonsense)?;
        if length > ANSWER_BYTES_MAX {
            return Err(nonsense(format!("an answer of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.io.read_exact(&mut bytes).await?;
        let mut bytes = Bytes::from(bytes);
        let number = bytes.try_get_i32().map_err(nonsense)?;
        // Who wants no answer is passed over.
        self.waiting.retain(|sent| *sent >= number);
        if self.waiting.front() == Some(&number) {
            self.waiting.pop_front();
        }
        if response_header_version(C::KEY, version) == 1 && bytes.try_get_u8().map_err(nonsense)? != 0 {
            return Err(nonsense("an answer with tags in its header".to_owned()));
        }
        let answer = C::read(&mut bytes, version).map_err(nonsense)?;
        if !bytes.is_empty() {
            return Err(nonsense(format!("{} bytes are left of the answer", bytes.len())));
        }
        Ok((number, answer))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive`](Self::receive).
    pub async fn call<C: Call>(&mut self, request: &C, version: i16) -> io::Result<C::Answer> {
        let sent = self.send(request, version).await?;
        let (number, answer) = self.receive::<C>(version).await?;
        if number == sent { Ok(answer) } else { Err(nonsense(format!("answer {number} to request {sent}"))) }
    }
}

fn nonsense(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
