//! Between the messages of the API and the nouns of the broker.

use std::time::Duration;

use streamhouse_broker::Position;
use streamhouse_proto::v1;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, Timestamp, TopicName};

use crate::status::Fault;

/// A time of the API. Below a millisecond it is rounded down.
pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).expect("less than a second");
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

/// A span of time of the API.
pub(crate) fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).expect("less than a second"),
    }
}

/// A time of the API in milliseconds.
pub(crate) fn millis(field: &str, time: &prost_types::Timestamp) -> Result<Timestamp, Fault> {
    let whole = time.seconds.checked_mul(1_000);
    let millis = whole.and_then(|whole| whole.checked_add(i64::from(time.nanos) / 1_000_000));
    let valid = (0..1_000_000_000).contains(&time.nanos);
    match millis.filter(|millis| *millis >= 0 && valid) {
        Some(millis) => Ok(Timestamp::from_millis(millis)),
        None => Err(Fault::new(ErrorCode::InvalidTimestamp, "the time lies outside what records can have")
            .field(field)),
    }
}

/// An offset of the API.
pub(crate) fn offset(field: &str, raw: u64) -> Result<Offset, Fault> {
    let offset = Offset::new(raw);
    if offset > Offset::MAX {
        return Err(Fault::new(ErrorCode::InvalidPosition, format!("{raw} is not an offset")).field(field));
    }
    Ok(offset)
}

/// A position of the API; `None` where the message says nothing.
pub(crate) fn position(field: &str, given: Option<v1::Position>) -> Result<Option<Position>, Fault> {
    use v1::position::At;
    Ok(match given.and_then(|position| position.at) {
        None => None,
        Some(At::Start(_)) => Some(Position::Start),
        Some(At::End(_)) => Some(Position::End),
        Some(At::Offset(raw)) => Some(Position::Offset(offset(field, raw)?)),
        Some(At::Time(time)) => Some(Position::Time(millis(field, &time)?)),
        Some(At::BeforeEnd(records)) => Some(Position::BeforeEnd(records)),
    })
}

/// A topic's name as given by a caller.
pub(crate) fn topic_name(field: &str, text: &str) -> Result<TopicName, Fault> {
    text.parse().map_err(|error: streamhouse_types::NameError| Fault::from(error).field(field))
}

/// The id of a request in text form; `None` where the caller leaves it to the server.
pub(crate) fn request_id(text: &str) -> Result<Option<[u8; 16]>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    match uuid::Uuid::try_parse(text) {
        Ok(id) => Ok(Some(id.into_bytes())),
        Err(_) => Err(Fault::argument("request_id", "a request id is a UUID in text form")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_there_and_back() {
        for raw in [0, 1, 999, 1_000, 1_780_000_000_123] {
            let time = Timestamp::from_millis(raw);
            assert_eq!(millis("t", &timestamp(time)).ok(), Some(time));
        }
    }

    #[test]
    fn times_that_no_record_can_have_are_refused() {
        for (seconds, nanos) in [(-1, 0), (i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
            let fault = millis("t", &prost_types::Timestamp { seconds, nanos }).expect_err("refused");
            assert_eq!(fault.code(), ErrorCode::InvalidTimestamp);
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_or_nothing() {
        assert_eq!(request_id("").ok(), Some(None));
        assert!(request_id("67e55044-10b1-426f-9247-bb680e5fe0c8").is_ok_and(|id| id.is_some()));
        assert!(request_id("twelve").is_err());
    }
}
