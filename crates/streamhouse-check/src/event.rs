//! What a line of a history says. The names of the fields are the format: `docs/formats/history.md`.

mod groups;

use std::borrow::Cow;
use std::fmt;

use crc_fast::CrcAlgorithm;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use streamhouse_types::{LogIndex, NodeId, Offset};

pub use groups::{Commit, CommitOutcome, Committed, Seek};

/// A point in time: microseconds of the one clock that all lines of a history use, from any beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Micros(u64);

impl Micros {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us", self.0)
    }
}

/// Number of an operation, used once by its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(u64);

impl OpId {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// 64 bits that stand for the bytes of a value. In a line: 16 hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

impl Digest {
    /// The digest of these bytes: their CRC-64/NVME.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().enumerate() {
            let four = (self.0 >> (60 - 4 * place)) & 0xf;
            *digit = b"0123456789abcdef"[usize::try_from(four).expect("four bits")];
        }
        serializer.serialize_str(std::str::from_utf8(&digits).expect("digits are text"))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest of 16 hexadecimal digits in lower case")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                let wrong = || de::Error::invalid_value(de::Unexpected::Str(text), &self);
                if text.len() != 16 {
                    return Err(wrong());
                }
                let mut raw = 0;
                for digit in text.bytes() {
                    let four = match digit {
                        b'0'..=b'9' => digit - b'0',
                        b'a'..=b'f' => digit - b'a' + 10,
                        _ => return Err(wrong()),
                    };
                    raw = raw << 4 | u64::from(four);
                }
                Ok(Digest(raw))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// What holds for the whole history; its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format: 1.
    pub version: u32,
    /// Log starts may move up although nobody asks for a trim, because old records are dropped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retention: bool,
    /// For people: which run this is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Header {
    /// The version of the format that is written and read here.
    pub const VERSION: u32 = 1;
}

