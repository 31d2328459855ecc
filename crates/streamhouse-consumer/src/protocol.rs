//! What members of the protocol type `consumer` say of themselves, and what their leader tells them: the bytes of Kafka's
//! public schemas `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, version 0, which every client reads.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use streamhouse_client::{PartitionIndex, TopicPartition};

/// Partitions by topic.
pub(crate) type Partitions = BTreeMap<String, Vec<PartitionIndex>>;

/// The version that is written. Later ones add fields that neither range nor roundrobin looks at.
const VERSION: i16 = 0;
/// Stands for a list of bytes that is not there.
const NULL: i32 = -1;

fn put_text(to: &mut BytesMut, text: &str) {
    let length = i16::try_from(text.len()).expect("a topic's name is short");
    to.put_i16(length);
    to.put_slice(text.as_bytes());
}

fn put_count(to: &mut BytesMut, count: usize) {
    to.put_i32(i32::try_from(count).expect("there are fewer topics and partitions"));
}

/// What a member says that wants to read `topics`, whose names are legal.
pub(crate) fn subscription(topics: &[String]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    put_count(&mut bytes, topics.len());
    topics.iter().for_each(|topic| put_text(&mut bytes, topic));
    bytes.put_i32(NULL);
    bytes.freeze()
}

/// What a member is told that is to read `partitions`.
pub(crate) fn assignment(partitions: &Partitions) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    put_count(&mut bytes, partitions.len());
    for (topic, partitions) in partitions {
        put_text(&mut bytes, topic);
        put_count(&mut bytes, partitions.len());
        for partition in partitions {
            bytes.put_i32(i32::try_from(partition.get()).expect("partitions are few"));
        }
    }
    bytes.put_i32(NULL);
    bytes.freeze()
}

/// The topics that a member wants to read, whatever version it writes; `None` for other bytes.
pub(crate) fn subscribed(bytes: &[u8]) -> Option<Vec<String>> {
    let mut rest = Rest(bytes);
    rest.version()?;
    rest.list(Rest::text)
}

/// The partitions that a member is to read, whatever version its leader writes; no bytes at all are none. `None` for
/// other bytes.
pub(crate) fn assigned(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = Rest(bytes);
    rest.version()?;
    let topics = rest.list(|rest| {
        let topic = rest.text()?;
        let partition = |rest: &mut Rest<'_>| u32::try_from(rest.i32()?).ok();
        let place =
            |partition| TopicPartition { topic: topic.clone(), partition: PartitionIndex::new(partition) };
        Some(rest.list(partition)?.into_iter().map(place).collect::<Vec<_>>())
    })?;
    Some(topics.concat())
}

/// What is left of bytes that came from elsewhere.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn version(&mut self) -> Option<i16> {
        self.i16().filter(|version| *version >= 0)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// A list that says how long it is; room is made only for what is there.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.i32()?;
        (0..length).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(topic: &str, partition: u32) -> TopicPartition {
        TopicPartition { topic: topic.to_owned(), partition: PartitionIndex::new(partition) }
    }

    #[test]
    fn the_bytes_are_those_of_kafka() {
        let topics = ["a".to_owned(), "bc".to_owned()];
        assert_eq!(&subscription(&topics)[..], b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff");
        let partitions =
            Partitions::from([("a".to_owned(), vec![PartitionIndex::new(0), PartitionIndex::new(2)])]);
        let expected = b"\0\0\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x02\xff\xff\xff\xff";
        assert_eq!(&assignment(&partitions)[..], expected);
    }

    #[test]
    fn what_newer_clients_add_is_passed_over() {
        // Version 3 of the Java client: user data, owned partitions, generation, rack.
        let newer = b"\0\x03\0\0\0\x01\0\x01a\xff\xff\xff\xff\0\0\0\0\0\0\0\x05\0\x01r";
        assert_eq!(subscribed(newer), Some(vec!["a".to_owned()]));
        assert_eq!(assigned(b""), Some(Vec::new()));
        let newer = b"\0\x03\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        assert_eq!(assigned(newer), Some(vec![place("a", 7)]));
    }

    #[test]
    fn bytes_that_end_early_or_promise_too_much_are_nothing() {
        let whole = subscription(&["topic".to_owned()]);
        for end in 0..whole.len() - 4 {
            assert_eq!(subscribed(&whole[..end]), None, "{end} bytes");
        }
        assert_eq!(subscribed(b"\0\0\x7f\xff\xff\xff\0\x01a"), None);
        assert_eq!(assigned(b"\0\0\0\0\0\x01\0\x01a\0\0\0\x01\xff\xff\xff\xff"), None, "partition -1");
        assert_eq!(assigned(b"\xff\xff\0\0\0\0"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(topics in prop::collection::vec("[a-z]{1,9}", 0..5)) {
            prop_assert_eq!(subscribed(&subscription(&topics)), Some(topics));
        }

        #[test]
        fn no_bytes_from_elsewhere_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (subscribed(&bytes), assigned(&bytes));
        }
    }
}
