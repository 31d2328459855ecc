//! Where to begin and where to end, and the words for it.
//!
//! ```text
//! start          the first record there is
//! end            after the last record
//! 1234           this offset
//! -100           so many records before the end
//! +100           so many records after the start
//! @-15m          the first record of the last quarter of an hour
//! @2025-06-01    the first record at or after a time: a date, an RFC 3339 time,
//!                or milliseconds since 1970 as in @1748736000000
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use streamhouse_proto::v1;
use streamhouse_types::{Offset, Timestamp};

use crate::model::proto_timestamp;

/// A place in a partition, in words that fit every partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Position {
    /// The first record there is.
    Start,
    /// After the last record that is readable now.
    End,
    /// This offset.
    Offset(Offset),
    /// The first record whose timestamp is at or after this; the end when there is none.
    Time(Timestamp),
    /// The first record that is at most this old, by the client's clock.
    Ago(Duration),
    /// So many records before the end, or the start when there are fewer.
    BeforeEnd(u64),
    /// So many records after the start, or the end when there are fewer.
    AfterStart(u64),
}

impl Position {
    /// This position with "ago" counted from `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::Ago(age) => {
                let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                Self::Time(Timestamp::from_millis(now.as_millis().saturating_sub(millis).max(0)))
            }
            other => other,
        }
    }

    /// The message that says it, with "ago" counted from `now`. "After the start" has none and is said as the start.
    #[must_use]
    pub fn to_message(self, now: Timestamp) -> v1::Position {
        use v1::position::{At, End, Start};
        let at = match self.at(now) {
            Self::Start | Self::AfterStart(_) => At::Start(Start {}),
            Self::End => At::End(End {}),
            Self::Offset(offset) => At::Offset(offset.get()),
            Self::Time(time) => At::Time(proto_timestamp(time)),
            Self::BeforeEnd(records) => At::BeforeEnd(records),
            Self::Ago(_) => unreachable!("`at` turned it into a time"),
        };
        v1::Position { at: Some(at) }
    }
}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a position: write start, end, 1234, -100, +100, @-15m or @2025-06-01")]
pub struct ParsePositionError {
    /// What was read.
    pub text: String,
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let position = match text {
            "start" => Some(Self::Start),
            "end" => Some(Self::End),
            _ => None,
        };
        let position = position.or_else(|| {
            if let Some(time) = text.strip_prefix('@') {
                parse_time(time)
            } else if let Some(count) = text.strip_prefix('-') {
                digits(count).map(Self::BeforeEnd)
            } else if let Some(count) = text.strip_prefix('+') {
                digits(count).map(Self::AfterStart)
            } else {
                digits(text).filter(|raw| *raw <= Offset::MAX.get()).map(|raw| Self::Offset(Offset::new(raw)))
            }
        });
        position.ok_or_else(|| ParsePositionError { text: text.chars().take(128).collect() })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::Time(time) => write!(f, "@{time}"),
            Self::Ago(age) => write!(f, "@-{}ms", age.as_millis()),
            Self::BeforeEnd(records) => write!(f, "-{records}"),
            Self::AfterStart(records) => write!(f, "+{records}"),
        }
    }
}