impl Default for Header {
    fn default() -> Self {
        Self { version: Self::VERSION, retention: false, note: String::new() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<'a> {
    /// Records are about to be sent.
    #[serde(borrow)]
    Append(Append<'a>),
    /// They are durable.
    #[serde(borrow)]
    Acked(Acked<'a>),
    /// They are given up.
    #[serde(borrow)]
    Failed(Failed<'a>),
    /// A consumer was given records, or none.
    #[serde(borrow)]
    Poll(Poll<'a>),
    /// A consumer was told that its position does not exist.
    #[serde(borrow)]
    OutOfRange(OutOfRange<'a>),
    /// A consumer forgot its positions.
    #[serde(borrow)]
    Restart(Restart<'a>),
    /// Somebody asks for the oldest records to be dropped.
    #[serde(borrow)]
    Trim(Trim<'a>),
    /// From here on everything is read once more.
    FinalRead(FinalRead),
    /// A node told how far a partition is.
    #[serde(borrow)]
    Observed(Observed<'a>),
    /// A member of a group commits.
    #[serde(borrow)]
    Commit(Commit<'a>),
    /// A member of a group was told what is committed.
    #[serde(borrow)]
    Committed(Committed<'a>),
    /// Somebody moves a group.
    #[serde(borrow)]
    Seek(Seek<'a>),
    /// The object store was held against the metadata.
    #[serde(borrow)]
    Audit(Audit<'a>),
    /// The recorder was stopped in good order; nothing follows.
    End(End),
}

/// Records are about to be sent; written before the first byte leaves. What has neither `acked` nor `failed` may have
/// happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append<'a> {
    /// Who writes this line.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// The operation.
    pub op: OpId,
    /// When.
    pub at: Micros,
    /// Who sends. A producer that starts over under a new id is a new producer.
    #[serde(borrow)]
    pub producer: Cow<'a, str>,
    /// Whether repeats of these records are recognised.
    pub idempotent: bool,
    /// Where to, such as `orders/3`.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// Number of the first record in what this producer sends to this partition; rises from line to line.
    pub sequence: u64,
    /// The records, at least one; they succeed or fail as one.
    pub values: Vec<Digest>,
}

/// An append has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acked<'a> {
    /// The client of the append.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// The append.
    pub op: OpId,
    /// When the answer was there.
    pub at: Micros,
    /// Offset of the first record.
    pub offset: Offset,
    /// The read token of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<LogIndex>,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// It was sent more than once, so that without idempotence it may be there more than once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retried: bool,
}

/// An append has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed<'a> {
    /// The client of the append.
    #[serde(borrow)]
    pub client: Cow<'a, str>,
    /// The append.
    pub op: OpId,
    /// When that was known.
    pub at: Micros,
    /// What the error says of it.
    pub happened: Happened,
    /// The error, for people.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
}

/// What an error says of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It did not happen and never will.
    No,
    /// It may have happened, or happen yet.
    Maybe,
}

/// An answer to a read of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll<'a> {
    /// Who reads; one position for each partition.
    #[serde(borrow)]
    pub consumer: Cow<'a, str>,
    /// What is read.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// When it was asked.
    pub begin: Micros,
    /// When the answer was there.
    pub end: Micros,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The offset that was asked for; absent where the client does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Offset>,
    /// What was read, in the order in which it was given out.
    pub records: Vec<(Offset, Digest)>,
    /// The high watermark in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<Offset>,
    /// The log start in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start: Option<Offset>,
    /// The read token that was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<LogIndex>,
}

impl<'a> Poll<'a> {
    /// An answer without records, of which nothing else is known.
    #[must_use]
    pub fn empty(consumer: &'a str, partition: &'a str, begin: Micros, end: Micros) -> Self {
        Self {
            consumer: consumer.into(),
            partition: partition.into(),
            begin,
            end,
            node: None,
            from: None,
            records: Vec::new(),
            high_watermark: None,
            log_start: None,
            token: None,
        }
    }
}

/// A read was refused because there is no such offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutOfRange<'a> {
    /// Who reads.
    #[serde(borrow)]
    pub consumer: Cow<'a, str>,
    /// What is read.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// When it was asked.
    pub begin: Micros,
    /// When the answer was there.
    pub end: Micros,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The offset that was asked for.
    pub position: Offset,
    /// The high watermark in the answer.
    pub high_watermark: Offset,
    /// The log start in the answer.
    pub log_start: Offset,
    /// The read token that was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<LogIndex>,
}

/// A consumer begins anew: what it reads next need not follow what it read last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart<'a> {
    /// The consumer.
    #[serde(borrow)]
    pub consumer: Cow<'a, str>,
    /// When.
    pub at: Micros,
}

/// Records are about to be dropped on demand; written before the demand is sent. A trim that was surely refused has no
/// line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trim<'a> {
    /// The partition.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// The first record that stays.
    pub before: Offset,
    /// When.
    pub at: Micros,
}

/// All writers are done, and every partition is read from its log start to its end by the polls that follow, until the
/// next marker, the next append, or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinalRead {
    /// When.
    pub at: Micros,
}

/// What one node said of one partition, without a read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed<'a> {
    /// The node.
    pub node: NodeId,
    /// The partition.
    #[serde(borrow)]
    pub partition: Cow<'a, str>,
    /// When it was asked.
    pub begin: Micros,
    /// When the answer was there.
    pub end: Micros,
    /// The high watermark in the answer.
    pub high_watermark: Offset,
    /// The log start in the answer.
    pub log_start: Offset,
}

/// What a comparison of store and metadata found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit<'a> {
    /// When.
    pub at: Micros,
    /// Objects that metadata refers to.
    pub referenced: u64,
    /// How many of them are there.
    pub present: u64,
    /// How many of them are there with the right length and checksum.
    pub intact: u64,
    /// Objects that were uploaded and never committed.
    pub orphans: u64,
    /// How many of those may be there; any number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans_allowed: Option<u64>,
    /// Objects that are neither referenced nor an orphan nor garbage by the rules.
    #[serde(default)]
    pub unexplained: u64,
    /// For people: what is wrong with which object.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Cow<'a, str>>,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many events stand between the header and this line.
    pub events: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sixteen_digits_and_nothing_else() {
        let digest = Digest::new(0x0123_4567_89ab_cdef);
        assert_eq!(serde_json::to_string(&digest).unwrap(), "\"0123456789abcdef\"");
        assert_eq!(serde_json::from_str::<Digest>("\"0123456789abcdef\"").unwrap(), digest);
        for wrong in
            ["\"\"", "\"0123456789ABCDEF\"", "\"123\"", "\"0123456789abcdef0\"", "7", "\"+123456789abcdef\""]
        {
            assert!(serde_json::from_str::<Digest>(wrong).is_err(), "{wrong}");
        }
        assert_ne!(Digest::of(b"a"), Digest::of(b"b"));
    }
}
