//! Sizes, counts, spans and times as people write and read them.
//!
//! Architecture invariant: pure, and knows neither what is measured nor where it is shown.

use std::time::{Duration, SystemTime};

use streamhouse_types::Timestamp;

/// Reads `1048576`, `64KiB`, `8MiB`, `1.5 GiB`, `100MB`.
///
/// # Errors
/// With what would be right.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a number of bytes such as 65536, 64KiB, 8MiB or 1.5GB";
    let text = text.trim();
    let split = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    scaled(number, factor).ok_or_else(|| EXPECTED.to_owned())
}

/// Reads `1000`, `10_000`, `336,776`, `10k`, `1.5M`.
///
/// # Errors
/// With what would be right.
pub fn parse_count(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a whole number such as 1000, 10_000, 10k or 2M";
    let plain: String = text.trim().chars().filter(|sign| !matches!(sign, '_' | ',')).collect();
    let (number, factor) = match plain.char_indices().last() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1_000),
        Some((at, 'm' | 'M')) => (&plain[..at], 1_000_000),
        Some((at, 'g' | 'G')) => (&plain[..at], 1_000_000_000),
        _ => (plain.as_str(), 1),
    };
    scaled(number, factor).ok_or_else(|| EXPECTED.to_owned())
}

/// Reads a rate: a count of at least one a second.
///
/// # Errors
/// With what would be right.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("expected at least 1 a second".to_owned()),
        rate => Ok(rate),
    }
}

/// `number` with up to six decimals, times `factor`; `None` when it is no number or too big.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, decimals)) if factor > 1 && (1..=6).contains(&decimals.len()) => {
            let scale = 10_u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
            let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
            let part = decimals.parse::<u64>().ok()?.checked_mul(factor)? / scale;
            whole.checked_add(part)
        }
        Some(_) => None,
    }
}

/// Reads `250ms`, `15m`, `2h 30m`.
///
/// # Errors
/// With what would be right.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time span such as 250ms, 15m or 2h".to_owned())
}

/// `4.1 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if count >= size {
            let tenths = u128::from(count) * 10 / u128::from(size);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// `18,204,113`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 record`, `2,000 records`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// `0.42 ms`, `41 ms`, `3.2 s`, `6m 12s`.
#[must_use]
pub fn span(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0..10_000 => format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
        _ => humantime::format_duration(Duration::from_secs(span.as_secs())).to_string(),
    }
}

/// `2026-06-01T12:00:00.000Z`; `None` for no timestamp and for times before 1970.
#[must_use]
pub fn time(at: Timestamp) -> Option<String> {
    let millis = u64::try_from(at.as_millis()).ok()?;
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
    // Years beyond 9999 have no RFC 3339 form.
    (millis < 253_402_300_800_000).then(|| humantime::format_rfc3339_millis(time).to_string())
}

/// How long before `now` something happened, in whole units: `0.2s ago`, `3m ago`.
#[must_use]
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let millis = u64::try_from(now.as_millis().saturating_sub(at.as_millis())).unwrap_or(0);
    match millis {
        0..10_000 => format!("{}.{}s ago", millis / 1_000, millis % 1_000 / 100),
        10_000..60_000 => format!("{}s ago", millis / 1_000),
        60_000..3_600_000 => format!("{}m ago", millis / 60_000),
        3_600_000..172_800_000 => format!("{}h ago", millis / 3_600_000),
        _ => format!("{}d ago", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("65536"), Ok(65_536));
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("8 MiB"), Ok(8 << 20));
        assert_eq!(parse_bytes(" 1.5 GiB "), Ok(3 << 29));
        assert_eq!(parse_bytes("1.5GB"), Ok(1_500_000_000));
        for wrong in ["", "MiB", "-1", "1.5", "1.MiB", "12 parsecs", "99999999999 TiB", "1e3"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn counts_are_read_as_people_write_them() {
        assert_eq!(parse_count("336,776"), Ok(336_776));
        assert_eq!(parse_count("10_000"), Ok(10_000));
        assert_eq!(parse_count("1.5M"), Ok(1_500_000));
        for wrong in ["", "k", "-3", "1.5", "ten"] {
            assert!(parse_count(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn numbers_are_written_for_eyes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB".replace("16777216.0", "16777215.9"));
        assert_eq!(count(1), "1");
        assert_eq!(count(18_204_113), "18,204,113");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(1_000, "record"), "1,000 records");
        assert_eq!(span(Duration::from_micros(424)), "0.42 ms");
        assert_eq!(span(Duration::from_micros(41_900)), "41 ms");
        assert_eq!(span(Duration::from_millis(3_250)), "3.2 s");
        assert_eq!(span(Duration::from_secs(372)), "6m 12s");
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(
            time(Timestamp::from_millis(1_780_315_200_123)).as_deref(),
            Some("2026-06-01T12:00:00.123Z")
        );
        assert_eq!(time(Timestamp::NONE), None);
        assert_eq!(time(Timestamp::from_millis(i64::MAX)), None);
    }
}