/// A number without a sign.
fn digits(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

fn parse_time(text: &str) -> Option<Position> {
    if text == "now" {
        return Some(Position::Ago(Duration::ZERO));
    }
    if let Some(age) = text.strip_prefix('-') {
        return parse_duration(age).map(Position::Ago);
    }
    let millis = match digits(text) {
        Some(millis) => i64::try_from(millis).ok()?,
        None => parse_calendar(text)?,
    };
    Some(Position::Time(Timestamp::from_millis(millis)))
}

/// `15m`, `1h30m`, `2d`, `500ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit())?;
        let count = digits(&rest[..unit_at])?;
        let after = &rest[unit_at..];
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit: u64 = match &after[..unit_len] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        millis = millis.checked_add(count.checked_mul(unit)?)?;
        rest = &after[unit_len..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Milliseconds of `2025-06-01`, `2025-06-01T12:30`, `2025-06-01 12:30:00.250Z`, `2025-06-01T12:30:00+02:00`.
/// Without a zone it is UTC.
fn parse_calendar(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let mut part = |len: usize| parts.next().filter(|part| part.len() == len).and_then(digits);
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let midnight =
        days_since_1970(i64::try_from(year).ok()?, i64::try_from(month).ok()?, i64::try_from(day).ok()?);
    let of_day = if time.is_empty() { 0 } else { parse_time_of_day(time.strip_prefix(['T', 't', ' '])?)? };
    midnight.checked_mul(86_400_000)?.checked_add(of_day)
}

/// Milliseconds since midnight UTC of `12:30`, `12:30:15`, `12:30:15.250`, with a zone or without.
fn parse_time_of_day(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(zone_at);
    let mut parts = clock.split(':');
    let hour = two_digits(parts.next()?, 23)?;
    let minute = two_digits(parts.next()?, 59)?;
    let (second, fraction) = match parts.next() {
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "")),
        None => ("00", ""),
    };
    let second = two_digits(second, 59)?;
    if parts.next().is_some() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let offset_minutes = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let minutes = two_digits(hours, 23)? * 60 + two_digits(minutes, 59)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    Some(((hour * 60 + minute - offset_minutes) * 60 + second) * 1_000 + millis)
}

fn two_digits(text: &str, max: i64) -> Option<i64> {
    let number = digits(text).filter(|_| text.len() == 2)?;
    i64::try_from(number).ok().filter(|number| *number <= max)
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March here, so the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Position) {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_time(text: &str, millis: i64) {
        check(text, Position::Time(Timestamp::from_millis(millis)));
    }

    #[test]
    fn words_and_numbers_name_places() {
        check("start", Position::Start);
        check("end", Position::End);
        check("0", Position::Offset(Offset::ZERO));
        check("1234", Position::Offset(Offset::new(1234)));
        check("-100", Position::BeforeEnd(100));
        check("+100", Position::AfterStart(100));
        check("@-15m", Position::Ago(Duration::from_secs(900)));
        check("@-1h30m", Position::Ago(Duration::from_secs(5_400)));
        check("@-250ms", Position::Ago(Duration::from_millis(250)));
        check("@now", Position::Ago(Duration::ZERO));
    }

    #[test]
    fn times_are_dates_rfc_3339_or_milliseconds() {
        check_time("@0", 0);
        check_time("@1748736000000", 1_748_736_000_000);
        check_time("@1970-01-01", 0);
        check_time("@2025-06-01", 1_748_736_000_000);
        check_time("@2024-02-29T23:59:59.999Z", 1_709_251_199_999);
        check_time("@2025-06-01T00:00Z", 1_748_736_000_000);
        check_time("@2025-06-01T02:00:00+02:00", 1_748_736_000_000);
        check_time("@2025-05-31 19:30:00-04:30", 1_748_736_000_000);
        check_time("@2025-06-01T00:00:00.5", 1_748_736_000_500);
        check_time("@1969-12-31T23:59:59Z", -1_000);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "begin",
            "-",
            "+",
            "@",
            "@-",
            "@-15",
            "@-15y",
            "@-m",
            "1.5",
            "--1",
            "+-1",
            "9223372036854775808",
            "@2025-13-01",
            "@2025-02-29",
            "@2025-06-00",
            "@2025-6-1",
            "@2025-06-01T",
            "@2025-06-01T24:00",
            "@2025-06-01X00:00",
            "@2025-06-01T00:00:60",
            "@2025-06-01T00:00+2",
            "@2025-06-01T00:00:00.Z1",
            "@été",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn ago_is_counted_from_now() {
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(
            Position::Ago(Duration::from_secs(900)).at(now),
            Position::Time(Timestamp::from_millis(100_000))
        );
        assert_eq!(
            Position::Ago(Duration::from_secs(9_000)).at(now),
            Position::Time(Timestamp::from_millis(0))
        );
        assert_eq!(Position::End.at(now), Position::End);
    }

    #[test]
    fn a_position_reads_back_what_it_wrote() {
        for text in ["start", "end", "7", "-7", "+7", "@7", "@-7ms"] {
            assert_eq!(text.parse::<Position>().map(|position| position.to_string()), Ok(text.to_owned()));
        }
    }
}
