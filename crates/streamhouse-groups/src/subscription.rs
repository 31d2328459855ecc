//! What members of the kind "consumer" say of themselves, as far as the server looks into it: all else is opaque.

use std::collections::BTreeSet;

/// A reader of Kafka's plain encoding that stops at the end of the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
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

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.i16()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// A list; a null one is empty. Nothing is allocated for entries that are not there.
    fn list<T, C: FromIterator<T>>(&mut self, mut entry: impl FnMut(&mut Self) -> Option<T>) -> Option<C> {
        let length = self.i32()?;
        (0..length).map(|_| entry(self)).collect()
    }
}

/// The kind of group whose members say which topics they read.
pub(crate) const CONSUMER: &str = "consumer";

/// Whether two metadata of a member of the kind "consumer" ask for the same topics. What else they hold may be another
/// after each restart: the generation and the partitions that the member had when it joined, the notes of its assignor,
/// its rack. Bytes that are something else are the same when they are equal.
pub(crate) fn asks_the_same(one: &[u8], other: &[u8]) -> bool {
    one == other || topics::<BTreeSet<_>>(one).is_some_and(|of_one| topics(other) == Some(of_one))
}

fn topics<'a, C: FromIterator<&'a str>>(metadata: &'a [u8]) -> Option<C> {
    let mut reader = Reader(metadata);
    if reader.i16()? < 0 {
        return None;
    }
    reader.list(Reader::text)
}

/// The topics that a member reads, out of its metadata for any protocol of the kind "consumer"; `None` for bytes that are
/// something else.
#[must_use]
pub fn subscribed_topics(metadata: &[u8]) -> Option<Vec<String>> {
    topics::<Vec<_>>(metadata).map(|topics| topics.into_iter().map(str::to_owned).collect())
}

/// The partitions that a member reads by topic, out of its assignment in a group of the kind "consumer"; `None` for bytes
/// that are something else, such as the empty assignment.
#[must_use]
pub fn assigned_partitions(assignment: &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    let mut reader = Reader(assignment);
    if reader.i16()? < 0 {
        return None;
    }
    reader.list(|reader| Some((reader.text()?.to_owned(), reader.list(Reader::i32)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1: topics "a" and "bc", no user data, nothing owned.
    const SUBSCRIPTION: &[u8] = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
    /// Version 0: partitions 0 and 2 of "a", no user data.
    const ASSIGNMENT: &[u8] = b"\0\0\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x02\xff\xff\xff\xff";

    #[test]
    fn topics_and_partitions_are_found() {
        assert_eq!(subscribed_topics(SUBSCRIPTION), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(assigned_partitions(ASSIGNMENT), Some(vec![("a".to_owned(), vec![0, 2])]));
    }

    #[test]
    fn what_a_member_asks_for_are_its_topics_in_any_order() {
        // Version 3: notes, a partition owned, generation 7, a rack.
        let later =
            b"\0\x03\0\0\0\x02\0\x02bc\0\x01a\0\0\0\x01n\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\0\0\0\0\x07\0\x01r";
        assert!(asks_the_same(SUBSCRIPTION, later));
        assert!(!asks_the_same(SUBSCRIPTION, b"\0\x01\0\0\0\x01\0\x01a\xff\xff\xff\xff\0\0\0\0"));
        assert!(asks_the_same(b"\xffx", b"\xffx") && !asks_the_same(b"\xffx", b"\xffy"));
        assert!(!asks_the_same(SUBSCRIPTION, b"\xffx"));
    }

    #[test]
    fn bytes_that_end_early_or_promise_too_much_are_nothing() {
        for end in 0..SUBSCRIPTION.len() - 8 {
            assert_eq!(subscribed_topics(&SUBSCRIPTION[..end]), None, "{end} bytes");
        }
        for end in 0..ASSIGNMENT.len() - 4 {
            assert_eq!(assigned_partitions(&ASSIGNMENT[..end]), None, "{end} bytes");
        }
        assert_eq!(subscribed_topics(b"\0\0\x7f\xff\xff\xff\0\x01a"), None);
        assert_eq!(subscribed_topics(b"\xff\xff\0\0\0\0"), None);
    }
}
